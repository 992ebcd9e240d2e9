/**
 * The outbox: records that the server does not hold yet, delivered at least once.
 *
 * A record leaves the outbox in one of three ways: the server says that it holds it, the server refuses it (it becomes
 * a dead letter), or the store is full (a gap record says so). Nothing else deletes.
 */
import { MAX_BATCH_RECORDS, type Refusal, type ResultsAnswer } from "../contract/batch.ts";
import { randomHex } from "../contract/bytes.ts";
import type { AnyRecord, Gap } from "../contract/result.ts";
import type { Database, Transaction } from "../store/database.ts";
import { BY_TIME, ONLY, type DeadLetter, type StoredRecord, type StoreName, type Stream } from "../store/schema.ts";
import { renumbered } from "./renumber.ts";
import { appendRecords, count, DEFAULT_LIMITS, OUTBOX_STORES, stored, streamOf, type OutboxLimits } from "./writing.ts";

// 5,000 anomalies with 8 contributions each are 1.9 MB and 0.33 MB of gzip (measured on native devices).
const LEASE_BYTES = 2_000_000;
const REUSED = "sequence_reused";
const STORES: readonly StoreName[] = [...OUTBOX_STORES, "deadLetters"];

/** Records about to be sent, oldest first; empty when there is nothing to send. */
export interface Lease {
  /** The stream that their numbers belong to. */
  readonly stream: string;
  readonly records: readonly AnyRecord[];
}

/** What an answer changed. */
export interface Settled {
  /** Records deleted because the server holds them. */
  readonly acknowledged: number;
  /** Records moved to the dead letters. */
  readonly refused: number;
  /** The new stream when the server holds other records under our numbers, else null. */
  readonly forkedTo: string | null;
}

/** What waits. */
export interface OutboxState {
  readonly stream: string | null;
  readonly nextSequence: number;
  readonly records: number;
  readonly bytes: number;
  readonly deadLetters: number;
  /** Time of the oldest record waiting, by its own content, or null. */
  readonly oldestMs: number | null;
}

/** The outbox of one device. */
export class Outbox {
  private readonly database: Database;
  private readonly limits: OutboxLimits;

  constructor(database: Database, limits: OutboxLimits = DEFAULT_LIMITS) {
    this.database = database;
    this.limits = limits;
  }

  /**
   * Number and store records, in a transaction of their own.
   *
   * @throws StorageError - They could not be stored; none was.
   */
  async append(records: readonly AnyRecord[]): Promise<void> {
    await this.database.write(OUTBOX_STORES, (tx) => appendRecords(tx, records, this.limits));
  }

  /**
   * Take the oldest records for sending; they stay stored, and are marked as possibly known to the server.
   *
   * @param mostRecords - At most this many.
   * @throws StorageError - The database cannot be used.
   */
  async lease(mostRecords = MAX_BATCH_RECORDS): Promise<Lease> {
    return this.database.write(OUTBOX_STORES, async (tx) => {
      const stream = await streamOf(tx);
      const taken = within(await tx.getAll("outbox", undefined, mostRecords), LEASE_BYTES);
      for (const row of taken) if (!row.sent) await tx.put("outbox", { ...row, sent: true });
      return { stream: stream.id, records: taken.map(recordOf) };
    });
  }

  /**
   * Do what the server's answer to a lease asks for, in one transaction.
   *
   * An answer about a stream that is no longer current changes nothing: its numbers mean other records now.
   *
   * @param lease - What was sent.
   * @param answer - What came back.
   * @param nowMs - The device's clock.
   * @throws StorageError - The database cannot be used; the lease may simply be sent again.
   */
  async settle(lease: Lease, answer: ResultsAnswer, nowMs: number): Promise<Settled> {
    return this.database.write(STORES, async (tx) => {
      const stream = await streamOf(tx);
      if (stream.id !== lease.stream) return { acknowledged: 0, refused: 0, forkedTo: null };
      const numbers = new Set(lease.records.map((item) => item.record.sequence));
      const held = [...numbers].filter((number) =>
        answer.held.some(([first, last]) => first <= number && number <= last),
      );
      const ours = answer.refused.filter(
        (refusal) => numbers.has(refusal.sequence) && !held.includes(refusal.sequence),
      );
      const bad = ours.filter((refusal) => refusal.reason !== REUSED);
      const acknowledged = await remove(tx, held);
      const refused = await this.bury(tx, stream.id, bad, nowMs);
      await count(tx, new Map([["records_acknowledged", acknowledged]]));
      // Another record under our number: this database is an older copy. The records themselves are good.
      const forkedTo = ours.length > bad.length ? await this.fork(tx, stream.id, nowMs) : null;
      return { acknowledged, refused, forkedTo };
    });
  }

  /**
   * Return what is waiting.
   *
   * @throws StorageError - The database cannot be read.
   */
  async state(): Promise<OutboxState> {
    return this.database.read(STORES, async (tx) => {
      const stream = await tx.get("stream", ONLY);
      const oldest = await tx.first("outbox", BY_TIME);
      return {
        stream: stream?.id ?? null,
        nextSequence: stream?.nextSequence ?? 1,
        records: stream?.records ?? 0,
        bytes: stream?.bytes ?? 0,
        deadLetters: await tx.count("deadLetters"),
        oldestMs: oldest?.observedAtMs ?? null,
      };
    });
  }

  /**
   * Return the records that the server refused, oldest first.
   *
   * @throws StorageError - The database cannot be read.
   */
  async deadLetters(): Promise<readonly DeadLetter[]> {
    return this.database.read(["deadLetters"], (tx) => tx.getAll("deadLetters"));
  }

  private async bury(tx: Transaction, stream: string, refusals: readonly Refusal[], nowMs: number): Promise<number> {
    let buried = 0;
    for (const { sequence, reason, detail } of refusals) {
      const row = await tx.get("outbox", sequence);
      if (row === null) continue;
      const { table, record } = row;
      await tx.put("deadLetters", { stream, sequence, table, record, reason, detail, refusedAtMs: nowMs });
      buried += await remove(tx, [sequence]);
    }
    const surplus = (await tx.keys("deadLetters")).slice(0, -this.limits.maxDeadLetters);
    for (const key of surplus) await tx.delete("deadLetters", key);
    await count(
      tx,
      new Map([
        ["records_refused", buried],
        ["dead_letters_dropped", surplus.length],
      ]),
    );
    return buried;
  }

  private async fork(tx: Transaction, oldStream: string, nowMs: number): Promise<string> {
    const rows = await tx.getAll("outbox");
    const runs = rows.flatMap((row) => (row.table === "gaps" ? [runOf(row.record as Gap)] : []));
    const numbers = renumbered(
      rows.map((row) => row.sequence),
      runs,
    );
    await tx.clear("outbox");
    const moved = rows.map((row) => stored(movedRecord(row, numbers.runs), numbers.records.get(row.sequence)!));
    for (const row of moved) await tx.put("outbox", row);
    const bytes = moved.reduce((sum, row) => sum + row.size, 0);
    const stream: Stream = { id: randomHex(16), nextSequence: numbers.following, records: moved.length, bytes };
    await tx.put("stream", stream, ONLY);
    const detail = { old_stream: oldStream, reason: REUSED, records: rows.length };
    const record = { sequence: 0, bundle: null, observed_at_ms: nowMs, name: "stream_forked", detail };
    await appendRecords(tx, [{ table: "events", record }], this.limits);
    await count(tx, new Map([["streams_forked", 1]]));
    return stream.id;
  }
}

/** Delete records and keep the stream's figures true; returns how many were there. */
async function remove(tx: Transaction, sequences: readonly number[]): Promise<number> {
  const stream = await streamOf(tx);
  let [records, bytes] = [0, 0];
  for (const sequence of sequences) {
    const row = await tx.get("outbox", sequence);
    if (row === null) continue;
    await tx.delete("outbox", sequence);
    records += 1;
    bytes += row.size;
  }
  await tx.put("stream", { ...stream, records: stream.records - records, bytes: stream.bytes - bytes }, ONLY);
  return records;
}

function within(rows: readonly StoredRecord[], mostBytes: number): readonly StoredRecord[] {
  let size = 0;
  // Always one record, however large.
  return rows.filter((row, index) => {
    size += row.size;
    return index === 0 || size <= mostBytes;
  });
}

function recordOf(row: StoredRecord): AnyRecord {
  return { table: row.table, record: row.record } as AnyRecord;
}

function runOf(gap: Gap): readonly [number, number] {
  return [gap.first_sequence, gap.last_sequence];
}

/** A gap's run has moved along with it. */
function movedRecord(row: StoredRecord, runs: ReadonlyMap<number, number>): AnyRecord {
  const item = recordOf(row);
  if (item.table !== "gaps") return item;
  const first = runs.get(item.record.first_sequence)!;
  return {
    table: "gaps",
    record: { ...item.record, first_sequence: first, last_sequence: first + item.record.count - 1 },
  };
}

/** Records on their way into the outbox: numbered, measured, and making room when it is full. */
import { randomHex, utf8 } from "../contract/bytes.ts";
import { numbered, type AnyRecord, type Summary } from "../contract/result.ts";
import type { Transaction } from "../store/database.ts";
import { ONLY, type StoredRecord, type StoreName, type Stream } from "../store/schema.ts";
import { mergeToDay } from "../summaries.ts";
import { planRoom } from "./room.ts";

/** Bounds of what is kept on the device. */
export interface OutboxLimits {
  /** Records in the outbox: two years of hourly summaries. */
  readonly maxRecords: number;
  /** Their size as JSON. */
  readonly maxBytes: number;
  /** Refused records kept for a person to look at; the oldest go first. */
  readonly maxDeadLetters: number;
}

/** The same bounds as a native device has. */
export const DEFAULT_LIMITS: OutboxLimits = { maxRecords: 20_000, maxBytes: 16 * 2 ** 20, maxDeadLetters: 1000 };

/** The stores that {@link appendRecords} writes. */
export const OUTBOX_STORES: readonly StoreName[] = ["stream", "outbox", "counters"];

/**
 * Return the current stream, opening one (128 random bits) the first time.
 *
 * @param tx - A transaction over {@link OUTBOX_STORES}.
 */
export async function streamOf(tx: Transaction): Promise<Stream> {
  return (await tx.get("stream", ONLY)) ?? { id: randomHex(16), nextSequence: 1, records: 0, bytes: 0 };
}

/**
 * Number and store records inside the caller's transaction, and give way when the outbox is full.
 *
 * @param tx - A transaction over {@link OUTBOX_STORES}.
 * @param records - Records whose sequence is 0.
 */
export async function appendRecords(
  tx: Transaction,
  records: readonly AnyRecord[],
  limits: OutboxLimits,
): Promise<void> {
  if (records.length === 0) return;
  const stream = await insert(tx, await streamOf(tx), records);
  const isFull = stream.records > limits.maxRecords || stream.bytes > limits.maxBytes;
  await tx.put("stream", isFull ? await makeRoom(tx, stream, limits) : stream, ONLY);
}

/** Add to counters inside the caller's transaction. */
export async function count(tx: Transaction, amounts: ReadonlyMap<string, number>): Promise<void> {
  const known = new Map(await tx.get("counters", ONLY));
  for (const [name, amount] of amounts) {
    if (amount > 0) known.set(name, (known.get(name) ?? 0) + amount);
  }
  await tx.put("counters", known, ONLY);
}

/** Return a record as the outbox keeps it. */
export function stored(item: AnyRecord, sequence: number): StoredRecord {
  const { table, record } = numbered(item, sequence);
  const size = utf8(JSON.stringify(record)).length;
  const kept = { sequence, table, record, sent: false, size };
  const at = momentOf(item);
  return at === null ? kept : { ...kept, observedAtMs: at };
}

async function insert(tx: Transaction, stream: Stream, records: readonly AnyRecord[]): Promise<Stream> {
  let { nextSequence, bytes } = stream;
  for (const item of records) {
    const row = stored(item, nextSequence);
    await tx.put("outbox", row);
    nextSequence += 1;
    bytes += row.size;
  }
  return { id: stream.id, nextSequence, records: stream.records + records.length, bytes };
}

async function makeRoom(tx: Transaction, stream: Stream, limits: OutboxLimits): Promise<Stream> {
  const rows = await tx.getAll("outbox");
  const plan = planRoom(rows, limits);
  for (const sequence of plan.removed) await tx.delete("outbox", sequence);
  const removed = rows.filter((row) => plan.removed.has(row.sequence));
  const merged = plan.merges.map((group): AnyRecord => ({ table: "summaries", record: mergeToDay(group) }));
  const gaps = plan.runs.map(([first, last, reason]): AnyRecord => {
    const record = { sequence: 0, first_sequence: first, last_sequence: last, count: last - first + 1, reason };
    return { table: "gaps", record };
  });
  const mergedAway = plan.merges.reduce((sum, group: readonly Summary[]) => sum + group.length, 0);
  await count(
    tx,
    new Map([
      ["records_dropped", plan.dropped],
      ["summaries_merged", mergedAway],
    ]),
  );
  const left = {
    ...stream,
    records: stream.records - removed.length,
    bytes: stream.bytes - removed.reduce((sum, row) => sum + row.size, 0),
  };
  return insert(tx, left, [...merged, ...gaps]);
}

function momentOf(item: AnyRecord): number | null {
  if (item.table === "gaps") return null;
  return item.table === "summaries" ? item.record.period_start_ms : item.record.observed_at_ms;
}

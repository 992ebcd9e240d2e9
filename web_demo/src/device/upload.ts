/**
 * Upload: lease a batch from the outbox, send it, do what the answer says, until nothing is left.
 *
 * Records leave the outbox only when the server says that it holds them, or refuses them for good. A batch that is
 * refused as a whole is sent in halves until the record that is at fault stands alone.
 */
import {
  encodeBatch,
  MAX_BATCH_BYTES,
  MAX_BATCH_GZIP_BYTES,
  MAX_BATCH_RECORDS,
  readAnswer,
  type ResultsAnswer,
} from "./contract/batch.ts";
import type { Bytes } from "./contract/bytes.ts";
import { RESULTS } from "./contract/routes.ts";
import { ContractError, TransportError } from "./errors.ts";
import type { Identity } from "./identity.ts";
import { Outbox, type Lease } from "./outbox/outbox.ts";
import { closeOpenSummaries } from "./reading_scorer.ts";
import type { Database } from "./store/database.ts";
import { bearer, MAX_JSON_BYTES, type Transport } from "./transport.ts";

// Statuses by which a server refuses a batch as a whole.
const BATCH_REFUSALS: readonly (number | null)[] = [400, 413, 415, 422];
const STAY = "The records stay in this browser; ";

/** What an upload did. */
export interface UploadReport {
  /** Records that the server holds and the device deleted. */
  readonly acknowledged: number;
  /** Records that became dead letters. */
  readonly refused: number;
  /** Times that a new stream was opened. */
  readonly forks: number;
  /** Batches sent. */
  readonly requests: number;
}

/** Whom an upload goes from and to. */
export interface Sender {
  readonly database: Database;
  readonly transport: Transport;
  readonly identity: Identity;
  readonly clock: () => number;
}

/**
 * Send the outbox, then the hour so far.
 *
 * Open summaries are closed only after the outbox went through: a device that is offline for a month and tries every
 * minute would otherwise cut its hours into 60 records each.
 *
 * @param sender - Whom from and to.
 * @param withSummaries - Whether the hour so far goes along.
 * @throws TransportError - The server could not be reached, refused the device's token, or gave an answer that changes
 *   nothing; what was acknowledged before that stays acknowledged, the rest stays in the outbox.
 * @throws StorageError - The outbox could not be read or written.
 */
export async function uploadAll(sender: Sender, withSummaries = true): Promise<UploadReport> {
  const first = await upload(sender);
  if (!withSummaries || (await closeOpenSummaries(sender.database)) === 0) return first;
  return sum(first, await upload(sender));
}

/**
 * Send what the outbox holds, oldest first, until it is empty.
 *
 * @throws TransportError - As {@link uploadAll}.
 * @throws StorageError - As {@link uploadAll}.
 */
export async function upload(sender: Sender): Promise<UploadReport> {
  const outbox = new Outbox(sender.database);
  let report: UploadReport = { acknowledged: 0, refused: 0, forks: 0, requests: 0 };
  let most = MAX_BATCH_RECORDS;
  for (;;) {
    const lease = await outbox.lease(most);
    if (lease.records.length === 0) return report;
    const answer = await sendOrBlame(sender, lease);
    if (answer === null) {
      most = Math.ceil(lease.records.length / 2);
      continue;
    }
    const settled = await outbox.settle(lease, answer, sender.clock());
    if (settled.acknowledged === 0 && settled.refused === 0 && settled.forkedTo === null) {
      throw new TransportError(
        `${sender.identity.serverUrl} answered an upload without holding or refusing any record of it.`,
        `${STAY}the server's log says more.`,
      );
    }
    report = sum(report, { ...settled, forks: settled.forkedTo === null ? 0 : 1, requests: 1 });
    most = Math.min(2 * most, MAX_BATCH_RECORDS);
  }
}

/** Send a lease; null when it is refused as a whole and can be sent in halves. */
async function sendOrBlame(sender: Sender, lease: Lease): Promise<ResultsAnswer | null> {
  try {
    return await send(sender, lease);
  } catch (error) {
    if (!(error instanceof TransportError) || !BATCH_REFUSALS.includes(error.status) || error.problem === "")
      throw error;
    if (lease.records.length > 1) return null;
    // What the server should have said: this one record is refused.
    const { sequence } = lease.records[0]!.record;
    return { stored: 0, held: [], refused: [{ sequence, reason: error.problem, detail: error.message.slice(0, 512) }] };
  }
}

async function send(sender: Sender, lease: Lease): Promise<ResultsAnswer> {
  const plain = encodeBatch(lease.stream, sender.clock(), lease.records);
  const body = await gzip(plain);
  if (plain.length > MAX_BATCH_BYTES || body.length > MAX_BATCH_GZIP_BYTES) {
    const facts = { status: 413, problem: "batch_too_large" };
    throw new TransportError(`A batch of ${lease.records.length} records is larger than a server takes.`, "", facts);
  }
  const headers = {
    ...bearer(sender.identity.token),
    "Content-Type": "application/json",
    "Content-Encoding": "gzip",
  };
  const fields = await sender.transport.callJson({
    method: "POST",
    path: RESULTS,
    headers,
    body,
    limit: MAX_JSON_BYTES,
  });
  try {
    return readAnswer(fields);
  } catch (error) {
    if (!(error instanceof ContractError)) throw error;
    throw new TransportError(
      `${sender.identity.serverUrl} gave an upload an answer that this device does not understand: ${error.message}`,
      `${STAY}update the server or load the newest version of this page.`,
    );
  }
}

async function gzip(data: Bytes): Promise<Bytes> {
  const stream = new Blob([data]).stream().pipeThrough(new CompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

function sum(one: UploadReport, other: UploadReport): UploadReport {
  return {
    acknowledged: one.acknowledged + other.acknowledged,
    refused: one.refused + other.refused,
    forks: one.forks + other.forks,
    requests: one.requests + other.requests,
  };
}

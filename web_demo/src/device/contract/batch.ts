/** Batches: how records travel, and what the server answers. */
import { ContractError } from "../errors.ts";
import { utf8, type Bytes } from "./bytes.ts";
import * as checks from "./checks.ts";
import type { Json, JsonObject } from "./json.ts";
import { FIELDS, type AnyRecord, type Table } from "./result.ts";

const FORMAT = 1;
/** Most records of a batch. */
export const MAX_BATCH_RECORDS = 5000;
/** Most bytes of a batch, before gzip. */
export const MAX_BATCH_BYTES = 8 * 2 ** 20;
/** Most bytes of a batch, as gzip. */
export const MAX_BATCH_GZIP_BYTES = 2 ** 20;

/** One record that the server does not take. */
export interface Refusal {
  readonly sequence: number;
  /** `bad_record`, `sequence_reused` or another short code. */
  readonly reason: string;
  /** One sentence for a person. */
  readonly detail: string;
}

/** What the server says to a batch. */
export interface ResultsAnswer {
  /** Records that are new with this batch. */
  readonly stored: number;
  /** Ranges [first, last] of the batch's numbers that the server holds now; the device deletes these. */
  readonly held: readonly (readonly [number, number])[];
  /** Records that it will never take; the device moves these to its dead letters. */
  readonly refused: readonly Refusal[];
}

/**
 * Return the body of one upload, before gzip: a table of columns for each kind of record that occurs.
 *
 * @param stream - 32 hex digits.
 * @param sentAtMs - The device's clock now.
 * @param records - At most 5,000 records of that stream.
 * @throws ContractError - Too many records.
 */
export function encodeBatch(stream: string, sentAtMs: number, records: readonly AnyRecord[]): Bytes {
  if (records.length > MAX_BATCH_RECORDS) {
    throw new ContractError(`A batch holds at most ${MAX_BATCH_RECORDS} records, not ${records.length}.`);
  }
  const body: Record<string, unknown> = { format: FORMAT, stream, sent_at_ms: sentAtMs };
  for (const table of Object.keys(FIELDS) as Table[]) {
    const rows = records.filter((item) => item.table === table).map((item) => Object.entries(item.record));
    if (rows.length === 0) continue;
    const fields = rows.map((row) => new Map<string, unknown>(row));
    body[table] = Object.fromEntries(FIELDS[table].map((field) => [field, fields.map((row) => row.get(field))]));
  }
  return utf8(JSON.stringify(body));
}

/**
 * Read an answer, strictly: a device deletes by it.
 *
 * @throws ContractError - A field is missing or of another shape.
 */
export function readAnswer(value: JsonObject): ResultsAnswer {
  return {
    stored: checks.integer(checks.get(value, "stored"), "stored", { most: MAX_BATCH_RECORDS }),
    held: checks.array(checks.get(value, "held"), "held", MAX_BATCH_RECORDS).map(readRange),
    refused: checks.array(checks.get(value, "refused"), "refused", MAX_BATCH_RECORDS).map(readRefusal),
  };
}

function readRange(item: Json): readonly [number, number] {
  const pair = checks.array(item, "held", 2);
  const [first, last] = pair;
  if (first === undefined || last === undefined) throw new ContractError("Field 'held' must hold [first, last].");
  const least = checks.integer(first, "held", { least: 1 });
  return [least, checks.integer(last, "held", { least })];
}

function readRefusal(item: Json): Refusal {
  const [sequence, reason, detail] = checks.array(item, "refused", 3);
  if (sequence === undefined || reason === undefined || detail === undefined) {
    throw new ContractError("Field 'refused' must hold [sequence, reason, detail].");
  }
  return {
    sequence: checks.integer(sequence, "refused", { least: 1 }),
    reason: checks.text(reason, "refused", 64),
    detail: checks.text(detail, "refused", 1024),
  };
}

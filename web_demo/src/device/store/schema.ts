/** The stores of the device's database, typed. A change here is a new {@link VERSION} and a step in {@link upgrade}. */
import type { Bytes } from "../contract/bytes.ts";
import type { AnyRecord, Table } from "../contract/result.ts";
import type { ScoringState } from "../scoring_state.ts";
import type { TrustState } from "../trust/client.ts";
import type { UpdateOutcome } from "../update_outcome.ts";
import type { Identity } from "../identity.ts";
import type { Pointer } from "./bundles.ts";

/** Version of the schema. */
export const VERSION = 1;

/** A record that waits for the server. */
export interface StoredRecord {
  readonly sequence: number;
  readonly table: Table;
  readonly record: AnyRecord["record"];
  /** The server may hold it: it was sent, and no answer came yet. */
  readonly sent: boolean;
  /** Bytes of it as JSON. */
  readonly size: number;
  /** Its own time; gaps have none. */
  readonly observedAtMs?: number;
}

/** A record that the server refused for good; it is kept for a person to look at. */
export interface DeadLetter {
  readonly stream: string;
  readonly sequence: number;
  readonly table: Table;
  readonly record: AnyRecord["record"];
  /** The server's short code. */
  readonly reason: string;
  /** The server's sentence. */
  readonly detail: string;
  readonly refusedAtMs: number;
}

/** The stream that new records belong to. */
export interface Stream {
  /** 32 hex digits. */
  readonly id: string;
  readonly nextSequence: number;
  /** Records waiting. */
  readonly records: number;
  /** Their size as JSON. */
  readonly bytes: number;
}

/** The bytes of one bundle's files, by name. */
export interface StoredBundle {
  readonly digest: string;
  readonly files: ReadonlyMap<string, Bytes>;
}

/** What each store holds. Stores of one value keep it under {@link ONLY}. */
export interface Schema {
  installation: string;
  identity: Identity;
  trust: TrustState;
  /** When the earliest of the verified roles expires, UTC epoch milliseconds: apart, since every reading asks for it. */
  expiry: number;
  pointer: Pointer;
  update: UpdateOutcome;
  scoring: ScoringState;
  stream: Stream;
  counters: ReadonlyMap<string, number>;
  bundles: StoredBundle;
  outbox: StoredRecord;
  deadLetters: DeadLetter;
}

/** Name of a store. */
export type StoreName = keyof Schema;

/** The key of the value in a store that holds one. */
export const ONLY = "only";
/** The outbox's index by a record's own time. */
export const BY_TIME = "observedAtMs";

const SINGLE = [
  "installation",
  "identity",
  "trust",
  "expiry",
  "pointer",
  "update",
  "scoring",
  "stream",
  "counters",
] as const;

/**
 * Bring a database to this version.
 *
 * @param db - The database, inside its upgrade.
 * @param from - The version it has, 0 when it is new.
 */
export function upgrade(db: IDBDatabase, from: number): void {
  if (from >= 1) return;
  for (const name of SINGLE) db.createObjectStore(name);
  db.createObjectStore("bundles", { keyPath: "digest" });
  db.createObjectStore("outbox", { keyPath: "sequence" }).createIndex(BY_TIME, BY_TIME);
  db.createObjectStore("deadLetters", { autoIncrement: true });
}

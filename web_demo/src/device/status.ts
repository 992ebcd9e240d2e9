/** What a device says of itself: to its server after each round, and to the person in front of it. */
import { DEVICE_STATUS } from "./contract/routes.ts";
import { utf8 } from "./contract/bytes.ts";
import type { Identity } from "./identity.ts";
import { Outbox, type OutboxState } from "./outbox/outbox.ts";
import type { Pointer, SlotEntry } from "./store/bundles.ts";
import type { Database } from "./store/database.ts";
import { ONLY } from "./store/schema.ts";
import { bearer, type Transport } from "./transport.ts";
import type { UpdateOutcome } from "./update_outcome.ts";

/** How the device is. */
export interface DeviceStatus {
  /** Whether this tab is the device, or waits because another one is. */
  readonly role: "device" | "standby";
  /** Who it is, without its token; null before enrolment. */
  readonly identity: Omit<Identity, "token"> | null;
  /** What it scores with, and what it had before. */
  readonly pointer: Pointer | null;
  readonly outbox: OutboxState;
  readonly counters: ReadonlyMap<string, number>;
  /** How the last sync that was news ended. */
  readonly lastUpdate: UpdateOutcome | null;
  /** When the verified metadata expires, UTC epoch milliseconds, or null. */
  readonly expiresMs: number | null;
  /** The metadata has expired, or there is none. */
  readonly stale: boolean;
}

/**
 * Return how the device is.
 *
 * @throws StorageError - The database cannot be read.
 */
export async function readStatus(database: Database, role: DeviceStatus["role"], nowMs: number): Promise<DeviceStatus> {
  const outbox = await new Outbox(database).state();
  return database.read(["identity", "pointer", "counters", "update", "expiry"], async (tx) => {
    const identity = await tx.get("identity", ONLY);
    const expiresMs = await tx.get("expiry", ONLY);
    return {
      role,
      identity: identity === null ? null : withoutToken(identity),
      pointer: await tx.get("pointer", ONLY),
      outbox,
      counters: (await tx.get("counters", ONLY)) ?? new Map<string, number>(),
      lastUpdate: await tx.get("update", ONLY),
      expiresMs,
      stale: expiresMs === null || expiresMs <= nowMs,
    };
  });
}

/**
 * Tell the server how the device is.
 *
 * @throws TransportError - It could not be told; nothing depends on it.
 */
export async function reportStatus(
  transport: Transport,
  token: string,
  status: DeviceStatus,
  runtime: Readonly<Record<string, string>>,
): Promise<void> {
  const { pointer, outbox, lastUpdate } = status;
  const fields = {
    active: pointer === null ? null : slot(pointer.active),
    previous: pointer?.previous == null ? null : slot(pointer.previous),
    outbox: { records: outbox.records, dead_letters: outbox.deadLetters, oldest_ms: outbox.oldestMs },
    counters: Object.fromEntries(status.counters),
    last_update: lastUpdate === null ? null : update(lastUpdate),
    stale: status.stale,
    cohort: status.identity?.cohort ?? null,
    runtime,
    insecure_http: false,
  };
  const headers = { ...bearer(token), "Content-Type": "application/json" };
  const body = utf8(JSON.stringify(fields));
  await transport.call({ method: "POST", path: DEVICE_STATUS, headers, body, limit: 1024, expected: [204] });
}

function slot(entry: SlotEntry): object {
  return { bundle: entry.digest, release: entry.releaseNumber, version: entry.version };
}

function update(last: UpdateOutcome): object {
  return { outcome: last.outcome, reason: last.reason, release: last.release, at_ms: last.atMs };
}

function withoutToken(identity: Identity): Omit<Identity, "token"> {
  const { token: _, ...shown } = identity;
  return shown;
}

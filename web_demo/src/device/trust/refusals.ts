/** What the trust client refuses, in words: one row for each reason code that is reported. */
import { TrustError } from "../errors.ts";

/** Reason codes of refused metadata, the same as the Python device's. */
export type Reason = keyof typeof ROWS;

const KEEP = "Nothing was changed and scoring goes on; ";
const ROWS = {
  metadata_expired: ["has expired", "check this device's clock, and that the server runs and re-signs."],
  metadata_rollback: [
    "is older than what this device has seen",
    "the server was restored from an old copy, or somebody replays old metadata.",
  ],
  metadata_unsigned: ["is not signed by the keys that root names", "tell the release engineers."],
  metadata_mismatch: ["does not have the digest that signed metadata gives", "it is tried again."],
  metadata_too_large: ["is longer than it may be", "check the server's address."],
  metadata_invalid: ["cannot be read", "check the server's address, or tell the release engineers."],
} as const;

/**
 * Return the refusal of metadata.
 *
 * @param reason - The reason code.
 * @param detail - Which file, and what is wrong with it.
 */
export function refused(reason: Reason, detail: string): TrustError {
  const [what, advice] = ROWS[reason];
  return new TrustError(`The server's metadata ${what} (${detail}).`, reason, KEEP + advice);
}

/**
 * Return the refusal of metadata that has expired by this device's clock.
 *
 * @param role - Which file.
 * @param expiresMs - When it expired, UTC epoch milliseconds.
 * @param nowMs - This device's clock.
 * @param offsetMs - How far the server's clock is ahead of this device's, or null when it is not known.
 */
export function expired(role: string, expiresMs: number, nowMs: number, offsetMs: number | null): TrustError {
  const detail = `${role} expired on ${day(expiresMs)}; this device's clock says ${day(nowMs)}`;
  if (offsetMs === null || Math.abs(offsetMs) < DAY_MS) return refused("metadata_expired", detail);
  // A clock a year off makes everything look expired; the person in front of it can put it right.
  const days = Math.round(Math.abs(offsetMs) / DAY_MS);
  return new TrustError(
    `The server's metadata has expired by this device's clock (${detail}, the server's ${day(nowMs + offsetMs)}).`,
    "metadata_expired",
    `${KEEP}this device's clock is ${days} days ${offsetMs > 0 ? "behind" : "ahead of"} the server's: set it right.`,
  );
}

const DAY_MS = 86_400_000;

function day(atMs: number): string {
  return new Date(atMs).toISOString().slice(0, 10);
}

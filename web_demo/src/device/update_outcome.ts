/** How a sync ended: one reason code for every way, remembered and reported once. */
import { ContractError, ScoringError, StorageError, TransportError, TrustError, type StellaError } from "./errors.ts";
import type { AnyRecord } from "./contract/result.ts";

const MAX_MESSAGE_CHARACTERS = 400;

/** The end of one sync. */
export interface UpdateOutcome {
  /** `refused`: what the server offers may not run here. `failed`: network or storage; it may work next time. */
  readonly outcome: "activated" | "unchanged" | "refused" | "failed";
  /** Reason code of a refusal or failure, else null. */
  readonly reason: string | null;
  /** The release number it was about, or null when it did not come so far. */
  readonly release: number | null;
  /** When, by the device's clock. */
  readonly atMs: number;
  /** One sentence for a person. */
  readonly message: string;
  /** Digest of the bundle whose activation was recorded last, or null. */
  readonly announced: string | null;
}

/** Say whether two outcomes tell the same news: a device that stays offline reports it once. */
export function sameNews(one: UpdateOutcome, other: UpdateOutcome | null): boolean {
  return (
    other !== null && one.outcome === other.outcome && one.reason === other.reason && one.release === other.release
  );
}

/** Return the record for the outbox; its sequence is given when it is stored. */
export function toEvent(outcome: UpdateOutcome, activeDigest: string | null): AnyRecord {
  const detail = {
    message: outcome.message,
    ...(outcome.reason === null ? {} : { reason: outcome.reason }),
    ...(outcome.release === null ? {} : { release: outcome.release }),
  };
  const name = `update_${outcome.outcome}`;
  return { table: "events", record: { sequence: 0, bundle: activeDigest, observed_at_ms: outcome.atMs, name, detail } };
}

/** Turn the error that ended a sync into its outcome. */
export function outcomeOf(error: StellaError, release: number | null, atMs: number): UpdateOutcome {
  const refused = error instanceof TrustError || error instanceof ScoringError || error instanceof ContractError;
  const message = [...error.message].slice(0, MAX_MESSAGE_CHARACTERS).join("");
  return { outcome: refused ? "refused" : "failed", reason: reasonOf(error), release, atMs, message, announced: null };
}

/** Return the reason code of an error, as the documentation lists them. */
function reasonOf(error: StellaError): string {
  if (error instanceof TrustError || error instanceof ScoringError || error instanceof StorageError)
    return error.reason;
  if (error instanceof ContractError) return error.fields["newer_format"] === true ? "newer_format" : "bad_bundle";
  return error instanceof TransportError ? "download_failed" : error.code;
}

/** Rollouts: which share of a channel's devices gets which release, decided by each device for itself. */
import { ContractError } from "../errors.ts";
import { concat, sha256, utf8 } from "./bytes.ts";
import * as checks from "./checks.ts";
import type { Json, JsonObject } from "./json.ts";
import { checkName, MAX_COHORT_CHARACTERS } from "./names.ts";

const FIELD = "rollouts";
const BUCKETS = 10_000;
const MAX_CHANNELS = 48;
const MAX_COHORTS = 64;

/** The state of one channel. */
export interface Rollout {
  /** Number of the rollout on this server, ascending. */
  readonly id: number;
  readonly model: string;
  /** Release number for devices that are in. */
  readonly release: number;
  /** Release number for the others; null: they keep what they have. */
  readonly previous: number | null;
  /** 0 to 10,000: devices whose bucket is below it are in. */
  readonly share: number;
  /** 32 hex digits. */
  readonly salt: string;
  readonly state: "running" | "paused" | "rolled_back";
  /** The cohorts it is limited to; null: all. */
  readonly cohorts: readonly string[] | null;
}

/**
 * Read one entry.
 *
 * @throws ContractError - A field is missing, of another type or out of bounds.
 */
export function readRollout(value: JsonObject): Rollout {
  const state = checks.get(value, "state");
  if (state !== "running" && state !== "paused" && state !== "rolled_back") {
    throw new ContractError("Field 'state' must be 'running', 'paused' or 'rolled_back'.");
  }
  const previous = checks.get(value, "previous");
  return {
    id: checks.integer(checks.get(value, "id"), "id", { least: 1 }),
    model: checkName("model", checks.get(value, "model")),
    release: checks.integer(checks.get(value, "release"), "release", { least: 1 }),
    previous: previous === null ? null : checks.integer(previous, "previous", { least: 1 }),
    share: checks.integer(checks.get(value, "share"), "share", { most: BUCKETS }),
    salt: checks.hex32(checks.get(value, "salt"), "salt"),
    state,
    cohorts: readCohorts(checks.optional(value, "cohorts")),
  };
}

/** Return a device's bucket: uint32_be(sha256(utf8(salt) + 0x00 + utf8(device_id))[0:4]) mod 10000. */
export async function bucket(salt: string, deviceId: string): Promise<number> {
  const digest = await sha256(concat([utf8(salt), new Uint8Array(1), utf8(deviceId)]));
  return new DataView(digest.buffer).getUint32(0) % BUCKETS;
}

/** Who decides. */
export interface Decider {
  readonly deviceId: string;
  readonly cohort: string | null;
  /** What it runs now, or null. */
  readonly activeRelease: number | null;
}

/**
 * Return the release number that a device should run, or null: keep what you have.
 *
 * @param rollout - The entry of the device's channel, or null when there is none.
 * @param device - Who decides.
 */
export async function decide(rollout: Rollout | null, device: Decider): Promise<number | null> {
  if (rollout === null) return null;
  if (!(await isIn(rollout, device)) || rollout.state === "rolled_back") return rollout.previous;
  return rollout.state === "running" ? rollout.release : (device.activeRelease ?? rollout.previous);
}

/**
 * Read the rollouts by channel from the signed part of timestamp.json.
 *
 * @throws ContractError - The field is there and breaks its format.
 */
export function readRollouts(timestamp: JsonObject): ReadonlyMap<string, Rollout> {
  if (!Object.hasOwn(timestamp, FIELD)) return new Map();
  const entries = Object.entries(checks.table(checks.get(timestamp, FIELD), FIELD));
  if (entries.length > MAX_CHANNELS) {
    throw new ContractError(`Field '${FIELD}' names ${entries.length} channels; at most ${MAX_CHANNELS} are allowed.`);
  }
  return new Map(
    entries.map(([channel, entry]) => [checkName("channel", channel), readRollout(checks.table(entry, FIELD))]),
  );
}

async function isIn(rollout: Rollout, device: Decider): Promise<boolean> {
  if (rollout.cohorts !== null && (device.cohort === null || !rollout.cohorts.includes(device.cohort))) return false;
  return (await bucket(rollout.salt, device.deviceId)) < rollout.share;
}

function readCohorts(value: Json): readonly string[] | null {
  if (value === null) return null;
  return checks.array(value, "cohorts", MAX_COHORTS).map((item) => checks.text(item, "cohorts", MAX_COHORT_CHARACTERS));
}

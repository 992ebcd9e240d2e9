/** Releases as targets.json lists them: what release keys bind to each bundle, and which one a device may run. */
import { ContractError, TrustError } from "../errors.ts";
import * as checks from "./checks.ts";
import type { JsonObject } from "./json.ts";
import { checkName, MAX_COHORT_CHARACTERS } from "./names.ts";

const MAX_CHANNELS_OF_A_RELEASE = 16;
const FLOOR_FIELD = "minimum_release";

/** What a target's `custom` field says; the online key can change none of it. */
export interface TargetCustom {
  readonly model: string;
  /** A label; `releaseNumber` orders. */
  readonly version: string;
  readonly cohort: string | null;
  readonly releaseNumber: number;
  /** Channels that may run it. */
  readonly channels: readonly string[];
  /** Bytes of all files together. */
  readonly sizeUnpacked: number;
  /** Public key of `model.sig`, base64 of DER SubjectPublicKeyInfo. */
  readonly signer: string;
}

/**
 * Read the custom field of one target.
 *
 * @param path - The target's path, for the error.
 * @param target - The target as targets.json lists it.
 * @throws ContractError - The field is missing or breaks its format.
 */
export function customOf(path: string, target: JsonObject): TargetCustom {
  try {
    return readCustom(checks.table(checks.get(target, "custom"), "custom"));
  } catch (error) {
    if (!(error instanceof ContractError)) throw error;
    throw new ContractError(`Target ${path}: ${error.message}`, "", { path });
  }
}

function readCustom(value: JsonObject): TargetCustom {
  const cohort = checks.get(value, "cohort");
  const channels = checks.array(checks.get(value, "channels"), "channels", MAX_CHANNELS_OF_A_RELEASE);
  return {
    model: checkName("model", checks.get(value, "model")),
    version: checkName("version", checks.get(value, "version")),
    cohort: cohort === null ? null : checks.text(cohort, "cohort", MAX_COHORT_CHARACTERS),
    releaseNumber: checks.integer(checks.get(value, "release_number"), "release_number", { least: 1 }),
    channels: channels.map((channel) => checkName("channel", channel)),
    sizeUnpacked: checks.integer(checks.get(value, "size_unpacked"), "size_unpacked", { least: 1 }),
    signer: checks.text(checks.get(value, "signer"), "signer", 512),
  };
}

/**
 * Return the release number below which no device may run a model; 0 when none is set.
 *
 * @param targets - The signed part of targets.json.
 * @throws ContractError - The field is there and breaks its format.
 */
export function floorOf(targets: JsonObject, model: string): number {
  if (!Object.hasOwn(targets, FLOOR_FIELD)) return 0;
  const value = checks.table(checks.get(targets, FLOOR_FIELD), FLOOR_FIELD);
  const floors = new Map(
    Object.entries(value).map(([name, number]) => [checkName("model", name), checks.integer(number, FLOOR_FIELD)]),
  );
  return floors.get(model) ?? 0;
}

/** What a device asks the list of targets for. */
export interface Wanted {
  readonly model: string;
  readonly channel: string;
  readonly cohort: string | null;
  /** The release number that the rollout chose. */
  readonly release: number;
  /** The lowest release number that may run. */
  readonly floor: number;
}

/**
 * Return the path of the bundle that a device should run for a release: its cohort's, else the default.
 *
 * @param customs - The verified custom field of every target, by path.
 * @throws TrustError - With reason `below_floor`, `wrong_model` (the number is listed for other models only),
 *   `release_missing` or `wrong_channel`.
 */
export function chooseTarget(customs: ReadonlyMap<string, TargetCustom>, wanted: Wanted): string {
  const named = `Release ${wanted.release} of ${wanted.model}`;
  if (wanted.release < wanted.floor) {
    throw new TrustError(
      `${named} is below the floor ${wanted.floor} that the release keys set.`,
      "below_floor",
      "Publish a newer release, or start a rollout of one that is allowed.",
    );
  }
  const sameNumber = [...customs].filter(([, custom]) => custom.releaseNumber === wanted.release);
  const listed = sameNumber.filter(([, custom]) => custom.model === wanted.model);
  const own = listed.findLast(([, custom]) => custom.cohort === wanted.cohort);
  const found = own ?? listed.findLast(([, custom]) => custom.cohort === null);
  if (found === undefined) {
    throw new TrustError(
      `${named} is not listed in the repository's targets.`,
      sameNumber.length > 0 && listed.length === 0 ? "wrong_model" : "release_missing",
      "Publish the release, or roll the channel back.",
    );
  }
  if (!found[1].channels.includes(wanted.channel)) {
    throw new TrustError(
      `${named} was not made for channel ${wanted.channel}.`,
      "wrong_channel",
      "Release keys decide the channels of a release; publish it for this one.",
    );
  }
  return found[0];
}

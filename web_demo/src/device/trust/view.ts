/** What verified metadata says to this product: which bundles there are, which rollouts run, which floor holds. */
import * as checks from "../contract/checks.ts";
import type { JsonObject } from "../contract/json.ts";
import { customOf, floorOf, type TargetCustom } from "../contract/release.ts";
import { readRollouts, type Rollout } from "../contract/rollout.ts";
import { ContractError, TrustError } from "../errors.ts";
import { readSha256, type Metadata } from "./metadata.ts";

/** One bundle as the verified targets.json lists it. */
export interface Target {
  /** `MODEL/VERSION/COHORT.bundle`. */
  readonly path: string;
  readonly length: number;
  readonly sha256: string;
  readonly custom: TargetCustom;
}

/** The repository as one refresh verified it. */
export interface View {
  /** Readable targets by path; those without our custom field are left out. */
  readonly targets: ReadonlyMap<string, Target>;
  /** The rollout of each channel. */
  readonly rollouts: ReadonlyMap<string, Rollout>;
  readonly targetsVersion: number;
  /** Return the release number below which no device may run a model. */
  readonly floor: (model: string) => number;
}

/**
 * Read what verified metadata says.
 *
 * @throws TrustError - A signed field of ours breaks its format (reason `metadata_invalid`).
 */
export function readView(timestamp: Metadata, targets: Metadata): View {
  try {
    const listed = checks.table(checks.get(targets.signed, "targets"), "targets");
    return {
      targets: new Map(Object.entries(listed).flatMap(([path, entry]) => readTarget(path, checks.table(entry, path)))),
      rollouts: readRollouts(timestamp.signed),
      targetsVersion: targets.version,
      floor: (model) => floorOf(targets.signed, model),
    };
  } catch (error) {
    if (!(error instanceof ContractError)) throw error;
    throw new TrustError(
      `The releases or rollouts of the server cannot be read: ${error.message}`,
      "metadata_invalid",
      "Load the newest version of this page, or correct the rollout on the server.",
    );
  }
}

function readTarget(path: string, entry: JsonObject): readonly (readonly [string, Target])[] {
  const length = checks.integer(checks.get(entry, "length"), "length", { least: 1 });
  try {
    const sha256 = readSha256(checks.get(entry, "hashes"));
    return sha256 === null ? [] : [[path, { path, length, sha256, custom: customOf(path, entry) }]];
  } catch (error) {
    // A target of another kind or a later format is not for this device, and no reason to refuse the others.
    if (!(error instanceof ContractError)) throw error;
    return [];
  }
}

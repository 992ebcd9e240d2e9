/** Golden windows: inputs with the outputs expected of them, carried in every bundle. */
import { ContractError } from "../errors.ts";
import * as checks from "./checks.ts";
import { parseObject, type JsonObject } from "./json.ts";

const FORMAT = 1;
const OUTPUTS = ["anomaly_score", "raw_score", "is_anomaly"] as const;
const MAX_DIMENSION = 4096;

/** What `golden.json` says. */
export interface GoldenSpec {
  /** n, the number of golden windows. */
  readonly windows: number;
  /** W. */
  readonly slots: number;
  /** S. */
  readonly signals: number;
  /** Largest raw score difference that passes. */
  readonly rawTolerance: number;
}

/** The golden windows and what the model must say of them. */
export interface GoldenWindows {
  /** [n, W, S], NaN = missing. */
  readonly window: Float32Array<ArrayBuffer>;
  /** [n]. */
  readonly anomalyScore: Float32Array<ArrayBuffer>;
  /** [n]. */
  readonly rawScore: Float32Array<ArrayBuffer>;
  /** [n], 0 or 1. */
  readonly isAnomaly: Float32Array<ArrayBuffer>;
}

/**
 * Read `golden.json`.
 *
 * @throws ContractError - Another format, other tensors, or values out of bounds.
 */
export function readGoldenSpec(data: Uint8Array): GoldenSpec {
  const value = parseObject(data, "golden.json");
  if (checks.get(value, "format") !== FORMAT) {
    throw new ContractError("golden.json has a format that this program does not read.", "Update it.");
  }
  const tensors = checks.array(checks.get(value, "tensors"), "tensors", 4).map((item) => checks.table(item, "tensors"));
  const first = tensors[0];
  const [windows, slots, signals] = first === undefined ? [] : shapeOf(first);
  if (windows === undefined || slots === undefined || signals === undefined) {
    throw new ContractError("golden.json does not begin with a tensor 'window' [n, W, S].");
  }
  const expected = [["window", windows, slots, signals], ...OUTPUTS.map((name) => [name, windows, 1])];
  const found = tensors.map((tensor) => [checks.get(tensor, "name"), ...shapeOf(tensor)]);
  if (JSON.stringify(found) !== JSON.stringify(expected)) {
    throw new ContractError("golden.json names other tensors than this format has.");
  }
  const tolerance = checks.table(checks.get(value, "tolerance"), "tolerance");
  const rawTolerance = checks.number(checks.get(tolerance, "raw_score"), "raw_score", { least: 0, most: 1e-2 });
  return { windows, slots, signals, rawTolerance };
}

/** Return the bytes that `golden.f32` has. */
export function goldenSize(spec: GoldenSpec): number {
  return 4 * spec.windows * (spec.slots * spec.signals + OUTPUTS.length);
}

/** Cut the numbers of `golden.f32` into its tensors. */
export function goldenTensors(spec: GoldenSpec, numbers: Float32Array<ArrayBuffer>): GoldenWindows {
  const n = spec.windows;
  const end = n * spec.slots * spec.signals;
  return {
    window: numbers.slice(0, end),
    anomalyScore: numbers.slice(end, end + n),
    rawScore: numbers.slice(end + n, end + 2 * n),
    isAnomaly: numbers.slice(end + 2 * n, end + 3 * n),
  };
}

function shapeOf(tensor: JsonObject): readonly number[] {
  const dimensions = checks.array(checks.get(tensor, "shape"), "shape", 3);
  return dimensions.map((item) => checks.integer(item, "shape", { least: 1, most: MAX_DIMENSION }));
}

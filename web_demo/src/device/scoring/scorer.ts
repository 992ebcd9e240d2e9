/** What scoring asks of a model, wherever it runs: in this thread, in a worker, or in a test. */
import type { Bytes } from "../contract/bytes.ts";
import type { Windows } from "../windows.ts";

/** What the model says of n windows. */
export interface Verdicts {
  /** n numbers in [0, 1], higher is more anomalous. */
  readonly anomalyScore: Float32Array;
  /** n numbers, the detector's own figure. */
  readonly rawScore: Float32Array;
  /** n times 0 or 1. */
  readonly isAnomaly: Uint8Array;
  /** Time that the model took for all of them, in microseconds. */
  readonly elapsedUs: number;
}

/** One loaded model. */
export interface Scorer {
  /**
   * Score windows.
   *
   * @throws ScoringError - The windows do not fit the model (`model_shape`), it fails (`run_failed`), or it answers
   *   something that is no number (`not_finite`).
   */
  score(windows: Windows): Promise<Verdicts>;
  /**
   * Return the raw scores alone.
   *
   * @throws ScoringError - As {@link score}.
   */
  rawScores(windows: Windows): Promise<Float32Array>;
  /**
   * Return the regime of each slot, count * W numbers; undefined where context is missing.
   *
   * @throws ScoringError - The model has no context (`model_shape`), or as {@link score}.
   */
  regimes(windows: Windows): Promise<Int32Array>;
  /** Give the model's memory back. */
  close(): Promise<void>;
}

/** Where models run. */
export interface ScoringRuntime {
  /** Version of ONNX Runtime. */
  version(): Promise<string>;
  /**
   * Load a model.
   *
   * @throws ScoringError - It cannot be loaded (`model_unloadable`) or is none of ours (`model_shape`).
   * @throws UnsupportedError - This browser cannot run models at all.
   */
  load(model: Bytes): Promise<Scorer>;
}

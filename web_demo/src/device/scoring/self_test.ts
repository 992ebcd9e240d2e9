/** The golden windows of a bundle, run in this browser before the bundle may become active. */
import { fileOf, GOLDEN_NAME, MODEL_NAME, type Bundle } from "../contract/bundle.ts";
import { float32s } from "../contract/bytes.ts";
import { goldenTensors } from "../contract/golden.ts";
import { ScoringError } from "../errors.ts";
import type { Scorer, ScoringRuntime } from "./scorer.ts";

const GOLDEN = "The active bundle stays as it was; report the browser and its version to the release engineer.";

/**
 * Load a bundle's model and run its golden windows.
 *
 * @throws ScoringError - It cannot be loaded, or gives other scores or verdicts than it should (`golden_failed`).
 */
export async function selfTest(bundle: Bundle, runtime: ScoringRuntime): Promise<void> {
  try {
    const scorer = await runtime.load(fileOf(bundle.files, MODEL_NAME));
    try {
      await checkGolden(bundle, scorer);
    } finally {
      await scorer.close();
    }
  } catch (error) {
    if (!(error instanceof ScoringError)) throw error;
    // One code for "does not work in this browser"; the sentence says in which way.
    throw new ScoringError(error.message, "golden_failed", error.advice, { cause: error.reason });
  }
}

/**
 * Compare a model with the golden windows of its bundle.
 *
 * @throws ScoringError - A raw score differs by more than the tolerance or a verdict differs (`golden_failed`).
 */
async function checkGolden(bundle: Bundle, scorer: Scorer): Promise<void> {
  const spec = bundle.golden;
  const expected = goldenTensors(spec, float32s(fileOf(bundle.files, GOLDEN_NAME)));
  const windows = { data: expected.window, count: spec.windows, slots: spec.slots, signals: spec.signals };
  const found = await scorer.score(windows);
  const differences = Array.from(expected.rawScore, (score, window) => Math.abs(score - found.rawScore[window]!));
  const difference = Math.max(...differences);
  const flips = Array.from(expected.isAnomaly).filter((flag, window) => flag > 0.5 !== (found.isAnomaly[window] === 1));
  // A NaN among the expected scores makes the difference NaN, which must not pass.
  if (difference <= spec.rawTolerance && flips.length === 0) return;
  throw new ScoringError(
    `The model fails its golden windows in this browser: raw scores differ by ${difference.toPrecision(2)}` +
      ` (allowed ${spec.rawTolerance}), ${flips.length} of ${spec.windows} verdicts differ.`,
    "golden_failed",
    GOLDEN,
  );
}

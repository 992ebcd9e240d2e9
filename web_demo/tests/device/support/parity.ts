/** One model of a parity folder scored here, and how far that is from what Python said. */
import { float32s, type Bytes } from "../../../src/device/contract/bytes.ts";
import type { Contribution } from "../../../src/device/contract/result.ts";
import { readManifest } from "../../../src/device/contract/manifest.ts";
import { Explainer } from "../../../src/device/scoring/explanation.ts";
import type { ScoringRuntime } from "../../../src/device/scoring/scorer.ts";

/** What a comparison found. */
export interface Figures {
  readonly windows: number;
  /** Largest difference of raw scores. */
  readonly rawDifference: number;
  /** Largest difference of anomaly scores. */
  readonly anomalyDifference: number;
  /** Verdicts that differ. */
  readonly flips: number;
  /** Windows that are anomalies, by Python. */
  readonly anomalous: number;
  /** Largest difference of contributions, over the windows that Python explained. */
  readonly contributionDifference: number;
  /** Explained windows that name other signals, or another order. */
  readonly otherNames: number;
  /** Microseconds a window in one call for all of them. */
  readonly windowUs: number;
}

/**
 * Score the windows of a case and compare.
 *
 * @param file - Returns a file of the case.
 */
export async function compare(file: (name: string) => Bytes, runtime: ScoringRuntime): Promise<Figures> {
  const manifest = readManifest(file("manifest.json"));
  const scorer = await runtime.load(file("model.onnx"));
  const [slots, signals] = [manifest.window.slots, manifest.signals.length];
  const data = float32s(file("windows.f32"));
  const size = slots * signals;
  const count = data.length / size;
  const found = await scorer.score({ data, count, slots, signals });
  const flags = file("flags.u8");
  const files = new Map([["references.f32", file("references.f32")]]);
  const explainer = await Explainer.of({ digest: "", manifest, files }, scorer);
  const explained = JSON.parse(new TextDecoder().decode(file("contributions.json"))) as Record<
    string,
    [string, number][]
  >;
  let [contributionDifference, otherNames] = [0, 0];
  for (const [row, expected] of Object.entries(explained)) {
    const at = Number(row);
    const own = await explainer.contributions(data.slice(at * size, (at + 1) * size), found.rawScore[at]!);
    if (namesOf(own) !== namesOf(expected)) otherNames += 1;
    const byName = new Map(own);
    for (const [name, value] of expected) {
      contributionDifference = Math.max(contributionDifference, Math.abs((byName.get(name) ?? 0) - value));
    }
  }
  await scorer.close();
  return {
    windows: count,
    rawDifference: largestDifference(found.rawScore, float32s(file("raw.f32"))),
    anomalyDifference: largestDifference(found.anomalyScore, float32s(file("anomaly.f32"))),
    flips: flags.filter((flag, row) => flag !== found.isAnomaly[row]).length,
    anomalous: flags.filter((flag) => flag === 1).length,
    contributionDifference,
    otherNames,
    windowUs: found.elapsedUs / count,
  };
}

/** Names of the contributions above the last bit of a raw score; what lies below it differs between machines. */
function namesOf(contributions: readonly Contribution[]): string {
  return contributions.flatMap(([name, value]) => (Math.abs(value) > 1e-6 ? [name] : [])).join();
}

function largestDifference(found: Float32Array, expected: Float32Array): number {
  if (found.length !== expected.length) return Infinity;
  return found.reduce((largest, score, row) => Math.max(largest, Math.abs(score - expected[row]!)), 0);
}

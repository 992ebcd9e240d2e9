/**
 * Contributions: how much of a window's raw score goes away when one signal is taken from healthy windows.
 *
 * For each signal its column is replaced by that of each of the R references, all versions are scored in one batch, and
 * the contribution is the raw score minus their mean: signed, in raw score units. With context the replaced column is
 * in the residuals of the window's own regimes; the context signals are replaced together and reported as `context`,
 * while every other signal keeps its residuals.
 */
import { fileOf, REFERENCES_NAME } from "../contract/bundle.ts";
import { float32s } from "../contract/bytes.ts";
import { columnsOf, type Manifest, type Regimes } from "../contract/manifest.ts";
import { MAX_CONTRIBUTIONS, type Contribution } from "../contract/result.ts";
import type { ActiveBundle } from "../store/bundles.ts";
import type { Scorer } from "./scorer.ts";

const CONTEXT = "context";
// Six digits say more than any reader needs, and half of an anomaly record is contributions.
const DIGITS = 6;

/** Contributions under one bundle. */
export class Explainer {
  /** What contributes: the signals, and `context` after them where there is one. */
  readonly names: readonly string[];
  private readonly scorer: Scorer;
  private readonly manifest: Manifest;
  private readonly references: Float32Array;
  private readonly signals: readonly number[];
  private readonly context: readonly number[];
  private readonly referenceRegimes: Int32Array | null;

  private constructor(scorer: Scorer, manifest: Manifest, references: Float32Array, regimes: Int32Array | null) {
    this.scorer = scorer;
    this.manifest = manifest;
    this.references = references;
    this.referenceRegimes = regimes;
    this.signals = columnsOf(manifest, "signal");
    this.context = columnsOf(manifest, "context");
    const names = this.signals.map((column) => manifest.signals[column]!.name);
    this.names = regimes === null ? names : [...names, CONTEXT];
  }

  /**
   * Prepare the references of a bundle.
   *
   * @param scorer - The bundle's model, loaded.
   * @throws ScoringError - The model fails.
   */
  static async of(bundle: ActiveBundle, scorer: Scorer): Promise<Explainer> {
    const { manifest } = bundle;
    const data = float32s(fileOf(bundle.files, REFERENCES_NAME));
    const shape = { count: manifest.references, slots: manifest.window.slots, signals: manifest.signals.length };
    const regimes = manifest.regimes === null ? null : await scorer.regimes({ data, ...shape });
    return new Explainer(scorer, manifest, data, regimes);
  }

  /**
   * Explain one window.
   *
   * @param window - W * S values, NaN = missing.
   * @param rawScore - The window's raw score.
   * @returns (signal, contribution), largest first by size, at most 8; signals without any are left out.
   * @throws ScoringError - The model fails.
   */
  async contributions(window: Float32Array<ArrayBuffer>, rawScore: number): Promise<readonly Contribution[]> {
    const lost = await this.everyContribution(window, rawScore);
    const order = lost.map((_, index) => index).sort((one, other) => Math.abs(lost[other]!) - Math.abs(lost[one]!));
    return order
      .slice(0, MAX_CONTRIBUTIONS)
      .map((index): Contribution => [this.names[index]!, Number(lost[index]!.toPrecision(DIGITS))])
      .filter(([, value]) => value !== 0);
  }

  private async everyContribution(window: Float32Array<ArrayBuffer>, rawScore: number): Promise<readonly number[]> {
    const { slots } = this.manifest.window;
    const signals = this.manifest.signals.length;
    const references = this.manifest.references;
    const one = { data: window, count: 1, slots, signals };
    const regimes = this.referenceRegimes === null ? null : await this.scorer.regimes(one);
    const data = this.versions(window, regimes);
    const scores = await this.scorer.rawScores({ data, count: this.names.length * references, slots, signals });
    return this.names.map((_, group) => {
      const own = scores.subarray(group * references, (group + 1) * references);
      return rawScore - own.reduce((sum, score) => sum + score, 0) / references;
    });
  }

  /** Return (names, R, W, S) values: the window with each signal, then the context, taken from each reference. */
  private versions(window: Float32Array, regimes: Int32Array | null): Float32Array<ArrayBuffer> {
    const size = window.length;
    const references = this.manifest.references;
    const versions = new Float32Array(this.names.length * references * size);
    for (let group = 0; group < this.names.length; group += 1) {
      for (let reference = 0; reference < references; reference += 1) {
        const at = (group * references + reference) * size;
        const version = versions.subarray(at, at + size);
        version.set(window);
        this.replace(version, window, regimes, group, reference);
      }
    }
    return versions;
  }

  private replace(
    version: Float32Array,
    window: Float32Array,
    regimes: Int32Array | null,
    group: number,
    reference: number,
  ): void {
    const signals = this.manifest.signals.length;
    for (let slot = 0; slot < this.manifest.window.slots; slot += 1) {
      const own = window.subarray(slot * signals, (slot + 1) * signals);
      // A slot without a reading stays without one: its absence is no signal's doing.
      if (own.every(Number.isNaN)) continue;
      const at = (reference * this.manifest.window.slots + slot) * signals;
      const healthy = this.references.subarray(at, at + signals);
      const target = version.subarray(slot * signals, (slot + 1) * signals);
      if (regimes === null) {
        const column = this.signals[group]!;
        target[column] = healthy[column]!;
      } else {
        const place = reference * this.manifest.window.slots + slot;
        this.replaceInContext(target, own, healthy, regimes[slot]!, this.referenceRegimes![place]!, group);
      }
    }
  }

  private replaceInContext(
    target: Float32Array,
    own: Float32Array,
    healthy: Float32Array,
    ownRegime: number,
    healthyRegime: number,
    group: number,
  ): void {
    const known = this.context.every((column) => !Number.isNaN(own[column]!));
    const knownThere = this.context.every((column) => !Number.isNaN(healthy[column]!));
    // Without its context a reading has no residuals, and nothing to replace them by.
    if (!known) return;
    const regimes = this.manifest.regimes!;
    if (group < this.signals.length) {
      const column = this.signals[group]!;
      const value = moved(regimes, group, healthy[column]!, healthyRegime, ownRegime);
      target[column] = knownThere ? value : NaN;
    } else if (knownThere) {
      this.signals.forEach((column, at) => {
        target[column] = moved(regimes, at, own[column]!, ownRegime, healthyRegime);
      });
      for (const column of this.context) target[column] = healthy[column]!;
    }
  }
}

/** Return the value of a signal in a regime that has the residual which another value has in its own regime. */
function moved(regimes: Regimes, signal: number, value: number, from: number, to: number): number {
  const [mean, spread] = normal(regimes, signal, from);
  const [newMean, newSpread] = normal(regimes, signal, to);
  return Math.fround(newMean + newSpread * ((value - mean) / spread));
}

function normal(regimes: Regimes, signal: number, regime: number): readonly [number, number] {
  // Undefined where context is missing; callers leave those slots out, here they only must not index outside.
  const which = Math.min(Math.max(regime, 0), regimes.means.length - 1);
  const spread = regimes.spreads[which]![signal]!;
  return [regimes.means[which]![signal]!, spread === 0 ? 1 : spread];
}

/**
 * Readings in groups under one bundle: judged, windowed, scored in one batch, and written in one transaction.
 *
 * Verdicts are returned after the commit. A tab that is killed at any moment has written whole groups with all that
 * they caused, and feeding the same readings again gives each result exactly once: what was written is late or
 * duplicate.
 */
import { fileOf, MODEL_NAME } from "./contract/bundle.ts";
import type { AnyRecord, Contribution } from "./contract/result.ts";
import { appendRecords, count, DEFAULT_LIMITS, OUTBOX_STORES, type OutboxLimits } from "./outbox/writing.ts";
import { closeSummaries, copyOf, freshState, type ScoringState } from "./scoring_state.ts";
import { Explainer } from "./scoring/explanation.ts";
import type { Scorer, ScoringRuntime, Verdicts } from "./scoring/scorer.ts";
import type { ActiveBundle } from "./store/bundles.ts";
import type { Database } from "./store/database.ts";
import { ONLY, type StoreName } from "./store/schema.ts";
import { Turn, type Judge } from "./turn.ts";
import type { Verdict } from "./verdict.ts";
import { pick, type Readings, type Windows } from "./windows.ts";

/** Readings stored together at most. */
const GROUP_READINGS = 200;
const STORES: readonly StoreName[] = ["scoring", ...OUTBOX_STORES];

/** Which anomalies get contributions: those that become records, all, or none. */
export type Explain = "stored" | "all" | "none";

/** What scoring needs beside the bundle. */
export interface ScoringOptions {
  readonly database: Database;
  readonly runtime: ScoringRuntime;
  /** The device's clock, UTC epoch milliseconds. */
  readonly clock: () => number;
  readonly explain: Explain;
  readonly limits?: OutboxLimits;
}

/** Scores readings of one device under one bundle; one call at a time. */
export class ReadingScorer implements Judge {
  readonly bundle: ActiveBundle;
  stale = false;
  private readonly options: ScoringOptions;
  private readonly scorer: Scorer;
  private explainer: Explainer | null = null;

  private constructor(bundle: ActiveBundle, scorer: Scorer, options: ScoringOptions) {
    this.bundle = bundle;
    this.scorer = scorer;
    this.options = options;
  }

  /**
   * Load a bundle's model.
   *
   * @throws ScoringError - The model cannot be loaded.
   */
  static async load(bundle: ActiveBundle, options: ScoringOptions): Promise<ReadingScorer> {
    return new ReadingScorer(bundle, await options.runtime.load(fileOf(bundle.files, MODEL_NAME)), options);
  }

  /**
   * Judge, score and store readings, group by group.
   *
   * @param readings - In the order they came; columns as in the bundle's manifest.
   * @param deliver - Gets the verdicts of each group once they are stored.
   * @returns One verdict for each reading, in their order.
   * @throws StorageError - A group could not be stored; those before it are.
   * @throws ScoringError - The model failed; the group it failed on was not stored.
   */
  async score(readings: Readings, deliver: (verdicts: readonly Verdict[]) => void): Promise<readonly Verdict[]> {
    const verdicts: Verdict[] = [];
    for (let start = 0; start < readings.times.length; start += GROUP_READINGS) {
      const size = Math.min(GROUP_READINGS, readings.times.length - start);
      const rows = Array.from({ length: size }, (_, row) => start + row);
      const group = await this.scoreGroup(pick(readings, rows, this.bundle.manifest.signals.length));
      deliver(group);
      verdicts.push(...group);
    }
    return verdicts;
  }

  /** Run the model. */
  async judge(windows: Windows): Promise<Verdicts> {
    return this.scorer.score(windows);
  }

  /** Return the contributions of an anomalous window, or nothing when it is not to be explained. */
  async explain(
    window: Float32Array<ArrayBuffer>,
    rawScore: number,
    stored: boolean,
  ): Promise<readonly Contribution[]> {
    const { explain } = this.options;
    if (explain === "none" || (explain === "stored" && !stored)) return [];
    this.explainer ??= await Explainer.of(this.bundle, this.scorer); // healthy devices never pay for it
    return this.explainer.contributions(window, rawScore);
  }

  /** Give the model's memory back. */
  async close(): Promise<void> {
    await this.scorer.close();
  }

  private async scoreGroup(readings: Readings): Promise<readonly Verdict[]> {
    for (;;) {
      const clockMs = this.options.clock();
      const { before, expiresMs } = await this.known();
      this.stale = expiresMs === null || expiresMs <= clockMs;
      const turn = new Turn(this, before, clockMs);
      const verdicts = await turn.take(readings);
      if (await this.commit(before, turn, outcomesOf(verdicts))) return verdicts;
    }
  }

  private async known(): Promise<{ readonly before: ScoringState; readonly expiresMs: number | null }> {
    return this.options.database.read(["scoring", "expiry"], async (tx) => ({
      before: (await tx.get("scoring", ONLY)) ?? freshState(),
      expiresMs: await tx.get("expiry", ONLY),
    }));
  }

  /** Write what a turn changed; false when somebody else changed the state while the model ran. */
  private async commit(before: ScoringState, turn: Turn, outcomes: ReadonlyMap<string, number>): Promise<boolean> {
    return this.options.database.write(STORES, async (tx) => {
      const now = await tx.get("scoring", ONLY);
      if ((now?.revision ?? 0) !== before.revision) return false;
      await tx.put("scoring", { ...turn.state, revision: before.revision + 1 }, ONLY);
      await appendRecords(tx, turn.records, this.options.limits ?? DEFAULT_LIMITS);
      await count(tx, outcomes);
      return true;
    });
  }
}

/**
 * Turn the open summaries into records, as an upload does, so that the server sees the hour so far.
 *
 * @returns How many were closed.
 * @throws StorageError - The database cannot be used; nothing was closed.
 */
export async function closeOpenSummaries(database: Database, limits: OutboxLimits = DEFAULT_LIMITS): Promise<number> {
  return database.write(STORES, async (tx) => {
    const state = copyOf((await tx.get("scoring", ONLY)) ?? freshState());
    const closed: readonly AnyRecord[] = closeSummaries(state);
    if (closed.length === 0) return 0;
    await tx.put("scoring", { ...state, revision: state.revision + 1 }, ONLY);
    await appendRecords(tx, closed, limits);
    return closed.length;
  });
}

function outcomesOf(verdicts: readonly Verdict[]): ReadonlyMap<string, number> {
  const outcomes = new Map<string, number>();
  for (const { outcome } of verdicts)
    outcomes.set(`readings_${outcome}`, (outcomes.get(`readings_${outcome}`) ?? 0) + 1);
  return outcomes;
}

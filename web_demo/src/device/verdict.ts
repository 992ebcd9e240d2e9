/** What a reading gets back. */
import type { Fate } from "./contract/window.ts";
import type { Contribution } from "./contract/result.ts";

/** What became of a reading. */
export type Outcome = "scored" | "warming_up" | Exclude<Fate, "accepted">;

/** What the model says of a window. */
export interface Score {
  /** In [0, 1], higher is more anomalous. */
  readonly anomalyScore: number;
  /** The detector's own figure. */
  readonly rawScore: number;
  /** Whether the score reaches the threshold. */
  readonly isAnomaly: boolean;
  /** Start of the incident that this anomalous window belongs to, else null. */
  readonly incidentStartedAtMs: number | null;
  /** This window became an anomaly record. */
  readonly stored: boolean;
  /** (signal, share of the raw score that goes away without it) of stored anomalies. */
  readonly contributions: readonly Contribution[];
}

/** The verdict on one reading. */
export interface Verdict {
  /** The reading's own time. */
  readonly timestampMs: number;
  /**
   * `scored`; `warming_up` (stored, window still too short); `late` or `duplicate` (at or below the highest accepted
   * time, not scored); `future` (more than a day ahead of the clock, refused).
   */
  readonly outcome: Outcome;
  /** Null unless scored. */
  readonly score: Score | null;
}

/**
 * One group of readings on its way through: judged, windowed, scored; what it changes is collected for the caller to
 * store in one transaction.
 */
import type { AnyRecord, Contribution } from "./contract/result.ts";
import { clockStepped, judgeReading, type Fate } from "./contract/window.ts";
import { endedEvent, observe } from "./incidents.ts";
import { closeSummaries, copyOf, forgetReadings, summaryOf, useBundle, type ScoringState } from "./scoring_state.ts";
import type { Verdicts } from "./scoring/scorer.ts";
import type { ActiveBundle } from "./store/bundles.ts";
import { addWindow, hourOf } from "./summaries.ts";
import type { Outcome, Verdict } from "./verdict.ts";
import { filled, gather, joined, keptRows, pick, windowRows, type Readings, type Windows } from "./windows.ts";

/** Whoever runs the model for a turn. */
export interface Judge {
  readonly bundle: ActiveBundle;
  /** The device's metadata has expired: anomalies are marked so. */
  readonly stale: boolean;
  judge(windows: Windows): Promise<Verdicts>;
  explain(window: Float32Array<ArrayBuffer>, rawScore: number, stored: boolean): Promise<readonly Contribution[]>;
}

/** What a group of readings came to. */
export class Turn {
  /** The state to keep. */
  readonly state: ScoringState;
  /** The records to store, still without numbers. */
  readonly records: AnyRecord[] = [];
  private readonly judge: Judge;
  private readonly clockMs: number;
  /** Times of the readings that are still held: one of them that comes again is a duplicate, not just late. */
  private readonly known: Set<number>;

  /**
   * @param judge - Runs the model.
   * @param before - The state as it was read; it is not changed.
   * @param clockMs - The device's clock.
   */
  constructor(judge: Judge, before: ScoringState, clockMs: number) {
    this.judge = judge;
    this.clockMs = clockMs;
    this.state = copyOf(before);
    if (before.bundle !== judge.bundle.digest) this.changeBundle();
    this.watchClock();
    this.known = new Set(this.state.readings.times);
  }

  /**
   * Return the verdicts of a group, in its order.
   *
   * @throws ScoringError - The model failed.
   */
  async take(readings: Readings): Promise<readonly Verdict[]> {
    const fates = readings.times.map((timestampMs) => this.fateOf(timestampMs));
    const accepted = fates.flatMap((fate, row) => (fate === "accepted" ? [row] : []));
    const signals = this.judge.bundle.manifest.signals.length;
    const scored = await this.score(pick(readings, accepted, signals), signals);
    const byRow = new Map(accepted.map((row, position) => [row, scored[position]!]));
    return readings.times.map(
      (timestampMs, row) => byRow.get(row) ?? { timestampMs, outcome: fates[row]! as Outcome, score: null },
    );
  }

  private changeBundle(): void {
    const { bundle } = this.judge;
    this.records.push(...closeSummaries(this.state));
    this.endIncident(this.state.highestTimestampMs ?? this.clockMs);
    useBundle(this.state, bundle.digest, bundle.manifest);
  }

  private watchClock(): void {
    const { state, clockMs } = this;
    if (clockStepped(clockMs, state.highestClockMs)) {
      this.records.push(...closeSummaries(state));
      this.endIncident(clockMs);
      const detail = { from_ms: state.highestClockMs ?? 0, to_ms: clockMs };
      const bundle = this.judge.bundle.digest;
      const record = { sequence: 0, bundle, observed_at_ms: clockMs, name: "clock_stepped", detail };
      this.records.push({ table: "events", record });
      if (state.highestTimestampMs !== null) state.highestTimestampMs = Math.min(state.highestTimestampMs, clockMs);
      forgetReadings(state);
      state.highestClockMs = clockMs;
    }
    state.highestClockMs = Math.max(clockMs, state.highestClockMs ?? 0);
  }

  private endIncident(atMs: number): void {
    if (this.state.incident !== null) this.records.push(endedEvent(this.state.incident, atMs));
    this.state.incident = null;
  }

  private fateOf(timestampMs: number): Fate {
    const { state } = this;
    const fate = judgeReading(timestampMs, state.highestTimestampMs, this.clockMs);
    if (fate === "accepted") {
      state.highestTimestampMs = timestampMs;
      this.known.add(timestampMs);
    }
    if (fate !== "late" || state.highestTimestampMs === null) return fate;
    if (this.known.has(timestampMs)) return "duplicate";
    // In the newest hour, not the reading's own: a year fed again would make a summary for every hour.
    summaryOf(state, this.judge.bundle.digest, state.highestTimestampMs).late += 1;
    return "late";
  }

  private async score(added: Readings, signals: number): Promise<readonly Verdict[]> {
    if (added.times.length === 0) return [];
    const rule = this.judge.bundle.manifest.window;
    const all = joined(this.state.readings, added);
    const before = this.state.readings.times.length;
    const rows = added.times.map((_, row) => windowRows(all.times, before + row, rule));
    const ready = rows.flatMap((window, row) => (filled(window) >= rule.minimumReadings ? [row] : []));
    const windows = gather(
      all.cells,
      ready.map((row) => rows[row]!),
      rule.slots,
      signals,
    );
    const scores = ready.length > 0 ? await this.judge.judge(windows) : null;
    this.state.readings = pick(all, keptRows(all.times, rule), signals);
    const place = new Map(ready.map((row, position) => [row, position]));
    const verdicts: Verdict[] = [];
    for (const [row, timestampMs] of added.times.entries()) {
      this.countCells(timestampMs, added.cells.subarray(row * signals, (row + 1) * signals));
      const position = place.get(row);
      if (scores === null || position === undefined) verdicts.push(this.warmingUp(timestampMs));
      else verdicts.push(await this.verdict(timestampMs, windows, scores, position));
    }
    return verdicts;
  }

  private countCells(timestampMs: number, cells: Float32Array): void {
    const bundle = this.judge.bundle.digest;
    this.records.push(...closeSummaries(this.state, { bundle, startMs: hourOf(timestampMs) }));
    const summary = summaryOf(this.state, bundle, timestampMs);
    summary.values += cells.length;
    summary.missing += cells.filter(Number.isNaN).length;
  }

  private warmingUp(timestampMs: number): Verdict {
    summaryOf(this.state, this.judge.bundle.digest, timestampMs).warmingUp += 1;
    return { timestampMs, outcome: "warming_up", score: null };
  }

  private async verdict(timestampMs: number, windows: Windows, scores: Verdicts, position: number): Promise<Verdict> {
    const { state, judge } = this;
    const bundle = judge.bundle.digest;
    const anomalyScore = shortest(scores.anomalyScore[position]!);
    const rawScore = shortest(scores.rawScore[position]!);
    const isAnomaly = scores.isAnomaly[position] === 1;
    // A group's time is shared evenly: what an owner asks is how long one verdict costs.
    const latencyUs = Math.round(scores.elapsedUs / windows.count);
    addWindow(summaryOf(state, bundle, timestampMs), anomalyScore, isAnomaly, latencyUs);
    const gap = judge.bundle.manifest.incidentGap;
    const step = observe(state.incident, { bundle, timestampMs, anomalyScore, isAnomaly }, gap);
    state.incident = step.incident;
    if (step.ended !== null) this.records.push(endedEvent(step.ended, timestampMs));
    const score = { anomalyScore, rawScore, isAnomaly, incidentStartedAtMs: null, stored: false, contributions: [] };
    if (step.incident === null || !isAnomaly) return { timestampMs, outcome: "scored", score };
    const cells = windows.slots * windows.signals;
    const window = windows.data.slice(position * cells, (position + 1) * cells);
    const contributions = await judge.explain(window, scores.rawScore[position]!, step.stored);
    const { startedAtMs, windows: counted } = step.incident;
    if (step.stored) {
      const record = {
        sequence: 0,
        bundle,
        observed_at_ms: timestampMs,
        incident_started_at_ms: startedAtMs,
        anomaly_score: anomalyScore,
        raw_score: rawScore,
        windows: counted,
        contributions,
        stale: judge.stale,
      };
      this.records.push({ table: "anomalies", record });
    }
    const stored = step.stored;
    return {
      timestampMs,
      outcome: "scored",
      score: { ...score, incidentStartedAtMs: startedAtMs, stored, contributions },
    };
  }
}

/** Return the shortest decimal that reads back as the same float32: half the bytes on the wire. */
export function shortest(value: number): number {
  // Nine significant digits tell every float32 apart (IEEE 754-2019, 5.12.2).
  for (let digits = 1; digits < 9; digits += 1) {
    const short = Number(value.toPrecision(digits));
    if (Math.fround(short) === value) return short;
  }
  return Number(value.toPrecision(9));
}

/**
 * Summaries: every scored window counts in its hour's summary, anomalous or not.
 *
 * An open summary is a running count; closing it makes a record, a delta that is never edited.
 */
import { BINS, binOf } from "./contract/histogram.ts";
import type { AnyRecord, Summary } from "./contract/result.ts";

const HOUR_MS = 3_600_000;
/** A UTC day in milliseconds. */
export const DAY_MS = 86_400_000;

/** Counts of one hour and bundle since its last closed summary. */
export interface OpenSummary {
  /** SHA-256 of the bundle that scored, hex. */
  readonly bundle: string;
  /** Start of the UTC hour. */
  readonly startMs: number;
  newestReadingMs: number;
  windows: number;
  anomalous: number;
  warmingUp: number;
  /** Readings that came at or below the mark while this hour was the newest. */
  late: number;
  values: number;
  missing: number;
  readonly histogram: number[];
  latencyCount: number;
  latencySumUs: number;
  latencyMaxUs: number;
}

/** Return an open summary that has counted nothing yet, for the hour of a reading. */
export function openSummary(bundle: string, timestampMs: number): OpenSummary {
  return {
    bundle,
    startMs: hourOf(timestampMs),
    newestReadingMs: timestampMs,
    windows: 0,
    anomalous: 0,
    warmingUp: 0,
    late: 0,
    values: 0,
    missing: 0,
    histogram: Array.from({ length: BINS }, () => 0),
    latencyCount: 0,
    latencySumUs: 0,
    latencyMaxUs: 0,
  };
}

/**
 * Count a scored window.
 *
 * @param anomalyScore - In [0, 1].
 * @param latencyUs - Scoring time of this window in microseconds (its share of a group's).
 */
export function addWindow(summary: OpenSummary, anomalyScore: number, isAnomaly: boolean, latencyUs: number): void {
  const bin = binOf(anomalyScore);
  summary.histogram[bin] = (summary.histogram[bin] ?? 0) + 1;
  summary.windows += 1;
  summary.anomalous += isAnomaly ? 1 : 0;
  summary.latencyCount += 1;
  summary.latencySumUs += latencyUs;
  summary.latencyMaxUs = Math.max(summary.latencyMaxUs, latencyUs);
}

/** Return the record of a summary, still without a number. */
export function closedSummary(summary: OpenSummary): AnyRecord {
  const record: Summary = {
    sequence: 0,
    bundle: summary.bundle,
    period_start_ms: summary.startMs,
    period: "hour",
    newest_reading_ms: summary.newestReadingMs,
    windows: summary.windows,
    anomalous: summary.anomalous,
    warming_up: summary.warmingUp,
    late: summary.late,
    values: summary.values,
    missing: summary.missing,
    histogram: summary.histogram,
    latency_count: summary.latencyCount,
    latency_sum_us: summary.latencySumUs,
    latency_max_us: summary.latencyMaxUs,
  };
  return { table: "summaries", record };
}

/** Return the start of the UTC hour that a time falls into. */
export function hourOf(timestampMs: number): number {
  return timestampMs - (timestampMs % HOUR_MS);
}

/**
 * Add summaries of one bundle and UTC day up into one daily summary, still without a number.
 *
 * @param summaries - At least one, hourly or daily, all of the same bundle and day.
 * @throws RangeError - None at all.
 */
export function mergeToDay(summaries: readonly Summary[]): Summary {
  const first = summaries[0];
  if (first === undefined) throw new RangeError("no summaries to merge");
  const sum = (field: (summary: Summary) => number): number =>
    summaries.reduce((total, item) => total + field(item), 0);
  return {
    ...first,
    sequence: 0,
    period_start_ms: first.period_start_ms - (first.period_start_ms % DAY_MS),
    period: "day",
    newest_reading_ms: Math.max(...summaries.map((item) => item.newest_reading_ms)),
    windows: sum((item) => item.windows),
    anomalous: sum((item) => item.anomalous),
    warming_up: sum((item) => item.warming_up),
    late: sum((item) => item.late),
    values: sum((item) => item.values),
    missing: sum((item) => item.missing),
    histogram: first.histogram.map((_, bin) => sum((item) => item.histogram[bin] ?? 0)),
    latency_count: sum((item) => item.latency_count),
    latency_sum_us: sum((item) => item.latency_sum_us),
    latency_max_us: Math.max(...summaries.map((item) => item.latency_max_us)),
  };
}

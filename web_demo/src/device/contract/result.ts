/**
 * Results: the records that devices make. A record's identity is (device, stream, sequence).
 *
 * Fields are named as they travel, so that a record is its own JSON. A record without a number yet has sequence 0.
 */

/** Most contributions of one anomaly. */
export const MAX_CONTRIBUTIONS = 8;

/** One stored anomalous window: the first of its incident, a new maximum, or one an hour. */
export interface Anomaly {
  readonly sequence: number;
  /** SHA-256 of the bundle that scored it, hex. */
  readonly bundle: string;
  /** Time of the window's newest reading, the device's claim. */
  readonly observed_at_ms: number;
  /** Time of the incident's first anomalous window. */
  readonly incident_started_at_ms: number;
  /** In [0, 1], higher is more anomalous. */
  readonly anomaly_score: number;
  /** The detector's own figure. */
  readonly raw_score: number;
  /** Anomalous windows of the incident up to and with this one. */
  readonly windows: number;
  /** (signal, share of the raw score that goes away without it), largest first, at most 8. */
  readonly contributions: readonly Contribution[];
  /** The device's metadata had expired when it scored. */
  readonly stale: boolean;
}

/** A signal and how much of the raw score goes away when it is taken from healthy windows. */
export type Contribution = readonly [signal: string, value: number];

/** Counts of one hour (or day) and bundle since the last summary of it: a delta, the server only adds. */
export interface Summary {
  readonly sequence: number;
  readonly bundle: string;
  /** Start of the UTC hour or day of the readings. */
  readonly period_start_ms: number;
  readonly period: "hour" | "day";
  /** Time of the newest reading when it was closed. */
  readonly newest_reading_ms: number;
  readonly windows: number;
  readonly anomalous: number;
  /** Readings accepted before a verdict was possible. */
  readonly warming_up: number;
  /** Readings that came at or below the mark. */
  readonly late: number;
  /** Cells of the accepted readings. */
  readonly values: number;
  /** Those that were missing. */
  readonly missing: number;
  /** 15 counts of anomaly scores over the contract's edges. */
  readonly histogram: readonly number[];
  readonly latency_count: number;
  readonly latency_sum_us: number;
  readonly latency_max_us: number;
}

/** The trace of records that a full store had to give up: one contiguous run of sequence numbers. */
export interface Gap {
  readonly sequence: number;
  readonly first_sequence: number;
  readonly last_sequence: number;
  /** The length of the run. */
  readonly count: number;
  /** Short code, such as `outbox_full` or `summaries_merged`. */
  readonly reason: string;
}

/** Something that happened on the device: an update's outcome, an incident's end, a stepped clock. */
export interface DeviceEvent {
  readonly sequence: number;
  /** SHA-256 of the active bundle, hex, or null. */
  readonly bundle: string | null;
  readonly observed_at_ms: number;
  /** Short code, such as `incident_ended`. */
  readonly name: string;
  /** At most 16 short fields. */
  readonly detail: Readonly<Record<string, string | number | boolean>>;
}

/** A record with its table. */
export type AnyRecord =
  | { readonly table: "anomalies"; readonly record: Anomaly }
  | { readonly table: "summaries"; readonly record: Summary }
  | { readonly table: "gaps"; readonly record: Gap }
  | { readonly table: "events"; readonly record: DeviceEvent };

/** Name of a table of the batch. */
export type Table = AnyRecord["table"];

/** The fields of each table, in the order in which they travel. */
export const FIELDS: Readonly<Record<Table, readonly string[]>> = {
  anomalies: [
    "sequence",
    "bundle",
    "observed_at_ms",
    "incident_started_at_ms",
    "anomaly_score",
    "raw_score",
    "windows",
    "contributions",
    "stale",
  ],
  summaries: [
    "sequence",
    "bundle",
    "period_start_ms",
    "period",
    "newest_reading_ms",
    "windows",
    "anomalous",
    "warming_up",
    "late",
    "values",
    "missing",
    "histogram",
    "latency_count",
    "latency_sum_us",
    "latency_max_us",
  ],
  gaps: ["sequence", "first_sequence", "last_sequence", "count", "reason"],
  events: ["sequence", "bundle", "observed_at_ms", "name", "detail"],
};

/** Return a record under another number. */
export function numbered(item: AnyRecord, sequence: number): AnyRecord {
  return { table: item.table, record: { ...item.record, sequence } } as AnyRecord;
}

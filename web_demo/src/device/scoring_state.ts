/**
 * What scoring must remember between readings: marks, the readings that later windows can see, open incident,
 * summaries.
 *
 * It is stored as one value, in the transaction that stores what a group of readings caused.
 */
import type { AnyRecord } from "./contract/result.ts";
import type { Manifest } from "./contract/manifest.ts";
import type { OpenIncident } from "./incidents.ts";
import { closedSummary, hourOf, openSummary, type OpenSummary } from "./summaries.ts";
import type { Readings } from "./windows.ts";

/** What the columns and slots of the kept readings mean. */
export interface Layout {
  /** (name, unit) of each column. */
  readonly signals: readonly (readonly [name: string, unit: string])[];
  /** Length of a slot in milliseconds. */
  readonly intervalMs: number;
}

/** One device's scoring, between two groups of readings. */
export interface ScoringState {
  /** Grows with every change; tells a scorer that somebody else has been there. */
  revision: number;
  /** SHA-256 of the bundle that scored last, or null. */
  bundle: string | null;
  layout: Layout | null;
  /** The highest accepted time, or null. */
  highestTimestampMs: number | null;
  /** The highest value the clock has shown, or null. */
  highestClockMs: number | null;
  /** The readings that later windows can still see. */
  readings: Readings;
  incident: OpenIncident | null;
  summaries: readonly OpenSummary[];
}

const NOTHING: Readings = { times: [], cells: new Float32Array(0) };

/** Return the state of a device that has scored nothing. */
export function freshState(): ScoringState {
  return {
    revision: 0,
    bundle: null,
    layout: null,
    highestTimestampMs: null,
    highestClockMs: null,
    readings: NOTHING,
    incident: null,
    summaries: [],
  };
}

/** Return a copy whose parts may be changed without changing the original. */
export function copyOf(state: ScoringState): ScoringState {
  const summaries = state.summaries.map((summary) => ({ ...summary, histogram: [...summary.histogram] }));
  return { ...state, summaries };
}

/** Return the open summary of a bundle and of the hour that a time falls into, opening it when there is none. */
export function summaryOf(state: ScoringState, bundle: string, timestampMs: number): OpenSummary {
  const startMs = hourOf(timestampMs);
  let summary = state.summaries.find((item) => item.bundle === bundle && item.startMs === startMs);
  if (summary === undefined) {
    summary = openSummary(bundle, timestampMs);
    state.summaries = [...state.summaries, summary];
  }
  summary.newestReadingMs = Math.max(summary.newestReadingMs, timestampMs);
  return summary;
}

/**
 * Close the open summaries, oldest first, but for the one to keep.
 *
 * @param keep - Bundle and start of the hour of the summary that goes on, or null.
 */
export function closeSummaries(
  state: ScoringState,
  keep: { readonly bundle: string; readonly startMs: number } | null = null,
): readonly AnyRecord[] {
  const goesOn = (item: OpenSummary): boolean =>
    keep !== null && item.bundle === keep.bundle && item.startMs === keep.startMs;
  const closing = state.summaries.filter((item) => !goesOn(item));
  if (closing.length === 0) return [];
  state.summaries = state.summaries.filter(goesOn);
  closing.sort((one, other) => one.startMs - other.startMs || (one.bundle < other.bundle ? -1 : 1));
  return closing.map(closedSummary);
}

/** Start the window afresh. */
export function forgetReadings(state: ScoringState): void {
  state.readings = NOTHING;
}

/** Put the state under another bundle: its readings stay where they mean the same, else the window is new. */
export function useBundle(state: ScoringState, bundle: string, manifest: Manifest): void {
  const layout: Layout = {
    signals: manifest.signals.map((signal) => [signal.name, signal.unit]),
    intervalMs: manifest.window.intervalMs,
  };
  const columns = state.layout === null ? null : columnsOf(state.layout, layout);
  if (columns === null) forgetReadings(state);
  else state.readings = withColumns(state.readings, columns, state.layout?.signals.length ?? 0);
  state.bundle = bundle;
  state.layout = layout;
}

function columnsOf(have: Layout, wanted: Layout): readonly number[] | null {
  if (have.intervalMs !== wanted.intervalMs) return null;
  const columns = wanted.signals.map(([name, unit]) =>
    have.signals.findIndex(([known, knownUnit]) => known === name && knownUnit === unit),
  );
  return columns.includes(-1) ? null : columns;
}

function withColumns(readings: Readings, columns: readonly number[], width: number): Readings {
  const cells = new Float32Array(readings.times.length * columns.length);
  readings.times.forEach((_, row) => {
    columns.forEach((column, at) => {
      cells[row * columns.length + at] = readings.cells[row * width + column]!;
    });
  });
  return { times: readings.times, cells };
}

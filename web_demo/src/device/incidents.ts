/**
 * Incidents: a run of anomalous windows of one device and bundle, and which of them are stored. Pure.
 *
 * Stored are the first window, each new maximum, and otherwise one an hour; the rest are counted.
 */
import type { AnyRecord } from "./contract/result.ts";

/** "Then one an hour" (contract, Results), counted in the readings' own time. */
const STORE_EVERY_MS = 3_600_000;

/** An incident that has not ended. */
export interface OpenIncident {
  /** SHA-256 of the bundle that scores it, hex. */
  readonly bundle: string;
  /** Time of its first anomalous window. */
  readonly startedAtMs: number;
  /** Its anomalous windows so far. */
  readonly windows: number;
  /** Their maximum. */
  readonly highestAnomalyScore: number;
  /** Healthy windows since the last anomalous one. */
  readonly healthyRun: number;
  /** Time of the last window that was stored. */
  readonly lastStoredMs: number;
}

/** What one window does to the incident. */
export interface Step {
  /** The open incident afterwards, or null. */
  readonly incident: OpenIncident | null;
  /** The window becomes an anomaly record. */
  readonly stored: boolean;
  /** The incident that this window ended, or null. */
  readonly ended: OpenIncident | null;
}

/** A scored window, as an incident sees it. */
export interface Observed {
  readonly bundle: string;
  /** The window's newest reading. */
  readonly timestampMs: number;
  /** In [0, 1]. */
  readonly anomalyScore: number;
  readonly isAnomaly: boolean;
}

/**
 * Take the next scored window.
 *
 * @param incident - The open incident, of the same bundle, or null.
 * @param window - The window.
 * @param gap - Healthy windows in a row that end an incident, at least 1.
 */
export function observe(incident: OpenIncident | null, window: Observed, gap: number): Step {
  if (incident === null) return window.isAnomaly ? begun(window) : { incident, stored: false, ended: null };
  if (!window.isAnomaly) {
    const healthyRun = incident.healthyRun + 1;
    if (healthyRun >= gap) return { incident: null, stored: false, ended: incident };
    return { incident: { ...incident, healthyRun }, stored: false, ended: null };
  }
  const rises = window.anomalyScore > incident.highestAnomalyScore;
  const stored = rises || window.timestampMs - incident.lastStoredMs >= STORE_EVERY_MS;
  const after = {
    ...incident,
    windows: incident.windows + 1,
    highestAnomalyScore: Math.max(window.anomalyScore, incident.highestAnomalyScore),
    healthyRun: 0,
    lastStoredMs: stored ? window.timestampMs : incident.lastStoredMs,
  };
  return { incident: after, stored, ended: null };
}

/**
 * Return the record of an incident's end, still without a number.
 *
 * @param observedAtMs - Time of the reading, or of the change, that ended it.
 */
export function endedEvent(incident: OpenIncident, observedAtMs: number): AnyRecord {
  const detail = {
    incident_started_at_ms: incident.startedAtMs,
    windows: incident.windows,
    highest_anomaly_score: incident.highestAnomalyScore,
  };
  const record = { sequence: 0, bundle: incident.bundle, observed_at_ms: observedAtMs, name: "incident_ended", detail };
  return { table: "events", record };
}

function begun(window: Observed): Step {
  const incident = {
    bundle: window.bundle,
    startedAtMs: window.timestampMs,
    windows: 1,
    highestAnomalyScore: window.anomalyScore,
    healthyRun: 0,
    lastStoredMs: window.timestampMs,
  };
  return { incident, stored: true, ended: null };
}

/** The window rule: which readings form a window, and which readings a device accepts. Times are UTC milliseconds. */
import { ContractError } from "../errors.ts";
import * as checks from "./checks.ts";
import type { JsonObject } from "./json.ts";

const DAY_MS = 86_400_000;
const MAX_SLOTS = 4096;

/** A reading further ahead of the device's clock than this is no reading but a broken clock. */
const FUTURE_TOLERANCE_MS = DAY_MS;
/** The same distance backwards means that the clock was ahead before and has been set right. */
const CLOCK_STEP_MS = DAY_MS;

/** What becomes of a reading. */
export type Fate = "accepted" | "late" | "duplicate" | "future";

/** How readings become windows. */
export interface WindowRule {
  /** W, the number of slots. */
  readonly slots: number;
  /** Length of a slot in milliseconds. */
  readonly intervalMs: number;
  /** Nothing before a longer gap between two readings is seen, in milliseconds. */
  readonly largestGapMs: number;
  /** Filled slots that a verdict needs, 1 to W. */
  readonly minimumReadings: number;
}

/**
 * Read the rule as the manifest writes it, with times in seconds.
 *
 * @throws ContractError - A field is missing or out of bounds.
 */
export function readWindowRule(value: JsonObject): WindowRule {
  const slots = checks.integer(checks.get(value, "slots"), "slots", { least: 1, most: MAX_SLOTS });
  const intervalMs = checks.integer(milliseconds(value, "interval_seconds"), "interval_ms", {
    least: 1,
    most: 366 * DAY_MS,
  });
  const gap = milliseconds(value, "largest_gap_seconds");
  const minimum = checks.get(value, "minimum_readings");
  return {
    slots,
    intervalMs,
    largestGapMs: checks.integer(gap, "largest_gap_ms", { least: intervalMs }),
    minimumReadings: checks.integer(minimum, "minimum_readings", { least: 1, most: slots }),
  };
}

/**
 * Say what becomes of a reading; its identity on a device is its timestamp.
 *
 * @param timestampMs - The reading's own time.
 * @param highestMs - The highest accepted time, or null before the first.
 * @param clockMs - The device's clock now.
 */
export function judgeReading(timestampMs: number, highestMs: number | null, clockMs: number): Fate {
  if (timestampMs > clockMs + FUTURE_TOLERANCE_MS) return "future";
  if (highestMs === null || timestampMs > highestMs) return "accepted";
  return timestampMs === highestMs ? "duplicate" : "late";
}

/** Say whether the clock is more than a day behind the highest it has shown. */
export function clockStepped(clockMs: number, highestClockMs: number | null): boolean {
  return highestClockMs !== null && clockMs < highestClockMs - CLOCK_STEP_MS;
}

function milliseconds(value: JsonObject, field: string): number {
  const exact = checks.number(checks.get(value, field), field, { least: 0.001 }) * 1000;
  const rounded = Math.round(exact);
  if (Math.abs(rounded - exact) > 1e-6) {
    throw new ContractError(`Field '${field}' must be a whole number of milliseconds.`, "", { field });
  }
  return rounded;
}

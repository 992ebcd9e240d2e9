/**
 * Readings: from an object to a time and cells, strictly; what cannot be used says why.
 *
 * A missing value (absent, null, undefined, NaN) is a missing cell. Text, an infinity or a number past float32 refuses
 * the whole reading: half a reading would be scored as if the device had said it.
 */
import { LATEST_MS } from "./contract/checks.ts";
import { InputError } from "./errors.ts";
import type { Readings } from "./windows.ts";

/** One reading as an app gives it: a time and a number for each signal. */
export interface Reading {
  /** ISO 8601 text (UTC without a zone), epoch seconds, or a Date. */
  readonly timestamp: string | number | Date;
  readonly [signal: string]: string | number | boolean | Date | null | undefined;
}

const FLOAT32_MAX = 3.4028234663852886e38;
const NUMBER = /^[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?$/;
const ISO = /^(\d{4}-\d{2}-\d{2})(?:[T ](\d{2}:\d{2})(?::(\d{2})(?:[.,](\d{1,9}))?)?(Z|[+-]\d{2}(?::?\d{2})?)?)?$/;

/** A reading that cannot be used. */
export class UnusableReadingError extends InputError {
  override readonly code = "unusable_reading";
  /** `missing_timestamp`, `bad_timestamp`, `text_in_number` or `infinity`. */
  readonly reason: string;

  constructor(reason: string, message: string) {
    super(message, "", { reason });
    this.reason = reason;
  }
}

/**
 * Turn an app's readings into times and cells for one bundle.
 *
 * @param readings - In the order they came.
 * @param signals - Signal names in the manifest's order.
 * @throws UnusableReadingError - One of them cannot be used; none is taken.
 */
export function parseReadings(readings: readonly Reading[], signals: readonly string[]): Readings {
  const cells = new Float32Array(readings.length * signals.length);
  const times = readings.map((reading, row) => {
    signals.forEach((name, column) => {
      const value = Object.hasOwn(reading, name) ? reading[name] : null;
      cells[row * signals.length + column] = cell(value, name);
    });
    return moment(reading.timestamp);
  });
  return { times, cells };
}

/**
 * Return a time as UTC epoch milliseconds; parts of a millisecond are cut off.
 *
 * @throws UnusableReadingError - There is none (`missing_timestamp`), or it is no time (`bad_timestamp`).
 */
export function moment(value: unknown): number {
  if (value === undefined || value === null || value === "" || Number.isNaN(value)) {
    throw new UnusableReadingError("missing_timestamp", "A reading has no timestamp.");
  }
  const atMs = momentOf(value);
  if (atMs === null || !(atMs >= 0 && atMs <= LATEST_MS)) {
    throw new UnusableReadingError(
      "bad_timestamp",
      `The timestamp '${String(value).slice(0, 40)}' is neither ISO 8601 nor epoch seconds from 1970 to 9999.`,
    );
  }
  return atMs;
}

function momentOf(value: unknown): number | null {
  if (value instanceof Date) return value.getTime();
  if (typeof value === "number") return fromSeconds(value);
  if (typeof value !== "string") return null;
  const text = value.trim();
  if (NUMBER.test(text)) return fromSeconds(Number(text));
  const match = ISO.exec(text);
  if (match === null) return null;
  const [, day, minute = "00:00", second = "00", fraction = "", zone = "Z"] = match;
  const offset = zone === "Z" ? zone : `${zone.slice(0, 3)}:${zone.slice(3).replace(":", "") || "00"}`;
  return Date.parse(`${day}T${minute}:${second}.${fraction.slice(0, 3).padEnd(3, "0")}${offset}`);
}

function fromSeconds(seconds: number): number | null {
  // Rounded to microseconds before the cut: 1700000000.123 s is a float a little below 123 ms.
  return Math.abs(seconds) < 1e12 ? Math.floor(Math.round(seconds * 1e6) / 1000) : null;
}

function cell(value: unknown, name: string): number {
  if (value === null || value === undefined) return NaN;
  if (typeof value !== "number" && typeof value !== "boolean") {
    throw new UnusableReadingError("text_in_number", `Signal '${name}' is no number: '${String(value).slice(0, 40)}'.`);
  }
  const number = Number(value);
  if (Math.abs(number) > FLOAT32_MAX) {
    throw new UnusableReadingError("infinity", `Signal '${name}' is infinite or too large: ${number}.`);
  }
  return number;
}

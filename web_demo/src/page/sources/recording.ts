/**
 * A recording of a device: a CSV file with a `timestamp` column and one a signal, replayed as if it happened now.
 *
 * Times are moved by one amount so that the last reading is of this minute: windows see the same steps as they did
 * when it was recorded, and the device, which takes no reading older than the newest it has, takes each once.
 */
import { InputError } from "../../device/errors.ts";
import { moment, type Reading } from "../../device/readings.ts";
import type { Source } from "./source.ts";

/** More than 10,000 readings of 25 signals, and far from what a tab cannot hold. */
export const MAX_RECORDING_BYTES = 32 * 2 ** 20;
const BROKEN_READINGS = 30;
const BROKEN_SIGNALS = 3;

/** What a recording holds. */
export interface Recording {
  readonly signals: readonly string[];
  /** UTC epoch milliseconds, ascending. */
  readonly times: readonly number[];
  /** n rows of S values, NaN = missing. */
  readonly rows: readonly (readonly number[])[];
}

/**
 * Read a recording.
 *
 * @param text - The CSV file.
 * @param signals - Signals that the model needs.
 * @throws InputError - No timestamp column, no column of a signal, or a cell that is no number.
 */
export function parseRecording(text: string, signals: readonly string[]): Recording {
  const [head = "", ...lines] = text.split(/\r?\n/).filter((line) => line.trim() !== "");
  const columns = head.split(",").map((name) => name.trim());
  const time = columns.indexOf("timestamp");
  const places = signals.map((name) => columns.indexOf(name));
  if (time < 0 || places.every((place) => place < 0)) {
    throw new InputError(
      "The recording does not fit the model: it needs a column 'timestamp' and columns of the model's signals.",
      `The signals are: ${signals.join(", ")}.`,
    );
  }
  const cells = lines.map((line) => line.split(","));
  const times = cells.map((row) => moment(row[time]));
  const rows = cells.map((row, at) => places.map((place) => numberIn(place < 0 ? "" : row[place], at + 2)));
  return { signals, times, rows };
}

function numberIn(cell: string | undefined, line: number): number {
  const text = (cell ?? "").trim();
  if (text === "" || text.toLowerCase() === "nan") return NaN;
  const value = Number(text);
  if (Number.isFinite(value)) return value;
  throw new InputError(`Line ${line} of the recording holds '${text.slice(0, 40)}', which is no number.`);
}

/** Replays a recording. */
export class RecordingSource implements Source {
  readonly name: string;
  readonly hasPace = true;
  private readonly recording: Recording;
  private readonly shiftMs: number;
  private readonly failing: ReadonlyMap<number, number>;
  private at = 0;
  private broken = 0;

  /** @param nowMs - The device's clock: the recording ends here. */
  constructor(name: string, recording: Recording, nowMs: number) {
    this.name = name;
    this.recording = recording;
    this.shiftMs = nowMs - (recording.times.at(-1) ?? nowMs);
    const columns = recording.signals.map((_, column) => column).slice(-BROKEN_SIGNALS);
    this.failing = new Map(columns.map((column) => [column, beyond(recording, column)]));
  }

  take(most: number): readonly Reading[] {
    const { times, rows, signals } = this.recording;
    const end = Math.min(this.at + most, times.length);
    const readings: Reading[] = [];
    for (; this.at < end; this.at += 1) {
      const values = this.broken > 0 ? this.damaged(rows[this.at]!) : rows[this.at]!;
      this.broken = Math.max(0, this.broken - 1);
      const cells = Object.fromEntries(signals.map((name, column) => [name, values[column]]));
      readings.push({ timestamp: new Date(times[this.at]! + this.shiftMs), ...cells });
    }
    return readings;
  }

  skip(): void {
    // A recording waits.
  }

  breakDown(): void {
    this.broken = BROKEN_READINGS;
  }

  describe(): string {
    const { times, signals } = this.recording;
    if (this.broken > 0)
      return `A fault is happening: ${this.faulty().join(", ")} read far too high for ${this.broken} more readings.`;
    if (this.at === times.length)
      return "The recording has come to its end. Leave, and join with a new link, to replay it once more.";
    return `Reading ${this.at} of ${times.length} of a recording with ${signals.length} signals.`;
  }

  close(): void {
    // Nothing is held.
  }

  private faulty(): readonly string[] {
    return Array.from(this.failing.keys(), (column) => this.recording.signals[column]!);
  }

  private damaged(row: readonly number[]): readonly number[] {
    return row.map((value, column) => this.failing.get(column) ?? value);
  }
}

/** Return what a sensor reads that fails: far outside of what it ever showed. */
function beyond(recording: Recording, column: number): number {
  let [least, largest] = [Infinity, -Infinity];
  for (const row of recording.rows) {
    const value = row[column]!;
    if (Number.isNaN(value)) continue;
    least = Math.min(least, value);
    largest = Math.max(largest, value);
  }
  // One that never showed anything fails by showing something.
  if (largest < least) return 1;
  return largest + Math.max(largest - least, Math.abs(largest) * 0.1, 1e-3);
}

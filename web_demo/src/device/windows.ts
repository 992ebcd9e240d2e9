/** Windows from readings: the contract's window rule applied to arrays. */
import type { WindowRule } from "./contract/window.ts";

/** Readings in the order of their times. */
export interface Readings {
  /** n times, UTC epoch milliseconds, strictly ascending. */
  readonly times: readonly number[];
  /** n * S values, NaN = missing. */
  readonly cells: Float32Array;
}

/** Some windows, as the model takes them. */
export interface Windows {
  /** count * W * S values, oldest slot first, NaN = missing. */
  readonly data: Float32Array<ArrayBuffer>;
  readonly count: number;
  readonly slots: number;
  readonly signals: number;
}

/**
 * Return which rows form the window of a reading: W row numbers, oldest slot first, -1 where a slot is empty.
 *
 * @param times - Strictly ascending.
 * @param row - The reading, which is in the newest slot whatever else fell into it.
 * @param rule - The window rule.
 */
export function windowRows(times: readonly number[], row: number, rule: WindowRule): Int32Array<ArrayBuffer> {
  const rows = new Int32Array(rule.slots).fill(-1);
  const newest = slotOf(times[row]!, rule);
  rows[rule.slots - 1] = row;
  for (let older = row - 1; older >= 0; older -= 1) {
    if (times[older + 1]! - times[older]! > rule.largestGapMs) break;
    const back = newest - slotOf(times[older]!, rule);
    if (back >= rule.slots) break;
    const place = rule.slots - 1 - back;
    // Backwards in time, the first reading met in a slot is the last that fell into it.
    if (rows[place] === -1) rows[place] = older;
  }
  return rows;
}

/** Return how many slots of a window hold a reading. */
export function filled(rows: Int32Array): number {
  return rows.reduce((count, row) => count + (row >= 0 ? 1 : 0), 0);
}

/**
 * Return the windows that row numbers describe.
 *
 * @param cells - n * S values.
 * @param windows - Row numbers from {@link windowRows}, one array a window.
 * @param slots - W.
 * @param signals - S.
 */
export function gather(cells: Float32Array, windows: readonly Int32Array[], slots: number, signals: number): Windows {
  const data = new Float32Array(windows.length * slots * signals).fill(NaN);
  windows.forEach((rows, window) => {
    rows.forEach((row, slot) => {
      if (row < 0) return;
      data.set(cells.subarray(row * signals, (row + 1) * signals), (window * slots + slot) * signals);
    });
  });
  return { data, count: windows.length, slots, signals };
}

/**
 * Return which readings later windows need: the first and the last of each of the newest W slots.
 *
 * The last one is what a window shows. The first one keeps the distance to the slot before exact, so that forgetting
 * the others never makes a gap look longer than it was.
 */
export function keptRows(times: readonly number[], rule: WindowRule): readonly number[] {
  const slots = times.map((time) => slotOf(time, rule));
  const oldest = (slots.at(-1) ?? 0) - rule.slots;
  return slots.flatMap((slot, row) => {
    const edge = slots[row - 1] !== slot || slots[row + 1] !== slot;
    return edge && slot > oldest ? [row] : [];
  });
}

/** Return some rows of readings. */
export function pick(readings: Readings, rows: readonly number[], signals: number): Readings {
  const cells = new Float32Array(rows.length * signals);
  rows.forEach((row, at) => cells.set(readings.cells.subarray(row * signals, (row + 1) * signals), at * signals));
  return { times: rows.map((row) => readings.times[row]!), cells };
}

/** Return readings followed by others. */
export function joined(before: Readings, after: Readings): Readings {
  const cells = new Float32Array(before.cells.length + after.cells.length);
  cells.set(before.cells);
  cells.set(after.cells, before.cells.length);
  return { times: [...before.times, ...after.times], cells };
}

function slotOf(timestampMs: number, rule: WindowRule): number {
  return Math.floor(timestampMs / rule.intervalMs);
}

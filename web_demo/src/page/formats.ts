/** How figures, times and ages are written. */

const NUMBER = new Intl.NumberFormat("en", { maximumSignificantDigits: 4 });
const COUNT = new Intl.NumberFormat("en");
const SHARE = new Intl.NumberFormat("en", { maximumSignificantDigits: 2 });
const CLOCK = new Intl.DateTimeFormat("en-GB", { timeStyle: "medium" });
const DAY = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short" });
const DAY_AND_CLOCK = new Intl.DateTimeFormat("en-GB", {
  day: "numeric",
  month: "short",
  hour: "2-digit",
  minute: "2-digit",
});
const MOMENT = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "medium" });

/** A measured value; missing ones are said to be missing. */
export const measured = (value: number | null): string =>
  value === null || Number.isNaN(value) ? "missing" : NUMBER.format(value);

/** A contribution: enough to rank signals by. */
export const share = (value: number): string => SHARE.format(value);

const SHORTEST_DAY_MS = 23 * 3_600_000; // where clocks are put forward

/** The marks of a time axis: times of day while they tell the marks apart, else days, in the zone of the person. */
export function axisTimes(marksMs: readonly number[]): string[] {
  const [first = 0, second = first] = marksMs;
  const spans = (marksMs.at(-1) ?? first) - first;
  const format = second - first >= SHORTEST_DAY_MS ? DAY : spans >= SHORTEST_DAY_MS ? DAY_AND_CLOCK : CLOCK;
  return marksMs.map((atMs) => format.format(atMs));
}

/** A whole number with its thousands. */
export const count = (value: number): string => COUNT.format(value);

/** A score in [0, 1]: enough digits to tell .9990 from .9999. */
export const score = (value: number): string => value.toFixed(4);

/** A time of the device's clock, in the zone of the person in front of it. */
export const moment = (atMs: number): string => MOMENT.format(atMs);

/** How long something took or is ago. */
export function duration(milliseconds: number): string {
  const seconds = Math.max(0, Math.round(milliseconds / 1000));
  const [size, name] =
    seconds < 120 ? [1, "s"] : seconds < 7200 ? [60, "min"] : seconds < 172_800 ? [3600, "h"] : [86_400, "days"];
  return `${Math.floor(seconds / Number(size))} ${name}`;
}

/** What the server says of a plot, in the `data-plot` attribute of a figure's drawing area. Times are Unix seconds. */
export interface PlotSpec {
  /** Start of each bucket, or the moment of each point; strictly increasing. */
  readonly x: readonly number[];
  /** Seconds that one bar covers; absent where points are moments. */
  readonly bucket?: number;
  readonly series: readonly SeriesSpec[];
  readonly y: ScaleSpec;
  /** Times worth a vertical line, such as the start of a stage. */
  readonly marks?: readonly Mark[];
}

/** One line or one row of bars; null where nothing was measured. */
export interface SeriesSpec {
  readonly label: string;
  readonly style: "bars" | "line" | "limit";
  readonly ink: "first" | "second" | "third" | "limit";
  readonly values: readonly (number | null)[];
}

/** How values are drawn: as they are, as a share in percent, or by nines (0.9, 0.99, 0.999 ... evenly spaced). */
export interface ScaleSpec {
  readonly kind: "linear" | "share" | "nines";
  readonly unit?: string;
}

/** A vertical line with its name. */
export interface Mark {
  readonly at: number;
  readonly label: string;
}

const MOST_NINES = 5;

/**
 * How many nines a score has, 0 to 5: .9 is 1, .999 is 3, 1 is 5.
 *
 * Anomaly scores of interest lie between .99 and 1, where a plain scale shows nothing; 5 is where the contract's
 * histogram ends.
 */
export function nines(score: number): number {
  return score >= 1 ? MOST_NINES : Math.min(MOST_NINES, -Math.log10(1 - score));
}

/** The value as the plot's scale places it. */
export function placed(value: number | null, scale: ScaleSpec): number | null {
  if (value === null) return null;
  return scale.kind === "nines" ? nines(value) : scale.kind === "share" ? 100 * value : value;
}

/** The label of a place on the scale, as an axis shows it. */
export function tickLabel(place: number, scale: ScaleSpec): string {
  if (scale.kind === "nines") return place >= MOST_NINES ? "1" : place === 0 ? "0" : `.${"9".repeat(place)}`;
  return compact(place) + (scale.kind === "share" ? " %" : scale.unit ? ` ${scale.unit}` : "");
}

/** A measured value in words, as the legend shows it. */
export function valueLabel(value: number | null, scale: ScaleSpec): string {
  if (value === null) return "none";
  if (scale.kind === "nines") return value.toFixed(5);
  if (scale.kind === "share") return `${(100 * value).toPrecision(3)} %`;
  return value.toLocaleString("en", { maximumSignificantDigits: 6 }) + (scale.unit ? ` ${scale.unit}` : "");
}

function compact(value: number): string {
  return value.toLocaleString("en", { notation: "compact", maximumSignificantDigits: 3 });
}

/** A moment in UTC, to the minute; days stand alone when a bar covers whole days. */
export function momentLabel(seconds: number, bucket?: number): string {
  const text = new Date(seconds * 1000).toISOString();
  return bucket !== undefined && bucket % 86_400 === 0 ? text.slice(0, 10) : `${text.slice(0, 10)} ${text.slice(11, 16)}`;
}

/** A place on an axis of times, in UTC: midnights by their day, the rest by the hour. */
export function timeLabel(seconds: number): string {
  const moment = new Date(seconds * 1000);
  if (seconds % 86_400 !== 0) return moment.toISOString().slice(11, 16);
  return moment.toLocaleDateString("en-GB", { day: "numeric", month: "short", timeZone: "UTC" });
}

/**
 * Read a plot's attribute.
 *
 * @throws SyntaxError when it is no JSON; the server wrote it, so that is a bug.
 */
export function readSpec(text: string): PlotSpec {
  return JSON.parse(text) as PlotSpec;
}

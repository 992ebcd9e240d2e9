import uPlot from "uplot";
import { momentLabel, placed, tickLabel, timeLabel, valueLabel, type PlotSpec, type SeriesSpec } from "./plot_spec.ts";

const HEIGHT = 190;
const FONT = "12px system-ui, sans-serif";

type Ink = (name: string) => string;

/** The colours of the style sheet, read when they are needed: they follow the system's light or dark. */
function inkOf(element: Element): Ink {
  const style = getComputedStyle(element);
  return (name) => style.getPropertyValue(`--${name}`).trim();
}

/** A plot in a figure, drawn again when its place or the colours change. */
export class Plot {
  readonly #place: HTMLElement;
  readonly #spec: PlotSpec;
  readonly #told: HTMLElement;
  #drawing: uPlot;

  /**
   * @param place - The element with the `data-plot` attribute; what it holds is replaced.
   * @param spec - What to draw.
   */
  constructor(place: HTMLElement, spec: PlotSpec) {
    this.#place = place;
    this.#spec = spec;
    this.#told = document.createElement("p");
    this.#told.className = "sr";
    this.#told.setAttribute("aria-live", "polite");
    this.#drawing = this.#draw();
    place.after(this.#told);
    place.tabIndex = 0;
    place.addEventListener("keydown", (event) => this.#step(event));
    new ResizeObserver(() => this.#drawing.setSize({ width: place.clientWidth, height: HEIGHT })).observe(place);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#again());
  }

  #draw(): uPlot {
    this.#place.replaceChildren();
    const drawn = this.#spec.series.map((series) => series.values.map((value) => placed(value, this.#spec.y)));
    const options = optionsOf(this.#spec, inkOf(this.#place), this.#place.clientWidth);
    const drawing = new uPlot(options, [this.#spec.x.slice(), ...drawn] as uPlot.AlignedData, this.#place);
    drawing.root.ariaHidden = "true"; // the figure's name, the spoken values and the table say it better
    return drawing;
  }

  #again(): void {
    this.#drawing.destroy();
    this.#drawing = this.#draw();
  }

  /** Move the cursor by the arrow keys, and say where it is. */
  #step(event: KeyboardEvent): void {
    const last = this.#spec.x.length - 1;
    const now = this.#drawing.cursor.idx;
    const to = { ArrowLeft: (now ?? last + 1) - 1, ArrowRight: (now ?? -1) + 1, Home: 0, End: last }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    const place = Math.max(0, Math.min(last, to));
    this.#drawing.setCursor({ left: this.#drawing.valToPos(this.#spec.x[place] ?? 0, "x"), top: 0 });
    this.#told.textContent = this.#words(place);
  }

  #words(place: number): string {
    const values = this.#spec.series.map(({ label, values }) => `${label} ${valueLabel(values[place] ?? null, this.#spec.y)}`);
    return `${momentLabel(this.#spec.x[place] ?? 0, this.#spec.bucket)}: ${values.join(", ")}`;
  }
}

function optionsOf(spec: PlotSpec, ink: Ink, width: number): uPlot.Options {
  return {
    width,
    height: HEIGHT,
    tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1000), "Etc/UTC"),
    scales: { x: { range: rangeOfTimes(spec) }, y: { range: rangeOfValues(spec) } },
    axes: axesOf(spec, ink),
    series: [
      { label: "UTC", value: (_plot, seconds) => (seconds === null ? "" : momentLabel(seconds, spec.bucket)) },
      ...spec.series.map((series) => seriesOf(series, spec, ink)),
    ],
    legend: { live: true },
    cursor: { drag: { x: true, y: false }, y: false },
    hooks: { draw: [(plot) => drawMarks(plot, spec, ink)] },
  };
}

function seriesOf(series: SeriesSpec, spec: PlotSpec, ink: Ink): uPlot.Series {
  const colour = ink(`plot-${series.ink}`);
  const shared: uPlot.Series = {
    label: series.label,
    stroke: colour,
    value: (_plot, _drawn, _series, place) => (place === null ? "" : valueLabel(series.values[place] ?? null, spec.y)),
  };
  if (series.style === "bars") {
    const paths = uPlot.paths.bars?.({ size: [0.84, 60], align: 1 });
    return { ...shared, fill: colour, width: 0, points: { show: false }, ...(paths ? { paths } : {}) };
  }
  if (series.style === "limit") return { ...shared, dash: [6, 4], width: 1.5, points: { show: false } };
  return { ...shared, width: 2, points: { show: spec.x.length < 40, size: 5 } };
}

function axesOf(spec: PlotSpec, ink: Ink): uPlot.Axis[] {
  const shared = { stroke: ink("soft"), font: FONT, grid: { stroke: ink("line"), width: 1 }, ticks: { show: false } };
  const labels: uPlot.Axis.DynamicValues = (_plot, places) => places.map((place) => tickLabel(place, spec.y));
  const whole = spec.y.kind === "nines" ? { splits: [0, 1, 2, 3, 4, 5] } : {};
  const times: uPlot.Axis.DynamicValues = (_plot, moments) => moments.map(timeLabel);
  return [
    { ...shared, grid: { show: false }, space: 70, values: times },
    { ...shared, ...whole, size: 62, values: labels },
  ];
}

/** Times from the first bucket to the end of the last; a single moment gets an hour around it. */
function rangeOfTimes(spec: PlotSpec): uPlot.Range.MinMax {
  const first = spec.x[0] ?? 0;
  const last = (spec.x.at(-1) ?? 0) + (spec.bucket ?? 0);
  return last > first ? [first, last] : [first - 1800, last + 1800];
}

/** Every scale begins at 0; nothing at all still shows an axis. */
function rangeOfValues(spec: PlotSpec): uPlot.Range.Function {
  if (spec.y.kind === "nines") return () => [0, 5];
  return (_plot, _least, most) => [0, most > 0 ? most * 1.08 : 1];
}

function drawMarks(plot: uPlot, spec: PlotSpec, ink: Ink): void {
  const { ctx, bbox } = plot;
  for (const mark of spec.marks ?? []) {
    const left = Math.round(plot.valToPos(mark.at, "x", true));
    if (left < bbox.left || left > bbox.left + bbox.width) continue;
    ctx.save();
    ctx.strokeStyle = ctx.fillStyle = ink("soft");
    ctx.lineWidth = devicePixelRatio;
    ctx.setLineDash([3 * devicePixelRatio, 3 * devicePixelRatio]);
    ctx.beginPath();
    ctx.moveTo(left, bbox.top);
    ctx.lineTo(left, bbox.top + bbox.height);
    ctx.stroke();
    ctx.font = `${11 * devicePixelRatio}px system-ui, sans-serif`;
    ctx.textBaseline = "top";
    ctx.fillText(mark.label, left + 4 * devicePixelRatio, bbox.top);
    ctx.restore();
  }
}

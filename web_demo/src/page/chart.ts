/** The live chart of the anomaly score: one line, the threshold, and a dot on each anomaly. */
import uPlot from "uplot";
import { byId } from "./dom.ts";
import { axisTimes, score } from "./formats.ts";

const SHOWN = 300;

/** One scored window. */
export interface Point {
  readonly timestampMs: number;
  readonly score: number;
  readonly isAnomaly: boolean;
}

/** Keeps the last windows and draws them, at most once a frame. */
export class ScoreChart {
  private points: Point[] = [];
  private threshold = NaN;
  private plot: uPlot | null = null;
  private frame = 0;

  constructor() {
    const place = byId("chart");
    new ResizeObserver(() => this.plot?.setSize(sizeOf(place))).observe(place);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.rebuild());
    this.rebuild();
  }

  /** The score from which a window is an anomaly. */
  setThreshold(threshold: number): void {
    this.threshold = threshold;
    this.draw();
  }

  /** Add scored windows, oldest first. */
  add(points: readonly Point[]): void {
    this.points = [...this.points, ...points].slice(-SHOWN);
    this.draw();
  }

  /** Forget the windows: another source speaks of another time. */
  clear(): void {
    this.points = [];
    this.draw();
  }

  private draw(): void {
    if (this.frame !== 0) return;
    this.frame = requestAnimationFrame(() => {
      this.frame = 0;
      this.plot?.setData(this.columns());
    });
  }

  private columns(): uPlot.AlignedData {
    return [
      this.points.map((point) => point.timestampMs / 1000),
      this.points.map((point) => point.score),
      this.points.map(() => this.threshold),
      this.points.map((point) => (point.isAnomaly ? point.score : null)),
    ];
  }

  /** Colours are read when a plot is made: the style sheet knows them, light and dark. */
  private rebuild(): void {
    this.plot?.destroy();
    const place = byId("chart");
    const style = getComputedStyle(document.documentElement);
    const colour = (name: string): string => style.getPropertyValue(name).trim();
    const axis = { stroke: colour("--soft"), grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false } };
    const options: uPlot.Options = {
      ...sizeOf(place),
      legend: { show: false },
      cursor: { show: false },
      scales: { y: { range: [0, 1.02] } },
      axes: [
        { ...axis, space: 90, size: 28, values: (_, ticks) => axisTimes(ticks.map((tick) => tick * 1000)) },
        { ...axis, size: 44, values: (_, ticks) => ticks.map(String) },
      ],
      series: [
        {},
        { stroke: colour("--ink"), width: 2, points: { show: false } },
        { stroke: colour("--limit"), width: 1.5, dash: [6, 5], points: { show: false } },
        { stroke: "transparent", points: { show: true, size: 8, fill: colour("--bad"), stroke: colour("--bad") } },
      ],
    };
    this.plot = new uPlot(options, this.columns(), place);
  }
}

/** Say in words what the chart shows, for those who do not see it. */
export function chartWords(point: Point, threshold: number): string {
  const side = point.isAnomaly ? "at or above" : "below";
  return `The latest window scored ${score(point.score)}, ${side} the threshold of ${score(threshold)}.`;
}

function sizeOf(place: HTMLElement): { width: number; height: number } {
  return { width: Math.max(200, place.clientWidth), height: Math.max(120, place.clientHeight) };
}

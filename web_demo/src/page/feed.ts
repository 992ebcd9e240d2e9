/** Takes readings from a source at its pace and has the device score them; one group at a time, in order. */
import type { Device } from "../device/device.ts";
import { StellaError } from "../device/errors.ts";
import type { Reading } from "../device/readings.ts";
import type { Verdict } from "../device/verdict.ts";
import type { Source } from "./sources/source.ts";

const TICK_MS = 1_000;
// At full speed: as many as the device stores in one transaction.
const GROUP = 200;

/** What was measured and what became of it. */
export interface Scored {
  readonly readings: readonly Reading[];
  readonly verdicts: readonly Verdict[];
}

/** What the feed tells the page. */
export interface FeedListener {
  scored(news: Scored): void;
  /** A StellaError, or a fault of the page itself. */
  failed(error: unknown): void;
}

/** Feeds one device. */
export class Feed {
  private readonly device: Device;
  private readonly listener: FeedListener;
  private source: Source | null = null;
  private perSecond = 1;
  private running = true;

  constructor(device: Device, listener: FeedListener) {
    this.device = device;
    this.listener = listener;
    this.schedule(0);
  }

  /** Measure something else from now on. */
  use(source: Source): void {
    this.source?.close();
    this.source = source;
  }

  /** @param perSecond - Readings a second, 0 for as many as there is time for; a source without a pace ignores it. */
  setSpeed(perSecond: number): void {
    this.perSecond = perSecond;
  }

  /** Go on, or stop measuring. */
  setRunning(running: boolean): void {
    this.running = running;
  }

  private schedule(delayMs: number): void {
    setTimeout(() => void this.turn(), delayMs);
  }

  private async turn(): Promise<void> {
    const started = performance.now();
    try {
      if (this.running && this.device.isActive) await this.step();
      else this.source?.skip();
    } finally {
      this.schedule(Math.max(0, this.pauseMs() - (performance.now() - started)));
    }
  }

  private pauseMs(): number {
    if (!this.running || this.source?.hasPace !== true || this.perSecond === 1) return TICK_MS;
    return this.perSecond === 0 ? 0 : TICK_MS / 10;
  }

  private groupSize(): number {
    if (this.source?.hasPace !== true || this.perSecond === 1) return 1;
    return this.perSecond === 0 ? GROUP : this.perSecond / 10;
  }

  private async step(): Promise<void> {
    try {
      const readings = this.source?.take(this.groupSize()) ?? [];
      if (readings.length > 0) this.listener.scored({ readings, verdicts: await this.device.score(readings) });
    } catch (error) {
      this.listener.failed(error);
      if (!(error instanceof StellaError)) throw error;
    }
  }
}

/** The device's errands: sync and upload, each when its time has come, whatever the network does. */
import { jittered, retryDelay } from "./backoff.ts";
import type { Device } from "./device.ts";
import { StellaError, TransportError } from "./errors.ts";

/** How often, in seconds. */
export interface Intervals {
  readonly syncSeconds: number;
  readonly uploadSeconds: number;
  /** Summaries close by themselves after their hour; the current hour is sent this often, not with every upload. */
  readonly summarySeconds: number;
}

/** As often as a person who watches a page expects. */
export const DEFAULT_INTERVALS: Intervals = { syncSeconds: 60, uploadSeconds: 30, summarySeconds: 900 };

/** One thing that is done at intervals, and sooner or later after a failure. */
export class Errand {
  private readonly intervalSeconds: number;
  private readonly draw: () => number;
  private failures = 0;

  /** @param draw - Uniform numbers in [0, 1). */
  constructor(intervalSeconds: number, draw: () => number) {
    this.intervalSeconds = intervalSeconds;
    this.draw = draw;
  }

  /** Return the seconds until the next regular time. */
  succeeded(): number {
    this.failures = 0;
    return jittered(this.intervalSeconds, this.draw());
  }

  /** Return the seconds until the next attempt. */
  failed(error: StellaError): number {
    this.failures += 1;
    const asked = error instanceof TransportError ? error.retryAfterSeconds : null;
    return retryDelay(this.failures, asked, this.draw());
  }
}

/** Sync and upload in a loop until stopped. */
export class Rounds {
  private readonly device: Device;
  private readonly intervals: Intervals;
  private readonly draw: () => number;
  private readonly timers = new Set<ReturnType<typeof setTimeout>>();
  private summariesAt: number;
  private stopped = false;

  /** @param draw - Uniform numbers in [0, 1). */
  constructor(device: Device, intervals: Intervals = DEFAULT_INTERVALS, draw: () => number = Math.random) {
    this.device = device;
    this.intervals = intervals;
    this.draw = draw;
    this.summariesAt = performance.now() + 1000 * intervals.summarySeconds;
  }

  /** Begin, both at once. */
  start(): void {
    this.loop("sync", new Errand(this.intervals.syncSeconds, this.draw), async () => this.sync());
    this.loop("upload", new Errand(this.intervals.uploadSeconds, this.draw), async () => this.upload());
  }

  /** End; what is under way comes to its end. */
  stop(): void {
    this.stopped = true;
    for (const timer of this.timers) clearTimeout(timer);
    this.timers.clear();
  }

  private loop(what: "sync" | "upload", errand: Errand, work: () => Promise<StellaError | null>): void {
    const next = (seconds: number): void => {
      if (this.stopped) return;
      const timer = setTimeout(() => {
        this.timers.delete(timer);
        void turn();
      }, seconds * 1000);
      this.timers.add(timer);
    };
    const turn = async (): Promise<void> => {
      const error = await work();
      if (error === null) return next(errand.succeeded());
      const retrySeconds = errand.failed(error);
      this.device.reportFailure({ what, error, retrySeconds });
      next(retrySeconds);
    };
    next(0);
  }

  private async sync(): Promise<StellaError | null> {
    return failureOf(async () => (await this.device.sync()).error);
  }

  private async upload(): Promise<StellaError | null> {
    const withSummaries = performance.now() >= this.summariesAt;
    return failureOf(async () => {
      await this.device.upload(withSummaries);
      if (withSummaries) this.summariesAt = performance.now() + 1000 * this.intervals.summarySeconds;
      return null;
    });
  }
}

async function failureOf(work: () => Promise<StellaError | null>): Promise<StellaError | null> {
  try {
    return await work();
  } catch (error) {
    if (!(error instanceof StellaError)) throw error;
    return error;
  }
}

/** The device's errands: sync and upload, each when its time has come, whatever the network does. */
import { jittered, retryDelay } from "./backoff.ts";
import type { Device } from "./device.ts";
import { StellaError, StorageError, TransportError } from "./errors.ts";

/** How often, in seconds. */
export interface Intervals {
  readonly syncSeconds: number;
  readonly uploadSeconds: number;
  /** Summaries close by themselves after their hour; the current hour is sent this often, not with every upload. */
  readonly summarySeconds: number;
}

/** As often as a person who watches a page expects. */
export const DEFAULT_INTERVALS: Intervals = { syncSeconds: 60, uploadSeconds: 30, summarySeconds: 900 };

/** When one thing is done that is done at intervals, and sooner or later after a failure. */
export class Errand {
  private readonly intervalSeconds: number;
  private readonly draw: () => number;
  private failures = 0;
  private unanswered = false;

  /** @param draw - Uniform numbers in [0, 1). */
  constructor(intervalSeconds: number, draw: () => number) {
    this.intervalSeconds = intervalSeconds;
    this.draw = draw;
  }

  /** Whether the last attempt failed because no answer came. */
  get isCutOff(): boolean {
    return this.unanswered;
  }

  /** Return the seconds until the next regular time. */
  succeeded(): number {
    this.failures = 0;
    this.unanswered = false;
    return jittered(this.intervalSeconds, this.draw());
  }

  /** Return the seconds until the next attempt. */
  failed(error: StellaError): number {
    if (isNotOurs(error)) return this.succeeded();
    this.failures += 1;
    this.unanswered = error instanceof TransportError && error.status === null;
    const asked = error instanceof TransportError ? error.retryAfterSeconds : null;
    return retryDelay(this.failures, asked, this.draw());
  }
}

/** Sync and upload in a loop until stopped. */
export class Rounds {
  private readonly device: Device;
  private readonly intervals: Intervals;
  private readonly loops: readonly Loop[];
  private readonly unsubscribe: (() => void)[] = [];
  private summariesAt: number;

  /** @param draw - Uniform numbers in [0, 1). */
  constructor(device: Device, intervals: Intervals = DEFAULT_INTERVALS, draw: () => number = Math.random) {
    this.device = device;
    this.intervals = intervals;
    this.summariesAt = performance.now() + 1000 * intervals.summarySeconds;
    this.loops = [
      new Loop(device, "sync", new Errand(intervals.syncSeconds, draw), async () => this.sync()),
      new Loop(device, "upload", new Errand(intervals.uploadSeconds, draw), async () => this.upload()),
    ];
  }

  /** Begin, both at once. */
  start(): void {
    this.unsubscribe.push(
      this.device.on("takenOver", () => this.hurry(this.loops)),
      this.device.on("synced", ({ error }) => error === null && this.networkWorks()),
      this.device.on("uploaded", () => this.networkWorks()),
    );
    for (const loop of this.loops) loop.schedule(0);
  }

  /** End; what is under way comes to its end. */
  stop(): void {
    for (const unsubscribe of this.unsubscribe.splice(0)) unsubscribe();
    for (const loop of this.loops) loop.stop();
  }

  /** An errand that got no answer need not wait any longer; one that the server sent away still must. */
  private networkWorks(): void {
    this.hurry(this.loops.filter(({ errand }) => errand.isCutOff));
  }

  private hurry(loops: readonly Loop[]): void {
    for (const loop of loops) loop.hurry();
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

/** One errand, done again and again. */
class Loop {
  readonly errand: Errand;
  private readonly device: Device;
  private readonly what: "sync" | "upload";
  private readonly work: () => Promise<StellaError | null>;
  private timer: ReturnType<typeof setTimeout> | null = null;
  private stopped = false;

  constructor(device: Device, what: "sync" | "upload", errand: Errand, work: () => Promise<StellaError | null>) {
    this.device = device;
    this.what = what;
    this.errand = errand;
    this.work = work;
  }

  schedule(seconds: number): void {
    if (this.stopped) return;
    this.timer = setTimeout(() => {
      this.timer = null;
      void this.turn();
    }, seconds * 1000);
  }

  /** Do it now; a turn that is under way goes on. Failures still count, until it succeeds. */
  hurry(): void {
    if (this.timer === null) return;
    clearTimeout(this.timer);
    this.schedule(0);
  }

  stop(): void {
    this.stopped = true;
    if (this.timer !== null) clearTimeout(this.timer);
  }

  private async turn(): Promise<void> {
    const error = await this.work();
    if (error === null) return this.schedule(this.errand.succeeded());
    const retrySeconds = this.errand.failed(error);
    this.device.reportFailure({ what: this.what, error, retrySeconds });
    this.schedule(retrySeconds);
  }
}

/** Nothing has failed: another tab does the work, or the device has yet to be enrolled. */
function isNotOurs(error: StellaError): boolean {
  return error instanceof StorageError && (error.reason === "other_tab" || error.reason === "not_enrolled");
}

async function failureOf(work: () => Promise<StellaError | null>): Promise<StellaError | null> {
  try {
    return await work();
  } catch (error) {
    if (!(error instanceof StellaError)) throw error;
    return error;
  }
}

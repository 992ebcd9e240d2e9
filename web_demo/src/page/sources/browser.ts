/**
 * This browser's own signals, once a second. `exporter simulate-browsers` makes the fleet that their model learns from.
 *
 * What a browser does not offer is missing (NaN), as it is for most simulated browsers, and the page says so.
 */
import type { Reading } from "../../device/readings.ts";
import type { Source } from "./source.ts";
import { Tally } from "./tally.ts";

/** Every signal, in the order of the model. */
export const BROWSER_SIGNALS = [
  "battery_level",
  "battery_charging",
  "network_round_trip",
  "network_downlink",
  "storage_used",
  "memory_used",
  "event_loop_delay",
  "event_loop_worst",
  "frame_rate",
  "motion",
] as const;

const MIB = 2 ** 20;
const TIMER_MS = 50;
const BREAK_MS = 20_000;
// A page that is held up for most of the time still answers a click now and then.
const HELD_MS = 260;
const BETWEEN_MS = 120;
// Rates of less than this are chance: a frame more or less is much of them.
const LEAST_SECONDS = 0.5;

// What the types of the DOM do not know, because not every browser has it.
interface Battery {
  readonly level: number;
  readonly charging: boolean;
}
interface Extras {
  readonly getBattery?: () => Promise<Battery>;
  readonly connection?: { readonly rtt?: number; readonly downlink?: number };
}
interface Heap {
  readonly memory?: { readonly usedJSHeapSize: number };
}

/** Measures the browser that the page runs in. */
export class BrowserSource implements Source {
  readonly name = "this browser";
  readonly hasPace = false;
  private readonly extras = navigator as Navigator & Extras;
  private battery: Battery | null = null;
  private storageShare = NaN;
  private readonly delays = new Tally();
  private readonly motions = new Tally();
  private frames = 0;
  private expectedAt: number | null = null;
  private latest: Readonly<Record<string, number>> = {};
  private takenAt = performance.now();
  private brokenUntil = 0;
  private readonly endings: (() => void)[] = [];

  constructor() {
    void this.extras.getBattery?.().then((battery) => (this.battery = battery));
    void this.measureStorage();
    const storage = setInterval(() => void this.measureStorage(), 30_000);
    this.endings.push(() => clearInterval(storage));
    this.measureLoop();
    this.measureFrames();
    const moved = ({ acceleration }: DeviceMotionEvent): void => {
      if (acceleration?.x == null) return;
      this.motions.add(Math.hypot(acceleration.x, acceleration.y ?? 0, acceleration.z ?? 0));
    };
    addEventListener("devicemotion", moved);
    this.endings.push(() => removeEventListener("devicemotion", moved));
    const seen = (): void => this.skip();
    document.addEventListener("visibilitychange", seen);
    this.endings.push(() => document.removeEventListener("visibilitychange", seen));
  }

  take(): readonly Reading[] {
    const now = performance.now();
    const seconds = (now - this.takenAt) / 1000;
    // A page in the background gets few timers and no frames: what they say then is nothing about the browser.
    const visible = document.visibilityState === "visible" && this.delays.count > 0 && seconds >= LEAST_SECONDS;
    const { rtt, downlink } = this.extras.connection ?? {};
    const heap = (performance as Performance & Heap).memory;
    this.latest = {
      battery_level: this.battery === null ? NaN : this.battery.level * 100,
      battery_charging: this.battery === null ? NaN : Number(this.battery.charging),
      network_round_trip: rtt ?? NaN,
      network_downlink: downlink ?? NaN,
      storage_used: this.storageShare,
      memory_used: heap === undefined ? NaN : heap.usedJSHeapSize / MIB,
      event_loop_delay: visible ? this.delays.mean : NaN,
      event_loop_worst: visible ? this.delays.most : NaN,
      frame_rate: visible ? this.frames / seconds : NaN,
      motion: this.motions.mean,
    };
    this.startOver(now);
    return [{ timestamp: new Date(), ...this.latest }];
  }

  skip(): void {
    this.startOver(performance.now());
    // The timer that is under way may have been slowed down in the background.
    this.expectedAt = null;
  }

  breakDown(): void {
    this.brokenUntil = performance.now() + BREAK_MS;
    this.holdUp();
  }

  describe(): string {
    const left = this.brokenUntil - performance.now();
    if (left > 0) return `A fault is happening: this page is held up on purpose for ${Math.ceil(left / 1000)} s more.`;
    const missing = BROWSER_SIGNALS.filter((name) => Number.isNaN(this.latest[name] ?? NaN));
    const words = missing.map((name) => name.replaceAll("_", " ")).join(", ");
    return missing.length === 0
      ? "This browser offers every signal."
      : `Not offered by this browser, so missing: ${words}.`;
  }

  close(): void {
    this.brokenUntil = 0;
    for (const end of this.endings) end();
  }

  private startOver(now: number): void {
    this.takenAt = now;
    this.delays.clear();
    this.motions.clear();
    this.frames = 0;
  }

  /** How late timers are is how long the page could not answer. */
  private measureLoop(): void {
    const timer = setInterval(() => {
      const now = performance.now();
      if (this.expectedAt !== null) this.delays.add(Math.max(0, now - this.expectedAt));
      this.expectedAt = now + TIMER_MS;
    }, TIMER_MS);
    this.endings.push(() => clearInterval(timer));
  }

  private measureFrames(): void {
    let wanted = true;
    const frame = (): void => {
      this.frames += 1;
      if (wanted) requestAnimationFrame(frame);
    };
    requestAnimationFrame(frame);
    this.endings.push(() => (wanted = false));
  }

  private async measureStorage(): Promise<void> {
    try {
      const { usage, quota } = (await navigator.storage?.estimate()) ?? {};
      this.storageShare = usage === undefined || quota === undefined || quota === 0 ? NaN : (100 * usage) / quota;
    } catch (error) {
      // Some private windows refuse the question.
      if (!(error instanceof Error)) throw error;
      this.storageShare = NaN;
    }
  }

  /** The fault is real: the page computes nothing of use and answers nobody meanwhile. */
  private holdUp(): void {
    const until = performance.now() + HELD_MS;
    while (performance.now() < until);
    if (performance.now() < this.brokenUntil) setTimeout(() => this.holdUp(), BETWEEN_MS);
  }
}

/**
 * One tab is the device: whoever holds the lock. The others wait, say so, and take over when the first closes.
 *
 * The browser gives the lock back when a tab closes, crashes or is killed.
 */
import type { Locks } from "./platform.ts";

/** The claim of one tab. */
export class Leadership {
  private readonly locks: Locks;
  private readonly name: string;
  private readonly giveUp = new AbortController();
  private release: () => void = () => undefined;
  private holding = false;

  constructor(locks: Locks, name: string) {
    this.locks = locks;
    this.name = name;
  }

  /** Whether this tab is the device. */
  get isHeld(): boolean {
    return this.holding;
  }

  /**
   * Ask for the lock.
   *
   * @param onTaken - Called when it comes later, because another tab has closed.
   * @returns Whether this tab has it at once.
   */
  async claim(onTaken: () => void): Promise<boolean> {
    if (await this.request({ ifAvailable: true })) return true;
    void this.request({ signal: this.giveUp.signal }).then((taken) => {
      if (taken) onTaken();
    });
    return false;
  }

  /** Give the lock back, or stop waiting for it. */
  resign(): void {
    this.holding = false;
    this.giveUp.abort();
    this.release();
  }

  /** Resolves once it is known whether the lock is ours, while the lock itself stays held. */
  private async request(options: { readonly ifAvailable?: boolean; readonly signal?: AbortSignal }): Promise<boolean> {
    return new Promise((resolve, reject) => {
      const held = async (lock: object | null): Promise<void> => {
        this.holding = lock !== null;
        resolve(this.holding);
        if (lock !== null) await new Promise<void>((release) => (this.release = release));
      };
      this.locks.request(this.name, options, held).catch((error: unknown) => {
        // Waiting was given up.
        if (this.giveUp.signal.aborted) resolve(false);
        else reject(error instanceof Error ? error : new Error(String(error)));
      });
    });
  }
}

import type { Locks } from "../../../src/device/platform.ts";

/** `navigator.locks` of one imagined browser: several tabs may share it. */
export class FakeLocks implements Locks {
  private readonly held = new Set<string>();
  private readonly queue: { readonly name: string; readonly take: () => void }[] = [];

  async request(
    name: string,
    options: { readonly signal?: AbortSignal; readonly ifAvailable?: boolean },
    work: (lock: object | null) => Promise<void>,
  ): Promise<void> {
    if (this.held.has(name)) {
      if (options.ifAvailable === true) return work(null);
      await this.wait(name, options.signal);
    }
    this.held.add(name);
    try {
      await work({ name });
    } finally {
      this.held.delete(name);
      const next = this.queue.findIndex((waiting) => waiting.name === name);
      if (next >= 0) this.queue.splice(next, 1)[0]?.take();
    }
  }

  private async wait(name: string, signal: AbortSignal | undefined): Promise<void> {
    return new Promise((resolve, reject) => {
      this.queue.push({ name, take: resolve });
      signal?.addEventListener("abort", () => reject(new DOMException("given up", "AbortError")));
    });
  }
}

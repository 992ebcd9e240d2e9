/** A browser's device that is enrolled with a fake server, and another page's load of the same browser. */
import { IDBFactory } from "fake-indexeddb";
import { Device, type DeviceOptions } from "../../../src/device/device.ts";
import type { Platform } from "../../../src/device/platform.ts";
import { scene } from "./fixtures.ts";
import { FakeLocks } from "./locks.ts";
import { testPlatform } from "./platform.ts";
import { FakeServer } from "./server.ts";

/** One browser: its storage and locks outlive pages. */
export class Browser {
  readonly server: FakeServer;
  readonly line: string;
  readonly indexedDB = new IDBFactory();
  readonly locks = new FakeLocks();
  clockMs = Date.now();

  constructor(sceneName = "updates") {
    const found = scene(sceneName);
    this.server = new FakeServer(found);
    this.line = found.line;
  }

  /** Load a page. */
  async open(parts: Partial<Platform> = {}, options: Partial<DeviceOptions> = {}): Promise<Device> {
    const { indexedDB, locks } = this;
    const platform = testPlatform({ fetch: this.server.fetch, clock: () => this.clockMs, indexedDB, locks, ...parts });
    return Device.open(platform, options);
  }

  /** Load a page and enrol; with the first release active when asked. */
  async enrolled(options: Partial<DeviceOptions> & { readonly synced?: boolean } = {}): Promise<Device> {
    const { synced = true, ...chosen } = options;
    const device = await this.open({}, chosen);
    await device.enrol(this.line, { name: "A browser" });
    if (synced) await device.sync();
    return device;
  }

  /** Return readings, a minute apart, of which both signals have the same value. */
  readings(
    values: readonly number[],
    startMs = this.clockMs - 3_600_000,
  ): { timestamp: Date; heat: number; load: number }[] {
    return values.map((value, row) => ({ timestamp: new Date(startMs + 60_000 * row), heat: value, load: value }));
  }
}

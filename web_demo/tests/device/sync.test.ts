import { IDBObjectStore as FakeObjectStore } from "fake-indexeddb";
import { afterEach, describe, expect, test, vi } from "vitest";
import type { Device } from "../../src/device/device.ts";
import { Browser } from "./support/enrolled.ts";
import { endless, problem } from "./support/server.ts";

afterEach(() => vi.restoreAllMocks());

async function activeRelease(device: Device): Promise<number | undefined> {
  return (await device.bundle())?.manifest.releaseNumber;
}

/** Sync, expect a refusal or failure that changes nothing, and that the same news is stored once. */
async function fails(device: Device, reason: string, release: number | null = 2): Promise<string> {
  const before = await device.status();
  const report = await device.sync();
  expect(report.outcome).toMatchObject({ reason, release });
  expect(report.error?.advice).toMatch(/./);
  const after = await device.status();
  expect(after.pointer).toEqual(before.pointer);
  expect(await activeRelease(device)).toBe(1);
  const told = after.outbox.records - before.outbox.records;
  expect(told).toBe(reason === "download_failed" && release === null ? 0 : 1);
  await device.sync();
  expect((await device.status()).outbox.records).toBe(after.outbox.records);
  return String(report.error);
}

describe("a release", () => {
  test("is activated, stays, gives way to a newer one, and comes back without a download", async () => {
    const browser = new Browser();
    const device = await browser.enrolled({ synced: false });
    const first = await device.sync();
    expect(first.outcome).toMatchObject({ outcome: "activated", release: 1 });
    expect(first.downloadedBytes).toBeGreaterThan(0);
    expect((await device.sync()).outcome).toMatchObject({ outcome: "unchanged", release: 1 });
    browser.server.show("second");
    expect((await device.sync()).outcome).toMatchObject({ outcome: "activated", release: 2 });
    browser.server.show("rolled back");
    const asked = browser.server.asked(".bundle");
    expect((await device.sync()).outcome).toMatchObject({ outcome: "activated", release: 1 });
    expect(browser.server.asked(".bundle")).toBe(asked);
    browser.server.show("below the floor");
    expect((await device.sync()).outcome).toMatchObject({ outcome: "refused", reason: "below_floor" });
    expect(await activeRelease(device)).toBe(1);
  });

  test("that a page activated is used by the next page, and by scoring without losing readings", async () => {
    const browser = new Browser();
    const device = await browser.enrolled();
    const values = [0.1, 0.1, 0.1];
    await device.score(browser.readings(values));
    browser.server.show("second");
    await device.sync();
    const start = browser.clockMs - 3_600_000 + 3 * 60_000;
    const [next] = await device.score(browser.readings([0.1], start));
    // The window was full enough before the update: the readings from before still count.
    expect(next).toMatchObject({ outcome: "scored", score: { isAnomaly: false } });
    await device.close();
    const again = await browser.open();
    expect(await activeRelease(again)).toBe(2);
  });

  const reasons = [
    "golden_failed",
    "wrong_channel",
    "bad_signature",
    "bad_bundle",
    "newer_format",
    "newer_runtime",
    "wrong_model",
  ];
  test.each(reasons)("is refused: %s", async (reason) => {
    const browser = new Browser("offers");
    const device = await browser.enrolled();
    browser.server.show(reason);
    await fails(device, reason, reason === "wrong_model" ? null : 2);
  });

  test("is refused when it is not listed", async () => {
    const browser = new Browser("offers");
    const device = await browser.enrolled();
    browser.server.show("release_missing");
    await fails(device, "release_missing", 9);
  });

  test("that misses its makers' goals is refused where the owner wants so", async () => {
    const strict = new Browser("offers");
    const device = await strict.enrolled({ refuseBelowGoals: true });
    strict.server.show("below_goals");
    await fails(device, "below_goals");
    const lenient = new Browser("offers");
    const other = await lenient.enrolled();
    lenient.server.show("below_goals");
    expect((await other.sync()).outcome.outcome).toBe("activated");
  });
});

describe("what goes wrong on the way leaves the release before", () => {
  async function offered(): Promise<{ browser: Browser; device: Device }> {
    const browser = new Browser();
    const device = await browser.enrolled();
    browser.server.show("second");
    return { browser, device };
  }

  test("a server that is away", async () => {
    const { browser, device } = await offered();
    browser.server.fault = () => {
      throw new TypeError("fetch failed");
    };
    expect(await fails(device, "download_failed", null)).toMatch(/Check the network/);
  });

  test("a bundle with one byte changed, one that is longer, one that never ends", async () => {
    const { browser, device } = await offered();
    const { fetch } = browser.server;
    for (const change of [flipped, longer, async () => endless()]) {
      browser.server.fault = async (path) => {
        if (!path.endsWith(".bundle")) return null;
        browser.server.fault = () => null;
        return change(await fetch(browser.server.url + path, {}));
      };
      const report = await device.sync();
      expect(report.outcome).toMatchObject({ outcome: "refused", reason: "bad_digest" });
      expect(await activeRelease(device)).toBe(1);
    }
    expect((await device.sync()).outcome.outcome).toBe("activated");
  });

  test("a download that is refused once", async () => {
    const { browser, device } = await offered();
    browser.server.fault = (path) =>
      path.endsWith(".bundle") ? problem(503, "busy", "Busy.", { "Retry-After": "9" }) : null;
    const report = await device.sync();
    expect(report.error).toMatchObject({ status: 503, retryAfterSeconds: 9 });
    browser.server.fault = () => null;
    expect((await device.sync()).outcome.outcome).toBe("activated");
  });

  test("an expired timestamp that is replayed", async () => {
    const { browser, device } = await offered();
    browser.clockMs += 8 * 86_400_000;
    await fails(device, "metadata_expired", null);
    expect((await device.status()).stale).toBe(true);
  });

  test("a timestamp, after a root that revokes its key: the next page still knows the root", async () => {
    const browser = new Browser("rotations");
    const device = await browser.enrolled();
    browser.server.show("online");
    browser.server.fault = (path) => (path.endsWith("timestamp.json") ? problem(503, "busy", "Busy.") : null);
    expect((await device.sync()).error).toMatchObject({ status: 503 });
    await device.close();
    browser.server.fault = () => null;
    browser.server.show("first");
    const again = await browser.open();
    expect((await again.sync()).outcome).toMatchObject({ outcome: "refused", reason: "metadata_unsigned" });
    expect(await activeRelease(again)).toBe(1);
    browser.server.show("online");
    expect((await again.sync()).outcome.outcome).toBe("unchanged");
  });

  test("a browser that gives no room, and one that says so only while it writes", async () => {
    const { browser, device } = await offered();
    await device.close();
    const small = await browser.open({ freeBytes: async () => 1000 });
    await fails(small, "disk_full");
    await small.close();
    const again = await browser.open();
    const put = vi.spyOn(FakeObjectStore.prototype, "put").mockImplementation(function (this: IDBObjectStore, ...rest) {
      if (this.name === "bundles") throw new DOMException("no room", "QuotaExceededError");
      return original.apply(this, rest);
    });
    expect((await again.sync()).outcome).toMatchObject({ outcome: "failed", reason: "disk_full" });
    expect(await activeRelease(again)).toBe(1);
    put.mockRestore();
    expect((await again.sync()).outcome.outcome).toBe("activated");
  });

  test("bytes that were changed in the browser's storage are noticed, and fetched again", async () => {
    const browser = new Browser();
    const device = await browser.enrolled();
    const digest = (await device.bundle())!.digest;
    await device.close();
    await change(browser, digest);
    const again = await browser.open();
    await expect(again.bundle()).rejects.toMatchObject({ reason: "slot_damaged" });
    expect((await again.sync()).outcome).toMatchObject({ outcome: "activated", release: 1 });
    expect((await again.bundle())?.digest).toBe(digest);
  });
});

const original = FakeObjectStore.prototype.put;

async function flipped(answer: Response): Promise<Response> {
  const data = new Uint8Array(await answer.arrayBuffer());
  data[data.length >> 1]! ^= 1;
  return new Response(data);
}

async function longer(answer: Response): Promise<Response> {
  return new Response(new Uint8Array((await answer.arrayBuffer()).byteLength + 1));
}

/** Change one byte of a stored bundle behind the device's back. */
async function change(browser: Browser, digest: string): Promise<void> {
  const db = await settled(browser.indexedDB.open("stella-edge"));
  const store = db.transaction("bundles", "readwrite").objectStore("bundles");
  const bundle = (await settled(store.get(digest))) as { files: Map<string, Uint8Array> };
  bundle.files.get("model.onnx")![0]! ^= 1;
  await settled(store.put(bundle));
  db.close();
}

async function settled<T>(request: IDBRequest<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error as Error);
  });
}

import { IDBFactory, IDBObjectStore as FakeObjectStore } from "fake-indexeddb";
import { afterEach, describe, expect, test, vi } from "vitest";
import { openBundle } from "../../src/device/contract/bundle.ts";
import { BundleStore } from "../../src/device/store/bundles.ts";
import { Database } from "../../src/device/store/database.ts";
import { ONLY } from "../../src/device/store/schema.ts";
import { Browser } from "./support/enrolled.ts";
import { golden } from "./support/fixtures.ts";

afterEach(() => vi.restoreAllMocks());

const put = FakeObjectStore.prototype.put;

/** Let writes to one store fail as a browser lets them fail. */
function failing(store: string, name: string): void {
  vi.spyOn(FakeObjectStore.prototype, "put").mockImplementation(function (this: IDBObjectStore, ...rest) {
    if (this.name === store) throw new DOMException("no", name);
    return put.apply(this, rest);
  });
}

describe("a transaction", () => {
  test("writes all of it or nothing", async () => {
    const database = await Database.open("store", new IDBFactory());
    const broken = database.write(["installation", "counters"], async (tx) => {
      await tx.put("installation", "one", ONLY);
      await tx.put("counters", new Map([["a", 1]]), ONLY);
      throw new RangeError("a bug");
    });
    await expect(broken).rejects.toThrow(RangeError);
    const read = await database.read(["installation", "counters"], async (tx) => [
      await tx.get("installation", ONLY),
      await tx.get("counters", ONLY),
    ]);
    expect(read).toEqual([null, null]);
    await database.write(["installation"], (tx) => tx.put("installation", "two", ONLY));
    expect(await database.read(["installation"], (tx) => tx.get("installation", ONLY))).toBe("two");
  });

  test.each([
    ["QuotaExceededError", "disk_full"],
    ["UnknownError", "storage_failed"],
  ])("that fails with %s says so", async (name, reason) => {
    const database = await Database.open("store", new IDBFactory());
    failing("installation", name);
    const write = database.write(["installation"], (tx) => tx.put("installation", "one", ONLY));
    await expect(write).rejects.toMatchObject({
      code: "storage",
      reason,
      advice: expect.stringMatching(/./) as unknown,
    });
  });

  test("after the database was closed is an error with a sentence", async () => {
    const database = await Database.open("store", new IDBFactory());
    database.close();
    await expect(database.read(["installation"], (tx) => tx.get("installation", ONLY))).rejects.toMatchObject({
      reason: "storage_failed",
    });
  });

  test("values come back after the database is opened again", async () => {
    const factory = new IDBFactory();
    const first = await Database.open("store", factory);
    await first.write(["installation"], (tx) => tx.put("installation", "one", ONLY));
    first.close();
    const second = await Database.open("store", factory);
    expect(await second.read(["installation"], (tx) => tx.get("installation", ONLY))).toBe("one");
  });
});

describe("bundles", () => {
  test("a tab that dies between the bytes and the pointer leaves the bundle before, and no bytes", async () => {
    const database = await Database.open("store", new IDBFactory());
    const store = new BundleStore(database);
    expect(await store.active()).toBeNull();
    failing("pointer", "AbortError");
    const bundle = await openBundle(golden("fridge.bundle"));
    await expect(store.install(bundle)).rejects.toMatchObject({ code: "storage" });
    vi.restoreAllMocks();
    expect(await store.pointer()).toBeNull();
    expect(await database.read(["bundles"], (tx) => tx.count("bundles"))).toBe(0);
    await store.install(bundle);
    expect((await store.active())?.digest).toBe(bundle.digest);
  });

  test("two are kept, the active one and the one before", async () => {
    const database = await Database.open("store", new IDBFactory());
    const store = new BundleStore(database);
    const bundle = await openBundle(golden("fridge.bundle"));
    for (const digest of ["1", "2", "3"]) await store.install({ ...bundle, digest });
    const pointer = await store.pointer();
    expect([pointer?.active.digest, pointer?.previous?.digest]).toEqual(["3", "2"]);
    expect(await database.read(["bundles"], (tx) => tx.keys("bundles"))).toEqual(["2", "3"]);
    await store.install({ ...bundle, digest: "3" });
    expect((await store.pointer())?.previous?.digest).toBe("2");
    await store.activate(pointer!.previous!);
    expect((await store.active())?.digest).toBe("2");
  });
});

test("scoring into full storage stores nothing of the group, and the readings may be given again", async () => {
  const browser = new Browser();
  const device = await browser.enrolled();
  failing("scoring", "QuotaExceededError");
  const readings = browser.readings([0.1, 0.1, 9]);
  await expect(device.score(readings)).rejects.toMatchObject({ reason: "disk_full" });
  vi.restoreAllMocks();
  expect((await device.status()).counters.size).toBe(0);
  const verdicts = await device.score(readings);
  expect(verdicts.map(({ outcome }) => outcome)).toEqual(["warming_up", "scored", "scored"]);
});

test("enrolment into full storage leaves a browser that is no device", async () => {
  const browser = new Browser();
  const device = await browser.open();
  failing("identity", "QuotaExceededError");
  await expect(device.enrol(browser.line)).rejects.toMatchObject({ reason: "disk_full" });
  vi.restoreAllMocks();
  await expect(device.sync()).rejects.toMatchObject({ reason: "not_enrolled" });
  await device.enrol(browser.line);
  expect((await device.sync()).outcome.outcome).toBe("activated");
});

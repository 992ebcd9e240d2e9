import { afterEach, describe, expect, test, vi } from "vitest";
import { Device } from "../../src/device/device.ts";
import type { DeviceEvents } from "../../src/device/events.ts";
import { checkPlatform } from "../../src/device/platform.ts";
import { Errand, Rounds } from "../../src/device/rounds.ts";
import { ScoringError, StorageError, TransportError } from "../../src/device/errors.ts";
import { Browser } from "./support/enrolled.ts";
import { testPlatform } from "./support/platform.ts";
import { problem } from "./support/server.ts";

afterEach(() => {
  vi.unstubAllGlobals();
  vi.useRealTimers();
});

describe("enrolment", () => {
  test("makes a demo device, the same one when it is asked again", async () => {
    const browser = new Browser();
    const device = await browser.enrolled({ synced: false });
    const { body } = browser.server.seen.find(({ path }) => path === "/api/devices")!.init;
    expect(JSON.parse(new TextDecoder().decode(body as Uint8Array))).toMatchObject({
      kind: "demo",
      name: "A browser",
      cohort: null,
    });
    await device.enrol(browser.line);
    const bodies = browser.server.seen
      .filter(({ path }) => path === "/api/devices")
      .map(({ init }) => init.body as Uint8Array);
    const ids = bodies.map(
      (data) => (JSON.parse(new TextDecoder().decode(data)) as { installation_id: string }).installation_id,
    );
    expect(ids[0]).toMatch(/^[0-9a-f]{32}$/);
    expect(ids[1]).toBe(ids[0]);
    const { identity } = await device.status();
    expect(identity).toMatchObject({
      deviceId: "device-1",
      model: "pumps",
      channel: "stable",
      serverUrl: browser.server.url,
    });
    expect(identity).not.toHaveProperty("token");
  });

  test("under the same root does not forget the versions that were seen", async () => {
    const browser = new Browser();
    const device = await browser.enrolled();
    browser.server.show("second");
    await device.sync();
    await device.enrol(browser.line);
    browser.server.show("first");
    expect((await device.sync()).outcome).toMatchObject({ outcome: "refused", reason: "metadata_rollback" });
  });

  test.each([
    ["another root", (line: string) => line.replace(/[0-9a-f]{64}/, "0".repeat(64)), { reason: "wrong_root" }],
    [
      "a token that was revoked",
      (line: string) => line.replace(/:[^:]+(?=:[0-9a-f]{64})/, ":0123456789abcdef"),
      { status: 401 },
    ],
    ["no line at all", () => "hello", { code: "contract" }],
    ["a server on plain http", (line: string) => line.replace("https://", "http://"), { reason: "insecure_http" }],
  ])("is refused with %s, and nothing is stored", async (_, change, expected) => {
    const browser = new Browser();
    const device = await browser.open();
    await expect(device.enrol(change(browser.line))).rejects.toMatchObject(expected);
    expect((await device.status()).identity).toBeNull();
    await expect(device.sync()).rejects.toMatchObject({ reason: "not_enrolled" });
    await device.enrol(browser.line);
  });

  test("with another server is refused", async () => {
    const device = await new Browser().enrolled({ synced: false });
    const other = new Browser().line.replace("fleet.example", "other.example");
    await expect(device.enrol(other)).rejects.toMatchObject({ reason: "already_enrolled" });
  });

  test.each(["", "x".repeat(121), "a\u0007b"])("refuses the name %j", async (name) => {
    await expect((await new Browser().open()).enrol(new Browser().line, { name })).rejects.toMatchObject({
      code: "input",
    });
  });

  test("takes nothing from an answer that it does not understand", async () => {
    const browser = new Browser();
    const device = await browser.open();
    browser.server.fault = (path) =>
      path === "/api/devices" ? Response.json({ device_id: "d" }, { status: 201 }) : null;
    await expect(device.enrol(browser.line)).rejects.toThrow("does not understand");
    browser.server.fault = (path) => (path === "/api/devices" ? new Response("<html>") : null);
    await expect(device.enrol(browser.line)).rejects.toThrow("web page");
    expect((await device.status()).identity).toBeNull();
  });
});

describe("a day", () => {
  test("offline and back: every record arrives once", async () => {
    const browser = new Browser();
    let device = await browser.enrolled();
    browser.server.fault = () => {
      throw new TypeError("fetch failed");
    };
    await device.close();
    device = await browser.open();
    const verdicts = await device.score(browser.readings([0.1, 0.1, 0.1, 9, 9, 0.1, 0.1, 0.1, 0.1]));
    expect(verdicts.map(({ outcome }) => outcome)).toEqual([
      "warming_up",
      ...Array.from({ length: 8 }, () => "scored"),
    ]);
    expect(verdicts.filter(({ score }) => score?.isAnomaly)).not.toHaveLength(0);
    await expect(device.upload()).rejects.toBeInstanceOf(TransportError);
    const waiting = (await device.status()).outbox.records;
    expect(waiting).toBeGreaterThan(0);
    browser.server.fault = () => null;
    const report = await device.upload();
    expect(report.refused).toBe(0);
    expect((await device.status()).outbox).toMatchObject({ records: 0, bytes: 0, oldestMs: null });
    const sequences = browser.server.batches.flatMap((batch) =>
      Object.values(batch).flatMap((table) =>
        typeof table === "object" ? (table as { sequence: number[] }).sequence : [],
      ),
    );
    expect(sequences.sort((one, other) => one - other)).toEqual(
      Array.from({ length: report.acknowledged }, (_, index) => index + 1),
    );
    expect(browser.server.statuses.at(-1)).toMatchObject({
      active: { release: 1 },
      outbox: { records: 0 },
      stale: false,
    });
  });

  test("tells what happens to whoever listens", async () => {
    const browser = new Browser();
    const device = await browser.open();
    const kinds: (keyof DeviceEvents)[] = ["synced", "downloading", "activated", "verdicts", "uploaded"];
    const heard: string[] = [];
    for (const kind of kinds) device.on(kind, () => heard.push(kind));
    const stop = device.on("verdicts", () => heard.push("never"));
    stop();
    await device.enrol(browser.line);
    await device.sync();
    await device.score(browser.readings([0.1]));
    await device.upload();
    expect([...new Set(heard)]).toEqual(["downloading", "synced", "activated", "verdicts", "uploaded"]);
  });

  test("a server that is silent holds no reading up", async () => {
    const browser = new Browser();
    const device = await browser.enrolled();
    let wake: () => void = () => undefined;
    const silence = new Promise<void>((resolve) => (wake = resolve));
    browser.server.fault = async () => silence.then(() => null);
    const syncing = device.sync();
    expect(await device.score(browser.readings([0.1, 0.1]))).toHaveLength(2);
    wake();
    expect((await syncing).outcome.outcome).toBe("unchanged");
  });

  test("a runtime that fails stops neither enrolment nor syncs nor uploads, nor the end", async () => {
    const broken = async (): Promise<never> => {
      throw new ScoringError("The scoring worker stopped: its script could not be loaded.", "run_failed");
    };
    const browser = new Browser();
    const device = await browser.open({ runtime: { version: broken, load: broken } });
    await device.enrol(browser.line);
    expect((await device.sync()).outcome).toMatchObject({ outcome: "refused", reason: "run_failed" });
    expect((await device.upload()).acknowledged).toBe(1);
    const { runtime } = browser.server.statuses.at(-1) as { readonly runtime: object };
    expect(Object.keys(runtime)).toEqual(["edge_runtime", "platform"]);
    await device.close();
    expect((await browser.open()).isActive).toBe(true);
  });

  test("a sync tells how far this clock is from the server's", async () => {
    const browser = new Browser();
    const device = await browser.enrolled();
    expect((await device.sync()).clockOffsetMs).toBeNull();
    browser.server.dateMs = Math.floor(browser.clockMs / 1000) * 1000 + 400 * 86_400_000;
    const offset = (await device.sync()).clockOffsetMs ?? 0;
    expect(Math.round(offset / 86_400_000)).toBe(400);
  });

  test("a device that is removed is gone, and the browser may become another one", async () => {
    const browser = new Browser();
    const device = await browser.enrolled();
    await device.remove();
    const again = await browser.open();
    expect(await again.status()).toMatchObject({ identity: null, pointer: null, outbox: { records: 0 } });
    await again.enrol(browser.line);
  });

  test("without a bundle there is no verdict", async () => {
    const device = await new Browser().enrolled({ synced: false });
    await expect(device.score([])).rejects.toMatchObject({ reason: "no_bundle" });
  });

  test.each([
    ["missing_timestamp", { timestamp: "" }],
    ["bad_timestamp", { timestamp: "yesterday" }],
    ["bad_timestamp", { timestamp: -1 }],
    ["text_in_number", { timestamp: 1, heat: "hot" }],
    ["infinity", { timestamp: 1, heat: Infinity }],
    ["infinity", { timestamp: 1, heat: 1e39 }],
  ])("a reading is refused: %s", async (reason, reading) => {
    const browser = new Browser();
    const device = await browser.enrolled();
    await expect(device.score([...browser.readings([0.1]), reading])).rejects.toMatchObject({
      reason,
      code: "unusable_reading",
    });
    expect((await device.status()).counters.size).toBe(0);
  });
});

describe("two tabs", () => {
  test("one is the device; the other says so, and takes over when the first closes", async () => {
    const browser = new Browser();
    const first = await browser.enrolled();
    const second = await browser.open();
    const taken = new Promise((resolve) => second.on("takenOver", resolve));
    expect([first.isActive, second.isActive]).toEqual([true, false]);
    await expect(second.score([])).rejects.toMatchObject({
      reason: "other_tab",
      message: "Another tab of this browser is the device.",
    });
    expect((await second.status()).role).toBe("standby");
    await first.close();
    await taken;
    expect(second.isActive).toBe(true);
    expect(await second.score(browser.readings([0.1]))).toHaveLength(1);
  });

  test("one that waits may close as well", async () => {
    const browser = new Browser();
    const first = await browser.enrolled();
    const second = await browser.open();
    await second.close();
    await first.close();
    expect((await browser.open()).isActive).toBe(true);
  });
});

describe("a browser that lacks something says so", () => {
  test("signatures on a plain http address", () => {
    vi.stubGlobal("crypto", { getRandomValues: () => undefined });
    expect(() => checkPlatform(testPlatform())).toThrow(
      expect.objectContaining({ reason: "webcrypto", message: expect.stringContaining("plain http") as unknown }),
    );
  });

  test("locks", () => {
    expect(() => checkPlatform(testPlatform({ locks: null }))).toThrow(
      expect.objectContaining({ code: "unsupported" }),
    );
  });

  test("compressed streams and WebAssembly", () => {
    vi.stubGlobal("DecompressionStream", undefined);
    expect(() => checkPlatform(testPlatform())).toThrow(expect.objectContaining({ reason: "streams" }));
    vi.unstubAllGlobals();
    vi.stubGlobal("WebAssembly", undefined);
    expect(() => checkPlatform(testPlatform())).toThrow(expect.objectContaining({ reason: "wasm_simd" }));
  });

  test("SIMD, and the active bundle stays", async () => {
    const browser = new Browser();
    const device = await browser.enrolled();
    browser.server.show("second");
    vi.spyOn(WebAssembly, "validate").mockReturnValue(false);
    const report = await device.sync();
    expect(report.outcome).toMatchObject({ outcome: "failed", reason: "unsupported" });
    expect(String(report.error)).toMatch(/WebAssembly with SIMD.*current version/);
    vi.restoreAllMocks();
    expect((await device.bundle())?.manifest.releaseNumber).toBe(1);
  });

  test("storage, refused in each of the ways that browsers have", async () => {
    const refusing = {
      open: () => {
        throw new DOMException("denied", "SecurityError");
      },
    } as unknown as IDBFactory;
    for (const indexedDB of [null, refusing]) {
      await expect(Device.open(testPlatform({ indexedDB }))).rejects.toMatchObject({
        reason: "storage_denied",
        message: expect.stringContaining("store anything") as unknown,
      });
    }
  });

  test("storage that is taken away while the page is open", async () => {
    const browser = new Browser();
    const device = await browser.enrolled();
    const lost = new Promise((resolve) => device.on("storageLost", resolve));
    browser.indexedDB.deleteDatabase("stella-edge");
    await lost;
    await expect(device.sync()).rejects.toMatchObject({ code: "storage" });
  });
});

describe("rounds", () => {
  test("an errand waits longer with each failure, and not before Retry-After", () => {
    const errand = new Errand(60, () => 0.5);
    const failure = new TransportError("x");
    expect([errand.failed(failure), errand.failed(failure), errand.failed(failure)]).toEqual([1, 2, 4]);
    expect(errand.failed(new TransportError("x", "", { retryAfterSeconds: 100 }))).toBe(105);
    expect(errand.succeeded()).toBe(60);
    expect(errand.failed(failure)).toBe(1);
  });

  test("what another tab does, or enrolment has to do first, is no failure", () => {
    const errand = new Errand(60, () => 0.5);
    for (const reason of ["other_tab", "not_enrolled"]) {
      for (let turn = 0; turn < 20; turn += 1) expect(errand.failed(new StorageError("x", reason))).toBe(60);
    }
    expect(errand.failed(new TransportError("x"))).toBe(1);
    expect(errand.failed(new StorageError("x", "disk_full"))).toBe(2);
  });

  test("a tab that takes over begins at once", async () => {
    const browser = new Browser();
    const first = await browser.enrolled();
    const second = await browser.open();
    const rounds = new Rounds(second, { syncSeconds: 9999, uploadSeconds: 9999, summarySeconds: 900 });
    const failed = new Set<string>();
    const bothFailed = new Promise<void>((resolve) =>
      second.on("failed", ({ what }) => failed.add(what).size === 2 && resolve()),
    );
    rounds.start();
    await bothFailed;
    await new Promise((resolve) => setTimeout(resolve)); // both wait for their next time
    const kinds = ["synced", "uploaded"] as const;
    const both = Promise.all(
      kinds.map(async (kind) => new Promise<void>((resolve) => second.on(kind, () => resolve()))),
    );
    await first.close();
    await both;
    rounds.stop();
    await second.close();
  });

  test("an errand that got no answer is done once the other got one; one that was sent away waits", async () => {
    const browser = new Browser();
    const device = await browser.enrolled();
    const rounds = new Rounds(device, { syncSeconds: 9999, uploadSeconds: 9999, summarySeconds: 900 }, () => 0.999);
    const stalled = new Promise<void>((resolve) => device.on("failed", ({ what }) => what === "upload" && resolve()));
    let tries = 0;
    browser.server.fault = (path) => {
      if (path !== "/api/device-status") return null;
      tries += 1;
      if (tries === 1) throw new TypeError("fetch failed");
      return problem(503, "busy", "Busy.", { "Retry-After": "9999" });
    };
    rounds.start();
    await stalled;
    await device.sync();
    await vi.waitFor(() => expect(tries).toBe(2));
    await device.sync();
    await device.sync();
    await new Promise((resolve) => setTimeout(resolve, 20));
    expect(tries).toBe(2);
    rounds.stop();
    await device.close();
  });

  test("sync and upload by themselves, tell failures, and stop", async () => {
    const browser = new Browser();
    const device = await browser.enrolled({ synced: false });
    const synced = new Promise((resolve) => device.on("synced", resolve));
    const uploaded = new Promise((resolve) => device.on("uploaded", resolve));
    const rounds = new Rounds(device, { syncSeconds: 0.01, uploadSeconds: 0.01, summarySeconds: 900 }, () => 0);
    rounds.start();
    await Promise.all([synced, uploaded]);
    browser.server.fault = () => problem(503, "busy", "Busy.", { "Retry-After": "1" });
    const failed = await new Promise<DeviceEvents["failed"]>((resolve) => device.on("failed", resolve));
    expect(failed).toMatchObject({ retrySeconds: 1, error: { status: 503 } });
    rounds.stop();
    await device.close();
  });
});

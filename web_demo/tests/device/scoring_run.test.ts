import { readFileSync } from "node:fs";
import { join } from "node:path";
import { IDBFactory } from "fake-indexeddb";
import { afterEach, beforeAll, describe, expect, inject, test, vi } from "vitest";
import type { AnyRecord, Contribution } from "../../src/device/contract/result.ts";
import { readManifest } from "../../src/device/contract/manifest.ts";
import { closeOpenSummaries, ReadingScorer } from "../../src/device/reading_scorer.ts";
import { parseReadings, type Reading } from "../../src/device/readings.ts";
import { ortRuntime } from "../../src/device/scoring/ort_runtime.ts";
import { WorkerHost } from "../../src/device/scoring/worker_host.ts";
import { workerRuntime, type Port } from "../../src/device/scoring/worker_client.ts";
import { Database } from "../../src/device/store/database.ts";
import type { ActiveBundle } from "../../src/device/store/bundles.ts";
import { ONLY } from "../../src/device/store/schema.ts";
import { Outbox } from "../../src/device/outbox/outbox.ts";
import type { Verdict } from "../../src/device/verdict.ts";
import { parityCases } from "./support/fixtures.ts";

interface Step {
  /** Which of the bundles scores. */
  readonly bundle: number;
  readonly clock_ms: number;
  readonly readings: readonly Reading[];
  readonly verdicts: readonly PythonVerdict[];
}

interface PythonVerdict {
  readonly timestamp: string;
  readonly outcome: string;
  readonly anomaly_score?: number;
  readonly raw_score?: number;
  readonly is_anomaly?: boolean;
  readonly incident_started_at?: string;
  readonly stored?: boolean;
  readonly contributions?: Readonly<Record<string, number>>;
}

interface Run {
  readonly bundles: readonly ActiveBundle[];
  readonly steps: readonly Step[];
  readonly records: readonly AnyRecord[];
}

function runOf(detector: string): Run {
  const text = readFileSync(join(inject("fixtures"), "parity", `${detector}-run.json`), "utf8");
  const { bundles, steps } = JSON.parse(text) as {
    readonly bundles: readonly { readonly digest: string; readonly precision: string }[];
    readonly steps: readonly (Step & { records?: AnyRecord[] })[];
  };
  const opened = bundles.map(({ digest, precision }): ActiveBundle => {
    const { file } = parityCases().find(({ name }) => name === `${detector}-${precision}`)!;
    const names = ["manifest.json", "model.onnx", "references.f32"];
    const files = new Map(names.map((name) => [name, file(name)]));
    return { digest, manifest: readManifest(file("manifest.json")), files };
  });
  return { bundles: opened, steps: steps.slice(0, -1), records: steps.at(-1)!.records! };
}

/** A worker's port whose other end is in this thread; messages are copied as a real one copies them. */
function loopback(): Port {
  const host = new WorkerHost(ortRuntime(null));
  const port: Port = {
    onmessage: null,
    onerror: null,
    terminate: () => undefined,
    postMessage: (message) => {
      void host
        .answer(structuredClone(message))
        .then((data) => port.onmessage?.({ data: structuredClone(data) } as MessageEvent));
    },
  };
  return port;
}

/** A database of a device whose metadata is fresh for ever. */
async function fresh(factory: IDBFactory): Promise<Database> {
  const database = await Database.open("run", factory);
  await database.write(["expiry"], (tx) => tx.put("expiry", Number.MAX_SAFE_INTEGER, ONLY));
  return database;
}

function namesOf(run: Run): readonly string[] {
  return run.bundles[0]!.manifest.signals.map((signal) => signal.name);
}

async function replayed(run: Run, reload: boolean): Promise<{ database: Database; verdicts: Verdict[][] }> {
  const factory = new IDBFactory();
  let database = await fresh(factory);
  const runtime = workerRuntime(loopback());
  let clock = 0;
  const load = async (which: number): Promise<ReadingScorer> =>
    ReadingScorer.load(run.bundles[which]!, { database, runtime, clock: () => clock, explain: "stored" });
  let scorer = await load(0);
  const verdicts: Verdict[][] = [];
  const names = namesOf(run);
  for (const step of run.steps) {
    clock = step.clock_ms;
    if (reload) {
      database.close();
      database = await Database.open("run", factory);
    }
    if (reload || scorer.bundle !== run.bundles[step.bundle]) {
      await scorer.close();
      scorer = await load(step.bundle);
    }
    verdicts.push([...(await scorer.score(parseReadings(step.readings, names), () => undefined))]);
  }
  return { database, verdicts };
}

/** A record without what depends on the machine: how long scoring took, and the last digits of scores. */
function comparable(item: AnyRecord): unknown {
  const fields = Object.entries(item.record).filter(([name]) => !name.startsWith("latency_") && name !== "detail");
  return Object.fromEntries(
    fields.map(([name, value]) => [name, name === "contributions" ? rounded(value as never) : round(value)]),
  );
}

function round(value: unknown): unknown {
  return typeof value === "number" && !Number.isInteger(value) ? value.toPrecision(5) : value;
}

/** Contributions above the last bit of a raw score; what lies below it is there on one machine and not on another. */
function counting(pairs: readonly Contribution[]): readonly Contribution[] {
  return pairs.filter(([, value]) => Math.abs(value) > 1e-6);
}

function rounded(pairs: readonly Contribution[]): unknown {
  return counting(pairs).map(([name, value]) => [name, value.toFixed(5)]);
}

describe.each(["isolation_forest", "autoencoder"])("a run of %s", (detector) => {
  let run: Run;
  let verdicts: Verdict[][];
  let records: readonly AnyRecord[];

  beforeAll(async () => {
    run = runOf(detector);
    const replay = await replayed(run, detector === "autoencoder");
    verdicts = replay.verdicts;
    records = (await new Outbox(replay.database).lease()).records;
  });

  test("has readings of every fate", () => {
    const outcomes = new Set(run.steps.flatMap((step) => step.verdicts.map(({ outcome }) => outcome)));
    expect([...outcomes].sort()).toEqual(["duplicate", "future", "late", "scored", "warming_up"]);
  });

  test("has an incident that another bundle cuts off", () => {
    const ended = run.records.filter((item) => item.table === "events" && item.record.name === "incident_ended");
    expect(new Set(ended.map(({ record }) => "bundle" in record && record.bundle)).size).toBe(2);
  });

  test("gives the verdicts that Python gives", () => {
    for (const [number, step] of run.steps.entries()) {
      const found = verdicts[number]!;
      expect(found.map(({ outcome }) => outcome)).toEqual(step.verdicts.map(({ outcome }) => outcome));
      for (const [row, expected] of step.verdicts.entries()) {
        const { score, timestampMs } = found[row]!;
        expect(timestampMs).toBe(Date.parse(expected.timestamp));
        if (expected.raw_score === undefined) {
          expect(score).toBeNull();
          continue;
        }
        expect(Math.abs(score!.rawScore - expected.raw_score)).toBeLessThanOrEqual(1e-6);
        expect([score!.isAnomaly, score!.stored]).toEqual([expected.is_anomaly, expected.stored ?? false]);
        const started = expected.incident_started_at;
        expect(score!.incidentStartedAtMs).toBe(started === undefined ? null : Date.parse(started));
        const contributions = counting(Object.entries(expected.contributions ?? {}));
        expect(counting(score!.contributions).map(([name]) => name)).toEqual(contributions.map(([name]) => name));
      }
    }
  });

  test("stores the records that Python stores, in the same order", () => {
    expect(records.map(({ table }) => table)).toEqual(run.records.map(({ table }) => table));
    expect(records.map(comparable)).toEqual(run.records.map(comparable));
  });
});

test("feeding the same readings again gives each result exactly once", async () => {
  const run = runOf("isolation_forest");
  const { database } = await replayed({ ...run, steps: run.steps.slice(0, 3) }, false);
  const before = (await new Outbox(database).state()).records;
  const runtime = ortRuntime(null);
  const clock = (): number => run.steps[2]!.clock_ms;
  const scorer = await ReadingScorer.load(run.bundles[0]!, {
    database,
    runtime,
    clock,
    explain: "stored",
  });
  const names = namesOf(run);
  for (const step of run.steps.slice(0, 3)) {
    const again = await scorer.score(parseReadings(step.readings, names), () => undefined);
    expect(again.every(({ outcome }) => outcome === "late" || outcome === "duplicate")).toBe(true);
  }
  expect((await new Outbox(database).state()).records).toBe(before);
});

test("somebody who closes the summaries while the model runs makes the group be judged again, not lost", async () => {
  const run = runOf("isolation_forest");
  const database = await Database.open("run", new IDBFactory());
  const own = ortRuntime(null);
  let disturbed = 0;
  const runtime = {
    version: async () => own.version(),
    load: async (model: Uint8Array<ArrayBuffer>) => {
      const scorer = await own.load(model);
      const score: typeof scorer.score = async (windows) => {
        if (disturbed++ === 1) expect(await closeOpenSummaries(database)).toBeGreaterThan(0);
        return scorer.score(windows);
      };
      return {
        score,
        rawScores: scorer.rawScores.bind(scorer),
        regimes: scorer.regimes.bind(scorer),
        close: scorer.close.bind(scorer),
      };
    },
  };
  const clock = (): number => run.steps[1]!.clock_ms;
  const scorer = await ReadingScorer.load(run.bundles[0]!, {
    database,
    runtime,
    clock,
    explain: "none",
  });
  const names = namesOf(run);
  for (const step of run.steps.slice(0, 2)) {
    const found = await scorer.score(parseReadings(step.readings, names), () => undefined);
    expect(found.map(({ outcome }) => outcome)).toEqual(step.verdicts.map(({ outcome }) => outcome));
  }
  expect(disturbed).toBe(3);
  const state = await database.read(["scoring"], (tx) => tx.get("scoring", ONLY));
  const newest = Math.max(...run.steps[1]!.verdicts.map(({ timestamp }) => Date.parse(timestamp)));
  expect(state?.readings.times.at(-1)).toBe(newest);
});

/** A worker that says nothing by itself. */
function silentPort(): Port & { readonly asked: number[]; ended: number } {
  const asked: number[] = [];
  const port = {
    onmessage: null,
    onerror: null,
    asked,
    ended: 0,
    postMessage: ({ id }: { readonly id: number }) => void asked.push(id),
    terminate: () => void (port.ended += 1),
  };
  return port;
}

function answer(port: Port, id: number, reply: string | number): void {
  port.onmessage!({ data: { id, reply } } as MessageEvent);
}

describe("a worker that is gone", () => {
  afterEach(() => vi.useRealTimers());

  test("because its script did not load fails what was asked and what is asked later", async () => {
    const port = silentPort();
    const runtime = workerRuntime(port);
    const waiting = runtime.version();
    port.onerror!({ message: "" } as ErrorEvent);
    const gone = { reason: "run_failed", message: expect.stringContaining("script could not be loaded") as unknown };
    await expect(waiting).rejects.toMatchObject(gone);
    await expect(runtime.version()).rejects.toMatchObject(gone);
    await expect(runtime.load(new Uint8Array(1))).rejects.toMatchObject(gone);
    expect(port.asked).toHaveLength(1);
    expect(port.ended).toBe(1);
  });

  test("without a word fails after a while, and its models need no closing", async () => {
    vi.useFakeTimers();
    const port = silentPort();
    const runtime = workerRuntime(port);
    const loading = runtime.load(new Uint8Array(1));
    answer(port, 1, 7);
    const scorer = await loading;
    const windows = { data: new Float32Array(4), count: 1, slots: 2, signals: 2 };
    const waiting = [scorer.score(windows), runtime.version()].map(async (asked) =>
      asked.catch((error: unknown) => String(error)),
    );
    await vi.advanceTimersByTimeAsync(3_600_000);
    for (const ended of await Promise.all(waiting)) expect(ended).toMatch(/stopped: it has not answered.*Reload/);
    await expect(scorer.score(windows)).rejects.toMatchObject({ reason: "run_failed" });
    await scorer.close();
    expect(port.ended).toBe(1);
    expect(vi.getTimerCount()).toBe(0);
  });

  test("is not one that takes its time: each question has its own, and a large batch has more", async () => {
    vi.useFakeTimers();
    const port = silentPort();
    const runtime = workerRuntime(port);
    const asked = [runtime.version(), runtime.version()];
    for (const id of [1, 2]) {
      await vi.advanceTimersByTimeAsync(100_000);
      answer(port, id, "1.0");
    }
    expect(await Promise.all(asked)).toEqual(["1.0", "1.0"]);
    const loading = runtime.load(new Uint8Array(1));
    answer(port, 3, 7);
    const windows = { data: new Float32Array(), count: 10_000, slots: 2, signals: 2 };
    const regimes = (await loading).regimes(windows);
    await vi.advanceTimersByTimeAsync(300_000);
    answer(port, 4, 0);
    expect(await regimes).toBe(0);
    await vi.advanceTimersByTimeAsync(3_600_000);
    expect(port.ended).toBe(0);
  });
});

test("an error crosses from the worker with its reason", async () => {
  const runtime = workerRuntime(loopback());
  expect(await runtime.version()).toMatch(/^1\./);
  await expect(runtime.load(new Uint8Array(8))).rejects.toMatchObject({ reason: "model_unloadable", code: "scoring" });
  const { file } = parityCases()[0]!;
  const scorer = await runtime.load(file("model.onnx"));
  const windows = { data: new Float32Array(4), count: 1, slots: 2, signals: 2 };
  await expect(scorer.score(windows)).rejects.toMatchObject({ reason: "model_shape" });
  await scorer.close();
  await expect(scorer.score(windows)).rejects.toMatchObject({ message: "The model was closed." });
});

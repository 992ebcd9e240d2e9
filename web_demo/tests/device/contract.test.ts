import { describe, expect, test } from "vitest";
import { encodeBatch, readAnswer } from "../../src/device/contract/batch.ts";
import { checkCustom, checkSigner, openBundle } from "../../src/device/contract/bundle.ts";
import { float32s, utf8 } from "../../src/device/contract/bytes.ts";
import { parseEnrolmentLine } from "../../src/device/contract/enrolment.ts";
import { goldenTensors, readGoldenSpec } from "../../src/device/contract/golden.ts";
import { BINS, binOf, EDGES } from "../../src/device/contract/histogram.ts";
import { parseObject, type JsonObject } from "../../src/device/contract/json.ts";
import { columnsOf, readManifest } from "../../src/device/contract/manifest.ts";
import { targetPath } from "../../src/device/contract/names.ts";
import { chooseTarget, floorOf, type TargetCustom } from "../../src/device/contract/release.ts";
import type { AnyRecord } from "../../src/device/contract/result.ts";
import { bucket, decide, readRollout, readRollouts } from "../../src/device/contract/rollout.ts";
import { judgeReading, readWindowRule } from "../../src/device/contract/window.ts";
import { windowRows } from "../../src/device/windows.ts";
import { golden, goldenJson } from "./support/fixtures.ts";

/**
 * The key that signs `tests/golden/fridge.bundle`: P-256 with the private number 0x5EED (tests/contract/goldens.py).
 */
const SIGNER =
  "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEXNTOzEJInpjtP/cUmAUfeA82SG1N" +
  "RNhn2ZgYV4Tn2lfu9xpA1qatET1Hu/MRC/EYXDrkYzF6sAZzBDq8vNQFSw==";

const json = (value: unknown): JsonObject => parseObject(utf8(JSON.stringify(value)), "The test");

describe("the golden files", () => {
  test.each(goldenJson<{ model: string; version: string; cohort: string | null; path: string }[]>("names.json"))(
    "names: $path",
    async ({ model, version, cohort, path }) => {
      expect(await targetPath(model, version, cohort)).toBe(path);
    },
  );

  test("histogram", () => {
    const { edges, cases } = goldenJson<{ edges: number[]; cases: { score: number; bin: number }[] }>("histogram.json");
    expect(EDGES).toEqual(edges);
    expect(cases.map(({ score }) => binOf(score))).toEqual(cases.map(({ bin }) => bin));
    for (const score of [-0.1, 1.1, NaN]) expect(() => binOf(score)).toThrow(RangeError);
  });

  const fates =
    goldenJson<{ timestamp_ms: number; highest_ms: number | null; clock_ms: number; fate: string }[]>("fates.json");
  test.each(fates)("fates: $fate of $timestamp_ms after $highest_ms at $clock_ms", (row) => {
    expect(judgeReading(row.timestamp_ms, row.highest_ms, row.clock_ms)).toBe(row.fate);
  });

  const windows =
    goldenJson<{ case: string; rule: object; timestamps_ms: number[]; indices: number[][] }[]>("windows.json");
  test.each(windows)("windows: $case", ({ rule, timestamps_ms, indices }) => {
    const read = readWindowRule(json(rule));
    expect(timestamps_ms.map((_, row) => [...windowRows(timestamps_ms, row, read)])).toEqual(indices);
  });

  interface RolloutCase {
    readonly case: string;
    readonly rollout: object | null;
    readonly device_id: string;
    readonly bucket: number;
    readonly cohort: string | null;
    readonly active_release: number | null;
    readonly release: number | null;
  }
  test.each(goldenJson<RolloutCase[]>("rollouts.json"))("rollouts: $case", async (row) => {
    const rollout = row.rollout === null ? null : readRollout(json(row.rollout));
    if (rollout !== null) expect(await bucket(rollout.salt, row.device_id)).toBe(row.bucket);
    const device = { deviceId: row.device_id, cohort: row.cohort, activeRelease: row.active_release };
    expect(await decide(rollout, device)).toBe(row.release);
  });

  test("manifest", () => {
    const manifest = readManifest(golden("manifest.json"));
    expect(manifest).toMatchObject({
      model: "fridge",
      version: "2026.1",
      releaseNumber: 7,
      cohort: "Kühl & Gefrier",
      precision: "fp32",
      incidentGap: 3,
      window: { slots: 2, intervalMs: 3_600_000, largestGapMs: 86_400_000, minimumReadings: 1 },
      threshold: { anomalyScore: 0.998, rawScore: 0.61, alarmsPerDeviceDay: 0.02 },
      references: 1,
    });
    expect(manifest.signals).toHaveLength(3);
    expect([columnsOf(manifest, "signal"), columnsOf(manifest, "context")]).toEqual([[0, 1], [2]]);
    expect(manifest.regimes?.means).toEqual([
      [4, 80],
      [6.5, 120],
    ]);
    expect(manifest.histogram).toHaveLength(BINS);
    expect(manifest.unrecognized).toEqual({ note: "a field of a later format is kept" });
  });

  test("golden windows", () => {
    const spec = readGoldenSpec(golden("golden.json"));
    expect(spec).toEqual({ windows: 2, slots: 2, signals: 3, rawTolerance: 1e-5 });
    const tensors = goldenTensors(spec, float32s(golden("golden.f32")));
    expect([...tensors.window]).toEqual([0, 1, 2, 3, NaN, 5, 6, 7, 8, 9, 10, 11]);
    expect([...tensors.isAnomaly]).toEqual([0, 1]);
    expect(tensors.rawScore[1]).toBeCloseTo(0.7, 6);
  });

  test("batch: the same records give the same bytes", () => {
    const bytes = golden("batch.json");
    const { stream, sent_at_ms, ...tables } = goldenJson<Record<string, never>>("batch.json");
    const records = Object.entries(tables).flatMap(([table, columns]) => {
      if (table === "format") return [];
      const fields = Object.entries<unknown[]>(columns);
      const rows = fields[0]![1].map((_, row) =>
        Object.fromEntries(fields.map(([name, column]) => [name, column[row]])),
      );
      return rows.map((record) => ({ table, record }) as unknown as AnyRecord);
    });
    expect(records).toHaveLength(4);
    expect(new TextDecoder().decode(encodeBatch(stream!, sent_at_ms!, records))).toBe(new TextDecoder().decode(bytes));
  });

  test("answer", () => {
    expect(readAnswer(parseObject(golden("answer.json"), "The answer"))).toEqual({
      stored: 3,
      held: [[1, 3]],
      refused: [{ sequence: 6, reason: "sequence_reused", detail: "another record" }],
    });
  });

  test("bundle: opens, and its signature verifies under the key of the contract's tests alone", async () => {
    const bundle = await openBundle(golden("fridge.bundle"));
    expect(bundle.manifest.cohort).toBe("Kühl & Gefrier");
    expect(bundle.digest).toMatch(/^[0-9a-f]{64}$/);
    await checkSigner(bundle, SIGNER);
    const other = (await crypto.subtle.generateKey({ name: "ECDSA", namedCurve: "P-256" }, true, [
      "sign",
    ])) as CryptoKeyPair;
    const der = Buffer.from(await crypto.subtle.exportKey("spki", other.publicKey)).toString("base64");
    await expect(checkSigner(bundle, der)).rejects.toMatchObject({ reason: "bad_signature" });
    await expect(checkSigner(bundle, "AAAA")).rejects.toMatchObject({ reason: "bad_key" });
  });
});

describe("readers refuse", () => {
  const broken: readonly (readonly [string, object])[] = [
    ["a missing field", { model: undefined }],
    [
      "1.5 as a number of slots",
      { window: { slots: 1.5, interval_seconds: 1, largest_gap_seconds: 1, minimum_readings: 1 } },
    ],
    [
      "a gap below the interval",
      { window: { slots: 1, interval_seconds: 2, largest_gap_seconds: 1, minimum_readings: 1 } },
    ],
    [
      "a part of a millisecond",
      { window: { slots: 1, interval_seconds: 0.0015, largest_gap_seconds: 1, minimum_readings: 1 } },
    ],
    ["true as a release number", { release_number: true }],
    ["regimes without context", { signals: [{ name: "a", unit: "", role: "signal" }] }],
    [
      "a signal twice",
      {
        regimes: null,
        signals: [
          { name: "a", role: "signal" },
          { name: "a", role: "signal" },
        ],
      },
    ],
    ["14 counts", { histogram: Array.from({ length: 14 }, () => 0) }],
    ["an unknown precision", { precision: "fp16" }],
    ["a control character", { cohort: "a\u0000" }],
    ["half a surrogate pair", { cohort: "\ud800" }],
    ["a digest that is none", { files: { "model.onnx": { sha256: "AB", size: 1 } } }],
  ];
  test.each(broken)("a manifest with %s", (_, change) => {
    const manifest = { ...goldenJson<object>("manifest.json"), ...change };
    expect(() => readManifest(utf8(JSON.stringify(manifest)))).toThrow(/Field|manifest/);
  });

  test("a manifest of a newer format, and says so", () => {
    const manifest = { ...goldenJson<object>("manifest.json"), format: 2 };
    expect(() => readManifest(utf8(JSON.stringify(manifest)))).toThrow(
      expect.objectContaining({ fields: expect.objectContaining({ newer_format: true }) as unknown }),
    );
  });

  test.each([
    ["", "not an enrolment"],
    ["stella-enroll:2:https://a.example:0123456789abcdef:" + "0".repeat(64) + ":1", "format 2"],
    ["stella-enroll:1:ftp://a.example:0123456789abcdef:" + "0".repeat(64) + ":1", "address"],
    ["stella-enroll:1:https://u@a.example:0123456789abcdef:" + "0".repeat(64) + ":1", "address"],
    ["stella-enroll:1:https://a.example?q:0123456789abcdef:" + "0".repeat(64) + ":1", "address"],
    ["stella-enroll:1:https://a.example:short:" + "0".repeat(64) + ":1", "not an enrolment"],
  ])("the line %s", (line, sentence) => {
    expect(() => parseEnrolmentLine(line)).toThrow(sentence);
  });

  test("nothing of a line that is right", () => {
    const line = `stella-enroll:1:https://a.example:8443/fleet/:0123456789abcdef:${"0".repeat(64)}:12\n`;
    expect(parseEnrolmentLine(line)).toEqual({
      url: "https://a.example:8443/fleet",
      token: "0123456789abcdef",
      rootDigest: "0".repeat(64),
      targetsVersion: 12,
    });
  });

  test.each([
    { stored: 1, held: [[2, 1]], refused: [] },
    { stored: 1, held: [[1]], refused: [] },
    { stored: 1, held: [[0, 1]], refused: [] },
    { stored: 1, held: [], refused: [[1, "bad"]] },
    { stored: "1", held: [], refused: [] },
    { held: [], refused: [] },
  ])("the answer %j", (answer) => {
    expect(() => readAnswer(json(answer))).toThrow(/Field/);
  });

  test("rollouts of too many channels, and of bad ones", () => {
    const entry = goldenJson<{ rollout: object | null }[]>("rollouts.json").find((row) => row.rollout)!.rollout!;
    const many = Object.fromEntries(Array.from({ length: 49 }, (_, number) => [`c${number}`, entry]));
    expect(() => readRollouts(json({ rollouts: many }))).toThrow("49 channels");
    expect(() => readRollouts(json({ rollouts: { stable: { ...entry, share: 10_001 } } }))).toThrow("share");
    expect(() => readRollouts(json({ rollouts: { stable: { ...entry, state: "stopped" } } }))).toThrow("state");
    expect(readRollouts(json({})).size).toBe(0);
  });
});

describe("the choice of a target", () => {
  const custom = (changes: Partial<TargetCustom>): TargetCustom => ({
    model: "pumps",
    version: "1",
    cohort: null,
    releaseNumber: 1,
    channels: ["stable"],
    sizeUnpacked: 1,
    signer: "",
    ...changes,
  });
  const targets = new Map([
    ["default", custom({})],
    ["cohort", custom({ cohort: "FD001" })],
    ["beta", custom({ releaseNumber: 2, channels: ["beta"] })],
    ["fridge", custom({ releaseNumber: 3, model: "fridge" })],
  ]);
  const wanted = { model: "pumps", channel: "stable", cohort: null, release: 1, floor: 0 };

  test("its cohort's, else the default one", () => {
    expect(chooseTarget(targets, { ...wanted, cohort: "FD001" })).toBe("cohort");
    expect(chooseTarget(targets, { ...wanted, cohort: "FD009" })).toBe("default");
    expect(chooseTarget(targets, wanted)).toBe("default");
  });

  test.each([
    ["below_floor", { floor: 2 }],
    ["wrong_channel", { release: 2 }],
    ["wrong_model", { release: 3 }],
    ["release_missing", { release: 4 }],
  ])("%s", (reason, change) => {
    expect(() => chooseTarget(targets, { ...wanted, ...change })).toThrow(expect.objectContaining({ reason }));
  });

  test("a bundle that is not what targets.json says", async () => {
    const bundle = await openBundle(golden("fridge.bundle"));
    expect(() => checkCustom(bundle, custom({ model: "fridge" }))).toThrow(
      expect.objectContaining({ reason: "bad_bundle" }),
    );
  });

  test("the floor", () => {
    expect(floorOf(json({ minimum_release: { pumps: 3 } }), "pumps")).toBe(3);
    expect(floorOf(json({ minimum_release: { pumps: 3 } }), "fridge")).toBe(0);
    expect(floorOf(json({}), "pumps")).toBe(0);
    expect(() => floorOf(json({ minimum_release: { pumps: -1 } }), "pumps")).toThrow("minimum_release");
  });
});

import { describe, expect, test } from "vitest";
import type { WindowRule } from "../../src/device/contract/window.ts";
import { moment, parseReadings } from "../../src/device/readings.ts";
import { shortest } from "../../src/device/turn.ts";
import { checkRuntime } from "../../src/device/versions.ts";
import { filled, gather, keptRows, windowRows } from "../../src/device/windows.ts";

const NOON = Date.UTC(2026, 10, 23, 12);

describe("times", () => {
  test.each([
    ["2026-11-23T12:00:00Z", NOON],
    ["2026-11-23T12:00:00", NOON],
    ["2026-11-23 12:00", NOON],
    ["2026-11-23T14:00:00+02:00", NOON],
    ["2026-11-23T14:00:00+0200", NOON],
    ["2026-11-23T10:30:00-01:30", NOON],
    ["2026-11-23T12:00:00.1239Z", NOON + 123],
    ["2026-11-23", NOON - 12 * 3_600_000],
    [NOON / 1000, NOON],
    [String(NOON / 1000), NOON],
    [1_700_000_000.123, 1_700_000_000_123],
    [new Date(NOON), NOON],
    [0, 0],
  ])("%s", (value, expected) => {
    expect(moment(value)).toBe(expected);
  });

  test.each(["", null, undefined, NaN])("%s is none", (value) => {
    expect(() => moment(value)).toThrow(expect.objectContaining({ reason: "missing_timestamp" }));
  });

  test.each([
    "noon",
    "2026-13-01",
    "2026-11-23T25:00:00Z",
    "1_000",
    -1,
    1e13,
    true,
    {},
    new Date(NaN),
    "9999999999999",
  ])("%s is no time", (value) => {
    expect(() => moment(value)).toThrow(expect.objectContaining({ reason: "bad_timestamp" }));
  });
});

test("cells: what is absent is missing, flags are numbers, other fields are left alone", () => {
  const readings = [
    { timestamp: 1, heat: true, load: null, note: "text" },
    { timestamp: 2, load: -0.5 },
  ];
  const { times, cells } = parseReadings(readings, ["heat", "load", "toString"]);
  expect(times).toEqual([1000, 2000]);
  expect([...cells]).toEqual([1, NaN, NaN, NaN, -0.5, NaN]);
});

test("the shortest decimal reads back as the same float32", () => {
  expect([0.1, 0.25, 1, 16_777_216, 3.4028235e38, 1e-45].map((value) => shortest(Math.fround(value)))).toEqual([
    0.1, 0.25, 1, 16_777_216, 3.4028235e38, 1e-45,
  ]);
  let seed = 1;
  for (let round = 0; round < 2000; round += 1) {
    seed = (seed * 48_271) % 2_147_483_647;
    const value = Math.fround(seed / 2_147_483_647);
    expect(Math.fround(shortest(value))).toBe(value);
    expect(String(shortest(value)).replace(/^0\.0*|e.*$/g, "").length).toBeLessThanOrEqual(9);
  }
});

test("forgetting readings that no later window shows changes no later window", () => {
  const rule: WindowRule = { slots: 4, intervalMs: 10, largestGapMs: 25, minimumReadings: 1 };
  let seed = 7;
  const draw = (below: number): number => (seed = (seed * 48_271) % 2_147_483_647) % below;
  const all: number[] = [];
  let kept: { readonly time: number; readonly row: number }[] = [];
  for (let row = 0; row < 500; row += 1) {
    all.push((all.at(-1) ?? 0) + 1 + draw(draw(4) === 0 ? 40 : 9));
    const now = [...kept, { time: all[row]!, row }];
    const times = now.map(({ time }) => time);
    const remembered = [...windowRows(times, times.length - 1, rule)].map((at) => (at < 0 ? -1 : now[at]!.row));
    expect(remembered).toEqual([...windowRows(all, row, rule)]);
    kept = keptRows(times, rule).map((at) => now[at]!);
    expect(kept.length).toBeLessThanOrEqual(2 * rule.slots);
  }
});

test("windows hold the readings of their rows, and nothing in an empty slot", () => {
  const rows = Int32Array.of(-1, 1, 0);
  const windows = gather(Float32Array.of(1, 2, 3, 4), [rows], 3, 2);
  expect([...windows.data]).toEqual([NaN, NaN, 3, 4, 1, 2]);
  expect(filled(rows)).toBe(2);
});

describe("a bound on the runtime", () => {
  test.each([
    [">=1.20", "1.30.0"],
    [">= 1.30", "1.30.0"],
    [">=0", "1.0"],
    [">=1.9", "1.10.0-dev"],
  ])("%s takes %s", (bound, version) => {
    checkRuntime(bound, version);
  });

  test.each([
    [">=1.31", "1.30.0"],
    [">=2", "1.30.0"],
    ["==1.30", "1.30.0"],
    [">=1.20", ""],
  ])("%s refuses %s", (bound, version) => {
    expect(() => checkRuntime(bound, version)).toThrow(expect.objectContaining({ reason: "newer_runtime" }));
  });
});

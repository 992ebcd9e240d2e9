import { expect, test } from "vitest";
import { InputError } from "../../src/device/errors.ts";
import type { Reading } from "../../src/device/readings.ts";
import { parseRecording, RecordingSource } from "../../src/page/sources/recording.ts";

const CSV =
  "timestamp,heat,load,other\n2026-11-08 01:00:00+00:00,1,2,9\n2026-11-08T02:00:00Z,,nan,9\n1794106800,3,4,9\n";
const NOW = Date.UTC(2027, 0, 1);

function values(readings: readonly Reading[], name: string): readonly unknown[] {
  return readings.map((reading) => reading[name]);
}

test("columns come in the model's order, missing ones and cells are NaN, others are left out", () => {
  const { times, rows } = parseRecording(CSV, ["load", "absent", "heat"]);
  expect(times).toEqual([0, 1, 2].map((hour) => Date.UTC(2026, 10, 8, 1 + hour)));
  expect(rows).toEqual([
    [2, NaN, 1],
    [NaN, NaN, NaN],
    [4, NaN, 3],
  ]);
});

test.each([
  ["hello", /needs a column 'timestamp'/],
  ["timestamp,other\n0,1", /needs a column 'timestamp'/],
  ["timestamp,heat\n0,warm", /Line 2 .* 'warm'/],
  ["timestamp,heat\nsoon,1", /neither ISO 8601/],
  ["timestamp,heat\n0,Infinity", /no number/],
])("what does not fit is refused: %s", (text, message) => {
  expect(() => parseRecording(text, ["heat"])).toThrow(InputError);
  expect(() => parseRecording(text, ["heat"])).toThrow(message);
});

test("a replay keeps the steps between readings, ends now, and gives each once", () => {
  const source = new RecordingSource("pump", parseRecording(CSV, ["heat"]), NOW);
  const readings = [...source.take(2), ...source.take(2), ...source.take(2)];
  expect(readings.map(({ timestamp }) => Number(timestamp))).toEqual([NOW - 7_200_000, NOW - 3_600_000, NOW]);
  expect(source.describe()).toContain("come to its end");
});

test("a fault puts sensors far above of what they ever showed, for thirty readings", () => {
  const text = ["timestamp,heat", ...Array.from({ length: 40 }, (_, hour) => `${hour * 3600},${hour % 2}`)].join("\n");
  const source = new RecordingSource("pump", parseRecording(text, ["heat"]), NOW);
  source.breakDown();
  expect(source.describe()).toContain("heat");
  expect(values(source.take(30), "heat")).toEqual(Array.from({ length: 30 }, () => 2));
  expect(values(source.take(2), "heat")).toEqual([0, 1]);
});

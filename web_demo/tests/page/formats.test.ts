import { expect, test } from "vitest";
import { axisTimes, duration, measured, score } from "../../src/page/formats.ts";

test.each([
  [-5, "0 s"],
  [90_000, "90 s"],
  [150_000, "2 min"],
  [3 * 3_600_000, "3 h"],
  [9 * 86_400_000, "9 days"],
])("%d ms are %s", (milliseconds, text) => {
  expect(duration(milliseconds)).toBe(text);
});

test("what is missing is said to be missing, and never shown as 0", () => {
  expect(measured(NaN)).toBe("missing");
  expect(measured(null)).toBe("missing");
  expect(measured(0)).toBe("0");
});

test("scores near the threshold can be told apart", () => {
  expect(score(0.99912)).not.toBe(score(0.9992));
});

const at = (day: number, hour: number, minute = 0): number => new Date(2026, 10, day, hour, minute).getTime();

test.each([
  ["within a day", [at(24, 11, 5), at(24, 11, 6)], ["11:05:00", "11:06:00"]],
  ["over days", [at(24, 12), at(25, 0), at(25, 12)], ["24 Nov, 12:00", "25 Nov, 00:00", "25 Nov, 12:00"]],
  ["a day apart", [at(24, 0), at(25, 0)], ["24 Nov", "25 Nov"]],
  ["one alone", [at(24, 9)], ["09:00:00"]],
  ["none", [], []],
])("the marks of a time axis tell moments apart: %s", (_, marks, texts) => {
  expect(axisTimes(marks)).toEqual(texts);
});

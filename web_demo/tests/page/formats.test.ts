import { expect, test } from "vitest";
import { duration, measured, score } from "../../src/page/formats.ts";

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

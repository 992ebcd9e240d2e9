import { describe, expect, test } from "vitest";
import { momentLabel, nines, placed, tickLabel, timeLabel, valueLabel } from "../../src/dashboard/plot_spec.ts";

const NINES = { kind: "nines" } as const;
const SHARE = { kind: "share" } as const;

describe("values on a plot", () => {
  test("scores are placed by their nines, within the contract's histogram", () => {
    expect([0, 0.9, 0.99, 0.9999, 0.999999, 1].map((score) => Math.round(nines(score) * 1000) / 1000 + 0)).toEqual([0, 1, 2, 4, 5, 5]);
  });
  test("what was not measured stays unmeasured, and is no zero", () => {
    expect(placed(null, NINES)).toBeNull();
    expect(valueLabel(null, SHARE)).toBe("none");
  });
  test("axes speak the scale's language", () => {
    expect([0, 1, 3, 5].map((place) => tickLabel(place, NINES))).toEqual(["0", ".9", ".999", "1"]);
    expect(tickLabel(1500, { kind: "linear" })).toBe("1.5K");
    expect(tickLabel(2.5, SHARE)).toBe("2.5 %");
    expect(valueLabel(0.0123, SHARE)).toBe("1.23 %");
  });
  test("a bucket of days is named by its day, all times are UTC", () => {
    expect(momentLabel(1_795_651_200, 86_400)).toBe("2026-11-26");
    expect(momentLabel(1_795_651_260)).toBe("2026-11-26 00:01");
    expect([1_795_651_200, 1_795_672_800].map(timeLabel)).toEqual(["26 Nov", "06:00"]);
  });
});

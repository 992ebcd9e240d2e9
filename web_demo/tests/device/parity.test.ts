import { expect, test } from "vitest";
import { ortRuntime } from "../../src/device/scoring/ort_runtime.ts";
import { parityCases } from "./support/fixtures.ts";
import { compare } from "./support/parity.ts";

const cases = parityCases();

test("forests and networks in every precision are compared", () => {
  const names = cases.map(({ name }) => name).sort();
  expect(names).toEqual([
    "autoencoder-fp32",
    "autoencoder-int8",
    "isolation_forest-codebook8",
    "isolation_forest-fp32",
    "isolation_forest-int8",
  ]);
});

test.each(cases)("$name scores, judges and explains as Python does", async ({ file }) => {
  const figures = await compare(file, ortRuntime(null));
  expect(figures.windows).toBeGreaterThan(500);
  expect(figures.anomalous).toBeGreaterThan(0);
  expect(figures.rawDifference).toBeLessThanOrEqual(1e-6);
  expect(figures.flips).toBe(0);
  expect(figures.otherNames).toBe(0);
  expect(figures.contributionDifference).toBeLessThanOrEqual(1e-5);
});

import { afterEach, beforeEach, expect, test, vi } from "vitest";
import type { Device } from "../../src/device/device.ts";
import { InputError } from "../../src/device/errors.ts";
import { Feed } from "../../src/page/feed.ts";
import type { Source } from "../../src/page/sources/source.ts";

const source: Source = {
  name: "made up",
  hasPace: false,
  take: () => [{ timestamp: new Date() }],
  skip: vi.fn(),
  breakDown: () => undefined,
  describe: () => "",
  close: () => undefined,
};

beforeEach(() => vi.useFakeTimers());
afterEach(() => {
  vi.useRealTimers();
  vi.clearAllMocks();
});

function feed(score: () => Promise<unknown>): { made: Feed; scored: number; failures: unknown[] } {
  const seen = { failures: [] as unknown[], scored: 0 };
  const device = { isActive: true, score } as unknown as Device;
  const made = new Feed(device, { scored: () => (seen.scored += 1), failed: (error) => seen.failures.push(error) });
  made.use(source);
  return Object.assign(seen, { made });
}

test("an error is told, and the next reading is taken all the same", async () => {
  let calls = 0;
  const seen = feed(async () => {
    calls += 1;
    if (calls === 1) throw new InputError("unusable");
    return [];
  });
  await vi.advanceTimersByTimeAsync(1500);
  expect(seen.failures).toHaveLength(1);
  expect(seen.scored).toBe(1);
});

test("a fault of the page is told and thrown, and the feed goes on", async () => {
  const thrown: unknown[] = [];
  const caught = (error: unknown): void => void thrown.push(error);
  const others = process.listeners("unhandledRejection");
  process.removeAllListeners("unhandledRejection").on("unhandledRejection", caught);
  try {
    const fault = new RangeError("a fault");
    let calls = 0;
    const seen = feed(async () => {
      calls += 1;
      if (calls === 1) throw fault;
      return [];
    });
    await vi.advanceTimersByTimeAsync(1500);
    vi.useRealTimers();
    await new Promise((done) => setTimeout(done, 0));
    expect(seen.failures).toEqual([fault]);
    expect(thrown).toEqual([fault]);
    expect(seen.scored).toBe(1);
  } finally {
    process.off("unhandledRejection", caught);
    for (const other of others) process.on("unhandledRejection", other);
  }
});

test("while it is paused, the source is told to forget what it measures", async () => {
  const seen = feed(async () => []);
  seen.made.setRunning(false);
  await vi.advanceTimersByTimeAsync(2500);
  expect(seen.scored).toBe(0);
  expect(source.skip).toHaveBeenCalledTimes(3);
});

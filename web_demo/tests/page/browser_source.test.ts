import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { BrowserSource } from "../../src/page/sources/browser.ts";
import { Tally } from "../../src/page/sources/tally.ts";

let visibility: string;
let seen: () => void;
let source: BrowserSource;

beforeEach(() => {
  vi.useFakeTimers();
  visibility = "visible";
  vi.stubGlobal("navigator", {});
  vi.stubGlobal("addEventListener", () => undefined);
  vi.stubGlobal("removeEventListener", () => undefined);
  vi.stubGlobal("requestAnimationFrame", (frame: () => void) => setTimeout(frame, 20));
  vi.stubGlobal("document", {
    get visibilityState() {
      return visibility;
    },
    addEventListener: (_: string, listener: () => void) => (seen = listener),
    removeEventListener: () => undefined,
  });
  source = new BrowserSource();
});

afterEach(() => {
  source.close();
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

/** Let timers be late, as a page that is held up finds them. */
function holdUp(milliseconds: number): void {
  const now = performance.now();
  vi.spyOn(performance, "now").mockReturnValueOnce(now + milliseconds);
  vi.advanceTimersByTime(50);
  vi.restoreAllMocks();
}

function show(state: string): void {
  visibility = state;
  seen();
}

test("late timers and missing frames are what a page that is held up shows", () => {
  vi.advanceTimersByTime(500);
  holdUp(300);
  vi.advanceTimersByTime(450);
  const [reading] = source.take();
  expect(reading!["event_loop_worst"]).toBe(250);
  expect(reading!["frame_rate"]).toBeCloseTo(50, -1);
});

test("what was measured in the background is nobody's anomaly", () => {
  show("hidden");
  vi.advanceTimersByTime(500);
  holdUp(900);
  expect(source.take()[0]!["event_loop_worst"]).toBeNaN();
  holdUp(900);
  show("visible");
  vi.advanceTimersByTime(1000);
  expect(source.take()[0]!["event_loop_worst"]).toBe(0);
});

test("right after it was skipped there is nothing to say yet", () => {
  vi.advanceTimersByTime(1000);
  source.skip();
  vi.advanceTimersByTime(100);
  expect(source.take()[0]!["frame_rate"]).toBeNaN();
});

test("a million numbers have a mean and a largest", () => {
  const tally = new Tally();
  for (let at = 0; at < 1_000_000; at += 1) tally.add(at % 5);
  expect([tally.count, tally.mean, tally.most]).toEqual([1_000_000, 2, 4]);
  tally.clear();
  expect([tally.count, tally.mean, tally.most]).toEqual([0, NaN, NaN]);
});

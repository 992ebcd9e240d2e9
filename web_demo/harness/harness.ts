/**
 * The device's scoring, driven from outside: tests and benchmarks hold its scores against Python's, and time them.
 *
 * It is no part of the page: `make web-harness` builds it into `build/web_harness`.
 */
import type { Scorer } from "../src/device/scoring/scorer.ts";
import { startScoringWorker } from "../src/device/scoring/worker_client.ts";
import type { Windows } from "../src/device/windows.ts";

/** What is asked, by file name, of the server that the harness came from. */
interface Task {
  /** `model.onnx`. */
  readonly model: string;
  /** float32 windows, little-endian. */
  readonly windows: string;
  readonly slots: number;
  readonly signals: number;
}

/** What a browser gives. */
interface Scores {
  readonly raw: readonly number[];
  readonly flags: readonly number[];
}

const runtime = startScoringWorker();
let scorer: Scorer;
let all: Windows;

async function load(task: Task): Promise<void> {
  const [model, cells] = await Promise.all(
    [task.model, task.windows].map(async (name) => (await fetch(name)).arrayBuffer()),
  );
  scorer = await runtime.load(new Uint8Array(model!));
  const data = new Float32Array(cells!);
  all = { data, count: data.length / (task.slots * task.signals), slots: task.slots, signals: task.signals };
}

async function score(): Promise<Scores> {
  const { rawScore, isAnomaly } = await scorer.score(all);
  return { raw: Array.from(rawScore), flags: Array.from(isAnomaly) };
}

/** Return the microseconds that the worker took for each of some windows, scored alone. */
async function times(most: number): Promise<readonly number[]> {
  const cells = all.slots * all.signals;
  const found: number[] = [];
  for (let at = 0; at < Math.min(most, all.count); at += 1) {
    const data = all.data.slice(at * cells, (at + 1) * cells);
    found.push((await scorer.score({ ...all, data, count: 1 })).elapsedUs);
  }
  return found;
}

Object.assign(globalThis, { harness: { load, score, times } });

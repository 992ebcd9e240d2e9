/** Compare every case of a folder with Python and print the figures: `node measure_parity.ts FOLDER`. */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { float32s } from "../../../src/device/contract/bytes.ts";
import { readManifest } from "../../../src/device/contract/manifest.ts";
import { ortRuntime } from "../../../src/device/scoring/ort_runtime.ts";
import type { Scorer } from "../../../src/device/scoring/scorer.ts";
import { compare } from "./parity.ts";

const ALONE = 500;

/** Return the median time of one window scored alone, in microseconds. */
async function medianAlone(
  scorer: Scorer,
  data: Float32Array<ArrayBuffer>,
  slots: number,
  signals: number,
): Promise<number> {
  const times: number[] = [];
  const size = slots * signals;
  for (let row = 0; row < Math.min(ALONE, data.length / size); row += 1) {
    const window = data.slice(row * size, (row + 1) * size);
    times.push((await scorer.score({ data: window, count: 1, slots, signals })).elapsedUs);
  }
  return times.sort((one, other) => one - other)[times.length >> 1]!;
}

const folder = process.argv[2]!;
const runtime = ortRuntime(null);
const figures: Record<string, object> = {};
for (const entry of readdirSync(folder, { withFileTypes: true })) {
  if (!entry.isDirectory() || entry.name === "fleet") continue;
  const file = (name: string): Uint8Array<ArrayBuffer> => new Uint8Array(readFileSync(join(folder, entry.name, name)));
  const { window, signals } = readManifest(file("manifest.json"));
  const scorer = await runtime.load(file("model.onnx"));
  const aloneUs = await medianAlone(scorer, float32s(file("windows.f32")), window.slots, signals.length);
  figures[entry.name] = { ...(await compare(file, runtime)), aloneUs };
}
process.stdout.write(`${JSON.stringify(figures, null, 1)}\n`);

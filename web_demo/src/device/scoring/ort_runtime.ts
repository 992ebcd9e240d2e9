/**
 * Models in this thread, through the wasm build of ONNX Runtime on one thread of the processor.
 *
 * Only `onnxruntime-web/wasm` is used: the WebGPU build has no tree operators.
 */
import * as ort from "onnxruntime-web/wasm";
import type { Bytes } from "../contract/bytes.ts";
import { ScoringError, UnsupportedError } from "../errors.ts";
import type { Windows } from "../windows.ts";
import type { Scorer, ScoringRuntime, Verdicts } from "./scorer.ts";

const INPUT = "window";
const OUTPUTS = ["anomaly_score", "raw_score", "is_anomaly"] as const;
const SYNC = "Synchronise again; if it stays, publish the bundle again.";
// Windows a run, as on native devices: scores do not depend on it, and the memory of one run stays small.
const BLOCK = 128;
// A module with one SIMD instruction (i8x16.splat), as WebAssembly feature detection does it.
const SIMD_PROBE = Uint8Array.of(
  0,
  97,
  115,
  109,
  1,
  0,
  0,
  0,
  1,
  5,
  1,
  96,
  0,
  1,
  123,
  3,
  2,
  1,
  0,
  10,
  10,
  1,
  8,
  0,
  65,
  0,
  253,
  15,
  253,
  98,
  11,
);

/** Say whether this browser runs WebAssembly with SIMD, which ONNX Runtime needs. */
function hasSimd(): boolean {
  return typeof WebAssembly === "object" && WebAssembly.validate(SIMD_PROBE);
}

/**
 * Return the runtime of this thread.
 *
 * @param wasmUrl - Where `ort-wasm-simd-threaded.wasm` is, or null where the package finds it by itself.
 */
export function ortRuntime(wasmUrl: string | null): ScoringRuntime {
  ort.env.wasm.numThreads = 1;
  ort.env.logLevel = "error";
  if (wasmUrl !== null) ort.env.wasm.wasmPaths = { wasm: wasmUrl };
  return {
    version: async () => ort.env.versions.web ?? ort.env.versions.common,
    load: async (model) => {
      if (!hasSimd()) throw noSimd();
      return OrtScorer.load(model);
    },
  };
}

class OrtScorer implements Scorer {
  private readonly session: ort.InferenceSession;

  private constructor(session: ort.InferenceSession) {
    this.session = session;
  }

  static async load(model: Bytes): Promise<OrtScorer> {
    let session: ort.InferenceSession;
    try {
      session = await ort.InferenceSession.create(model, { logSeverityLevel: 4, graphOptimizationLevel: "all" });
    } catch (error) {
      // What ONNX Runtime says when its own wasm could not be fetched, compiled or started.
      if (String(error).includes("no available backend")) throw noEngine(error);
      throw new ScoringError(
        `The model cannot be loaded by onnxruntime-web ${ort.env.versions.web}: ${firstLine(error)}.`,
        "model_unloadable",
        "Load the newest version of this page, or publish a bundle for this version.",
      );
    }
    const names = new Set(session.outputNames);
    if (session.inputNames.join() !== INPUT || !OUTPUTS.every((name) => names.has(name))) {
      throw new ScoringError(
        `The model takes ${session.inputNames.join()} and gives ${[...names].join()}, which is none of ours.`,
        "model_shape",
        SYNC,
      );
    }
    return new OrtScorer(session);
  }

  async score(windows: Windows): Promise<Verdicts> {
    const started = performance.now();
    const found = await this.run(OUTPUTS, windows);
    const elapsedUs = Math.round((performance.now() - started) * 1000);
    const [anomalyScore, rawScore, flags] = [floats(found[0]), floats(found[1]), found[2]];
    checkFinite(rawScore.every(Number.isFinite) && anomalyScore.every((score) => score >= 0 && score <= 1));
    return { anomalyScore, rawScore, isAnomaly: Uint8Array.from(flags ?? [], Number), elapsedUs };
  }

  async rawScores(windows: Windows): Promise<Float32Array> {
    const raw = floats((await this.run(["raw_score"], windows))[0]);
    checkFinite(raw.every(Number.isFinite));
    return raw;
  }

  async regimes(windows: Windows): Promise<Int32Array> {
    const [regimes] = await this.run(["regime"], windows);
    return Int32Array.from(regimes ?? [], Number);
  }

  async close(): Promise<void> {
    await this.session.release();
  }

  private async run(outputs: readonly string[], windows: Windows): Promise<readonly Column[]> {
    const missing = outputs.find((name) => !this.session.outputNames.includes(name));
    if (missing !== undefined) throw new ScoringError(`The model has no output '${missing}'.`, "model_shape", SYNC);
    this.checkShape(windows);
    const parts: Column[][] = [];
    try {
      for (let start = 0; start < windows.count; start += BLOCK) {
        parts.push(await this.runBlock(outputs, windows, start, Math.min(BLOCK, windows.count - start)));
      }
    } catch (error) {
      throw new ScoringError(`The model failed while scoring: ${firstLine(error)}.`, "run_failed", SYNC);
    }
    return outputs.map((_, column) => parts.flatMap((part) => Array.from<number | bigint>(part[column] ?? [])));
  }

  private async runBlock(
    outputs: readonly string[],
    windows: Windows,
    start: number,
    count: number,
  ): Promise<Column[]> {
    const cells = windows.slots * windows.signals;
    const data = windows.data.subarray(start * cells, (start + count) * cells);
    const input = new ort.Tensor("float32", data, [count, windows.slots, windows.signals]);
    const found = await this.session.run({ [INPUT]: input }, outputs);
    return outputs.map((name) => found[name]!.data as Float32Array | Uint8Array | BigInt64Array);
  }

  private checkShape(windows: Windows): void {
    const input = this.session.inputMetadata[0];
    const expected = input?.isTensor === true ? input.shape.slice(1) : [];
    const found = [windows.slots, windows.signals];
    if (expected.length !== 2 || expected.some((size, axis) => typeof size === "number" && size !== found[axis])) {
      throw new ScoringError(
        `The model takes windows of shape ${expected.join(" x ")}, not ${found.join(" x ")}.`,
        "model_shape",
        SYNC,
      );
    }
  }
}

type Column = ArrayLike<number | bigint>;

function floats(column: Column | undefined): Float32Array {
  return Float32Array.from(column ?? [], Number);
}

function checkFinite(usable: boolean): void {
  if (!usable) throw new ScoringError("The model gave a score that is no number.", "not_finite", SYNC);
}

function noSimd(): UnsupportedError {
  return new UnsupportedError(
    "This browser runs no WebAssembly with SIMD, which scoring needs.",
    "wasm_simd",
    "Use a current version of Chrome, Edge, Firefox or Safari.",
  );
}

function noEngine(error: unknown): UnsupportedError {
  return new UnsupportedError(
    `The page's scoring engine cannot be started: ${firstLine(error)}.`,
    "wasm_unavailable",
    "Load the page again while the server can be reached; the active bundle stays.",
  );
}

function firstLine(error: unknown): string {
  const text = error instanceof Error ? error.message : String(error);
  return (text.trim().split("\n")[0] ?? "").replace(/\.+$/, "").slice(0, 300);
}

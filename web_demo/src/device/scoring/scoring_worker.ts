/** The worker that hosts models, so that scoring never holds the page up. Start it with `startScoringWorker`. */
import wasmUrl from "onnxruntime-web/ort-wasm-simd-threaded.wasm?url";
import { ortRuntime } from "./ort_runtime.ts";
import type { Asked } from "./protocol.ts";
import { WorkerHost } from "./worker_host.ts";

const scope = self as unknown as DedicatedWorkerGlobalScope;
const host = new WorkerHost(ortRuntime(wasmUrl));
scope.onmessage = (event: MessageEvent<Asked>): void => {
  void host.answer(event.data).then((answer) => scope.postMessage(answer));
};

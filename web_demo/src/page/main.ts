import wasm from "onnxruntime-web/ort-wasm-simd-threaded.wasm?url";

document.body.append(wasm);

import { defineConfig } from "vitest/config";

// Under Node: fake-indexeddb for the database, the wasm build of ONNX Runtime for the models.
export default defineConfig({
  test: { include: ["tests/**/*.test.ts"], environment: "node", testTimeout: 15_000 },
});

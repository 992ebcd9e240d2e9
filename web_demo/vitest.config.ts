import { defineConfig } from "vitest/config";

// Under Node: fake-indexeddb for the database, the wasm build of ONNX Runtime for the models. The project's Python signs
// repositories and scores windows for these tests before they run.
export default defineConfig({
  test: {
    include: ["tests/**/*.test.ts"],
    environment: "node",
    testTimeout: 15_000,
    globalSetup: ["tests/device/support/global_setup.ts"],
  },
});

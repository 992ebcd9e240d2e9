import { defineConfig } from "vite";

/** What tests and benchmarks drive in a browser; not part of the product. */
export default defineConfig({
  root: "harness",
  base: "./",
  build: { outDir: "../../build/web_harness", emptyOutDir: true, assetsInlineLimit: 0, reportCompressedSize: false },
  worker: { format: "es" },
});

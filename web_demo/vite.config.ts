import { defineConfig } from "vite";
import { compressed } from "./tools/compressed.ts";
import { precached } from "./tools/precached.ts";
import headers from "../sync_server/web_assets/page_headers.json" with { type: "json" };

const SERVICE_WORKER = "service-worker";

/** The device's page: everything under `/device/`, named by content but for the page and its service worker. */
export default defineConfig({
  base: "/device/",
  build: {
    outDir: "../sync_server/web/device",
    emptyOutDir: true,
    assetsInlineLimit: 0, // the page's policy allows no data: scripts or styles
    modulePreload: { polyfill: false },
    reportCompressedSize: false,
    rolldownOptions: {
      checks: { pluginTimings: false }, // compressing is known to take most of a first build
      input: { index: "index.html", [SERVICE_WORKER]: "src/service_worker.ts" },
      output: {
        entryFileNames: ({ name }) => (name === SERVICE_WORKER ? "[name].js" : "assets/[name]-[hash].js"),
      },
    },
  },
  worker: { format: "es" },
  plugins: [precached(`${SERVICE_WORKER}.js`, headers), compressed()],
});

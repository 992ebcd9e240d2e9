import { defineConfig } from "vite";
import { compressed } from "./tools/compressed.ts";

/** The dashboard's scripts. Pages find a script by its source's name in `manifest.json`. */
export default defineConfig({
  base: "/static/built/",
  publicDir: false,
  build: {
    outDir: "../sync_server/web/dashboard",
    emptyOutDir: true,
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    manifest: "manifest.json",
    reportCompressedSize: false,
    rolldownOptions: { input: "src/dashboard/main.ts", checks: { pluginTimings: false } },
  },
  plugins: [compressed()],
});

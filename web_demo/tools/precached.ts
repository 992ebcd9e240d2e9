import { createHash } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { Plugin } from "vite";

/** What the service worker's source calls the list of files and the headers; see `src/service_worker.ts`. */
const FILES = "__BUILT_FILES__";
const HEADERS = "__PAGE_HEADERS__";

const digest = (content: string | Uint8Array) => createHash("sha256").update(content).digest("hex");

/**
 * Writes the list of everything that was built, with the SHA-256 of each file, and the page's headers into the service
 * worker.
 *
 * A change of any file or header changes the worker's own bytes, which is how browsers notice that there is a new page.
 */
export function precached(serviceWorker: string, headers: Readonly<Record<string, string>>): Plugin {
  let publicDir = "";
  return {
    name: "precached",
    apply: "build",
    enforce: "post",
    configResolved: (config) => {
      publicDir = config.publicDir;
    },
    generateBundle: {
      order: "post",
      handler(_options, bundle) {
        const worker = bundle[serviceWorker];
        if (worker?.type !== "chunk") throw new Error(`The build made no ${serviceWorker}.`);
        const files: Record<string, string> = {};
        for (const [name, file] of Object.entries(bundle)) {
          if (name !== serviceWorker) files[name] = digest(file.type === "chunk" ? file.code : file.source);
        }
        for (const name of readdirSync(publicDir)) files[name] = digest(readFileSync(join(publicDir, name)));
        for (const [name, value] of [[FILES, files], [HEADERS, headers]] as const) {
          if (!worker.code.includes(name)) throw new Error(`${serviceWorker} does not name ${name}.`);
          worker.code = worker.code.replaceAll(name, () => JSON.stringify(value));
        }
      },
    },
  };
}

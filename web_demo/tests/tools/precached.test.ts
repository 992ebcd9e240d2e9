import { mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { precached } from "../../tools/precached.ts";

type Bundle = Record<string, { type: "chunk"; code: string } | { type: "asset"; source: string }>;

const HEADERS = { "Referrer-Policy": "same-origin" };

/** Runs the plugin over a made-up bundle and returns what it wrote into the service worker: list and headers. */
function written(bundle: Bundle, publicFiles: Record<string, string> = {}): Record<string, string>[] {
  const publicDir = mkdtempSync(join(tmpdir(), "public-"));
  for (const [name, content] of Object.entries(publicFiles)) writeFileSync(join(publicDir, name), content);
  const worker = { type: "chunk" as const, code: "[__BUILT_FILES__, __PAGE_HEADERS__]" };
  const plugin = precached("worker.js", HEADERS) as unknown as {
    configResolved(config: { publicDir: string }): void;
    generateBundle: { handler(options: object, bundle: Bundle): void };
  };
  plugin.configResolved({ publicDir });
  plugin.generateBundle.handler({}, { "worker.js": worker, ...bundle });
  return JSON.parse(worker.code) as Record<string, string>[];
}

test("lists what was built and what is copied, but not the service worker itself", () => {
  const [files, headers] = written(
    { "a.js": { type: "chunk", code: "1" }, "b.css": { type: "asset", source: "" } },
    { "i.png": "" },
  );
  expect(Object.keys(files!).sort()).toEqual(["a.js", "b.css", "i.png"]);
  expect(headers).toEqual(HEADERS);
});

test("a file's entry follows its content", () => {
  const [before] = written({ "index.html": { type: "asset", source: "old" } });
  const [after] = written({ "index.html": { type: "asset", source: "new" } });
  expect(before!["index.html"]).toMatch(/^[0-9a-f]{64}$/);
  expect(after!["index.html"]).not.toBe(before!["index.html"]);
});

test("a service worker that takes no list fails the build", () => {
  const plugin = precached("worker.js", HEADERS) as unknown as {
    generateBundle: { handler(options: object, bundle: Bundle): void };
    configResolved(config: { publicDir: string }): void;
  };
  plugin.configResolved({ publicDir: mkdtempSync(join(tmpdir(), "public-")) });
  const bundle: Bundle = { "worker.js": { type: "chunk", code: "none" } };
  expect(() => plugin.generateBundle.handler({}, bundle)).toThrow("__BUILT_FILES__");
});

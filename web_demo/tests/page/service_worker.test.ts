import { createHash } from "node:crypto";
import { beforeEach, expect, test, vi } from "vitest";

const BASE = "https://fleet.example/device/";
const digest = (text: string): string => createHash("sha256").update(text).digest("hex");

type Listener = (event: {
  readonly request?: object;
  waitUntil?(work: Promise<unknown>): void;
  respondWith?(work: unknown): void;
}) => void;

/** A cache storage in memory, as far as the service worker uses it. */
class FakeCaches {
  readonly all = new Map<string, Map<string, Response>>();
  full = false;

  async open(name: string): Promise<object> {
    const kept = this.all.get(name) ?? new Map<string, Response>();
    this.all.set(name, kept);
    return {
      put: async (url: string, answer: Response) => {
        if (this.full) throw new DOMException("no room", "QuotaExceededError");
        kept.set(url, answer);
      },
      match: async (url: string) => kept.get(url)?.clone(),
    };
  }

  async match(url: string): Promise<Response | undefined> {
    for (const kept of this.all.values()) if (kept.has(url)) return kept.get(url)!.clone();
    return undefined;
  }

  keys = async (): Promise<string[]> => [...this.all.keys()];
  delete = async (name: string): Promise<boolean> => this.all.delete(name);
}

let served: Map<string, string>;
let fetched: string[];
let caches: FakeCaches;

const POLICY = { "Content-Security-Policy": "default-src 'none'" };

/** Start the worker of a build and return what its browser would call. */
async function worker(
  built: Record<string, string>,
  headers: Record<string, string> = POLICY,
): Promise<Map<string, Listener>> {
  const listeners = new Map<string, Listener>();
  vi.stubGlobal("__BUILT_FILES__", built);
  vi.stubGlobal("__PAGE_HEADERS__", headers);
  vi.stubGlobal("caches", caches);
  vi.stubGlobal("fetch", async (url: string | { readonly url: string }) => {
    const address = typeof url === "string" ? url : url.url;
    fetched.push(address);
    const content = served.get(address);
    return new Response(content ?? "none", { status: content === undefined ? 404 : 200 });
  });
  vi.stubGlobal("self", {
    location: { href: `${BASE}service-worker.js` },
    addEventListener: (kind: string, listener: Listener) => listeners.set(kind, listener),
    clients: { claim: async () => undefined },
  });
  vi.resetModules();
  await import("../../src/service_worker.ts");
  return listeners;
}

async function wait(listeners: Map<string, Listener>, kind: string): Promise<unknown> {
  let work: Promise<unknown> = Promise.resolve();
  listeners.get(kind)!({ waitUntil: (given) => (work = given) });
  return work;
}

async function respond(listeners: Map<string, Listener>, path: string, mode = "no-cors"): Promise<Response | null> {
  let given: unknown = null;
  const later: Promise<unknown>[] = [];
  const request = { method: "GET", url: `https://fleet.example${path}`, mode };
  listeners.get("fetch")!({
    request,
    respondWith: (response) => (given = response),
    waitUntil: (work) => later.push(work),
  });
  const response = (await given) as Response | null;
  await Promise.all(later);
  return response;
}

async function answer(listeners: Map<string, Listener>, path: string, mode = "no-cors"): Promise<string | null> {
  return (await respond(listeners, path, mode))?.text() ?? null;
}

beforeEach(() => {
  served = new Map([
    [`${BASE}index.html`, "page"],
    [`${BASE}assets/a-1.js`, "script"],
  ]);
  fetched = [];
  caches = new FakeCaches();
});

const BUILT = { "index.html": digest("page"), "assets/a-1.js": digest("script") };

test("after it was installed, the page and its files need no network", async () => {
  const listeners = await worker(BUILT);
  await wait(listeners, "install");
  served.clear();
  fetched.length = 0;
  expect(await answer(listeners, "/device/", "navigate")).toBe("page");
  expect(await answer(listeners, "/device/assets/a-1.js")).toBe("script");
  expect(fetched).toEqual([]);
});

test("a file that is not what the build made is not installed, and neither is the page", async () => {
  served.set(`${BASE}assets/a-1.js`, "another script");
  const listeners = await worker(BUILT);
  await expect(wait(listeners, "install")).rejects.toThrow("a-1.js is not the file of this build");
});

test("bundles, metadata and results never pass through it", async () => {
  const listeners = await worker(BUILT);
  await wait(listeners, "install");
  for (const path of [
    "/repository/metadata/timestamp.json",
    "/repository/targets/m/1/x.bundle",
    "/api/results",
    "/device/other",
  ]) {
    expect(await answer(listeners, path)).toBeNull();
  }
});

test("a newer build fetches what changed, and removes the old files once it is in charge", async () => {
  await wait(await worker(BUILT), "install");
  served.set(`${BASE}index.html`, "newer page");
  fetched.length = 0;
  const newer = await worker({ ...BUILT, "index.html": digest("newer page") });
  await wait(newer, "install");
  expect(fetched).toEqual([`${BASE}index.html`]);
  expect(caches.all.size).toBe(2);
  await wait(newer, "activate");
  expect(caches.all.size).toBe(1);
  expect(await answer(newer, "/device/", "navigate")).toBe("newer page");
});

test("a recording comes from the server while it is there, and from its copy when it is not", async () => {
  const listeners = await worker(BUILT);
  served.set(`${BASE}recordings/m.csv`, "first");
  expect(await answer(listeners, "/device/recordings/m.csv")).toBe("first");
  served.set(`${BASE}recordings/m.csv`, "second");
  expect(await answer(listeners, "/device/recordings/m.csv")).toBe("second");
  vi.stubGlobal("fetch", async () => Promise.reject(new TypeError("no network")));
  expect(await answer(listeners, "/device/recordings/m.csv")).toBe("second");
});

test("a recording that there is no room for is answered all the same, and the copy of the last time stays", async () => {
  const warn = vi.spyOn(console, "warn").mockImplementation(() => undefined);
  const listeners = await worker(BUILT);
  served.set(`${BASE}recordings/m.csv`, "first");
  await answer(listeners, "/device/recordings/m.csv");
  caches.full = true;
  served.set(`${BASE}recordings/m.csv`, "second");
  expect(await answer(listeners, "/device/recordings/m.csv")).toBe("second");
  expect(warn).toHaveBeenCalledWith(expect.stringContaining("QuotaExceededError"));
  vi.stubGlobal("fetch", async () => Promise.reject(new TypeError("no network")));
  expect(await answer(listeners, "/device/recordings/m.csv")).toBe("first");
});

test("a new policy applies to files that stay as they were", async () => {
  await wait(await worker(BUILT), "install");
  fetched.length = 0;
  const stricter = { "Content-Security-Policy": "sandbox" };
  const newer = await worker(BUILT, stricter);
  await wait(newer, "install");
  await wait(newer, "activate");
  expect(fetched).toEqual([]);
  expect(caches.all.size).toBe(1);
  const page = await respond(newer, "/device/", "navigate");
  expect(page!.headers.get("Content-Security-Policy")).toBe("sandbox");
  expect(page!.headers.get("Content-Type")).toContain("text/plain");
});

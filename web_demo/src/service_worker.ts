/**
 * Keeps the page itself, so that it opens without a network. Bundles and results never pass through its cache: the
 * device checks and keeps those in its own database.
 *
 * What it keeps is exactly what the build made, file by file with its SHA-256; a page that is not whole is refused.
 */

/** File below `/device/` to the SHA-256 of its content; the build writes it here. */
declare const __BUILT_FILES__: Readonly<Record<string, string>>;
/** The headers of the page as the server sends them, its security policy first; the build writes them here. */
declare const __PAGE_HEADERS__: Readonly<Record<string, string>>;
export {};

const scope = self as unknown as ServiceWorkerGlobalScope;
const PREFIX = "page-";
const RECORDINGS = "recordings";
// A server that is silent for longer is taken for one that is not there.
const SILENCE_MS = 15_000;
const base = new URL("./", scope.location.href);
const pageUrl = new URL("index.html", base).href;
const kept = new Map(Object.entries(__BUILT_FILES__).map(([name, digest]) => [new URL(name, base).href, digest]));

async function digestOf(content: BufferSource): Promise<string> {
  const bytes = new Uint8Array(await crypto.subtle.digest("SHA-256", content));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** The cache of this build: another build has another name, and both may exist while one replaces the other. */
async function cacheName(): Promise<string> {
  const list = new TextEncoder().encode(JSON.stringify([__BUILT_FILES__, __PAGE_HEADERS__]));
  return `${PREFIX}${(await digestOf(list)).slice(0, 16)}`;
}

/** Fetch one file, or take it from an earlier build's cache, and keep it when it is what the build made. */
async function keep(cache: Cache, url: string, digest: string): Promise<void> {
  const known = await caches.match(url);
  if (known !== undefined) {
    const content = await known.clone().arrayBuffer();
    if ((await digestOf(content)) === digest) return cache.put(url, withHeaders(content, known));
  }
  const answer = await fetch(url, { cache: "no-cache", credentials: "omit" });
  const content = await answer.arrayBuffer();
  if (!answer.ok || (await digestOf(content)) !== digest) {
    throw new Error(`${url} is not the file of this build; the page that is installed stays.`);
  }
  await cache.put(url, withHeaders(content, answer));
}

/** What is kept has this build's headers, not those of the answer that it came with: a new policy is a new worker. */
function withHeaders(content: BodyInit, answer: Response): Response {
  const type = answer.headers.get("Content-Type") ?? "application/octet-stream";
  return new Response(content, { headers: { ...__PAGE_HEADERS__, "Content-Type": type } });
}

async function install(): Promise<void> {
  const cache = await caches.open(await cacheName());
  await Promise.all(Array.from(kept, async ([url, digest]) => keep(cache, url, digest)));
}

async function removeOthers(): Promise<void> {
  const mine = await cacheName();
  const names = await caches.keys();
  await Promise.all(
    names.filter((name) => name.startsWith(PREFIX) && name !== mine).map((name) => caches.delete(name)),
  );
  await scope.clients.claim();
}

async function fromCache(url: string, request: Request): Promise<Response> {
  const cache = await caches.open(await cacheName());
  // A person who clears a site's data may leave the worker without its files.
  return (await cache.match(url)) ?? fetch(request);
}

/** Recordings change on the server and are wanted offline: the network's copy first, the kept one without it. */
async function recording(event: FetchEvent): Promise<Response> {
  const { request } = event;
  const cache = await caches.open(RECORDINGS);
  const silence = new AbortController();
  const timer = setTimeout(() => silence.abort(), SILENCE_MS);
  try {
    const answer = await fetch(request, { signal: silence.signal });
    if (answer.ok) event.waitUntil(keepRecording(cache, request.url, answer.clone()));
    return answer;
  } catch (error) {
    const copy = await cache.match(request.url);
    if (copy === undefined) throw error;
    return copy;
  } finally {
    clearTimeout(timer);
  }
}

async function keepRecording(cache: Cache, url: string, answer: Response): Promise<void> {
  try {
    await cache.put(url, answer);
  } catch (error) {
    // No room, or it did not come whole: the page has what came, and the copy of the last time stays.
    console.warn(`${url} is not kept for times without a network: ${String(error)}`);
  }
}

scope.addEventListener("install", (event) => event.waitUntil(install()));
scope.addEventListener("activate", (event) => event.waitUntil(removeOthers()));
scope.addEventListener("message", (event) => {
  // The page asks, once the person in front of it has agreed to load the newer one.
  if (event.data === "activate") void scope.skipWaiting();
});
scope.addEventListener("fetch", (event) => {
  const { request } = event;
  const url = new URL(request.url);
  if (request.method !== "GET" || !url.href.startsWith(base.href)) return;
  if (request.mode === "navigate") event.respondWith(fromCache(pageUrl, request));
  else if (kept.has(url.href)) event.respondWith(fromCache(url.href, request));
  else if (url.pathname.startsWith(`${base.pathname}recordings/`)) event.respondWith(recording(event));
});

/** What the device needs of the browser, in one place: tests and other hosts put their own here. */
import { UnsupportedError } from "./errors.ts";
import type { ScoringRuntime } from "./scoring/scorer.ts";
import type { Fetch } from "./transport.ts";

/** The part of `navigator.locks` that is used. */
export interface Locks {
  request(
    name: string,
    options: { readonly signal?: AbortSignal; readonly ifAvailable?: boolean },
    work: (lock: object | null) => Promise<void>,
  ): Promise<void>;
}

/** What a device stands on. */
export interface Platform {
  readonly fetch: Fetch;
  /** UTC epoch milliseconds. */
  readonly clock: () => number;
  readonly indexedDB: IDBFactory | null;
  readonly locks: Locks | null;
  /** Bytes that the browser still gives this page, or null when it does not say. */
  readonly freeBytes: () => Promise<number | null>;
  /** Where models run. */
  readonly runtime: ScoringRuntime;
  /** What the device reports of browser and machine. */
  readonly userAgent: string;
}

/** Return the browser that this page runs in. */
export function browserPlatform(runtime: ScoringRuntime): Platform {
  return {
    fetch: (url, init) => fetch(url, init),
    clock: () => Date.now(),
    indexedDB: storageOf(),
    // Absent on plain http addresses: the types do not say so.
    locks: (navigator.locks as Locks | undefined) ?? null,
    freeBytes,
    runtime,
    userAgent: navigator.userAgent.slice(0, 200),
  };
}

/**
 * Check that the browser has what the device needs.
 *
 * @throws UnsupportedError - With a sentence that says what is missing and what to do.
 */
export function checkPlatform(platform: Platform): void {
  // The types say that they are always there; on http://192.168.0.7 they are not.
  if ((globalThis.crypto as Crypto | undefined)?.subtle === undefined || platform.locks === null) {
    throw new UnsupportedError(
      "The browser checks no signatures on this address: it is plain http to another machine.",
      "webcrypto",
      "Open the page by https, or on the machine itself as http://localhost.",
    );
  }
  if (typeof DecompressionStream !== "function" || typeof CompressionStream !== "function") {
    throw outdated("streams", "unpacks no compressed streams");
  }
  if (typeof WebAssembly !== "object") throw outdated("wasm_simd", "runs no WebAssembly");
}

function outdated(reason: string, what: string): UnsupportedError {
  return new UnsupportedError(
    `This browser ${what}, which the device needs.`,
    reason,
    "Use a current version of Chrome, Edge, Firefox or Safari.",
  );
}

function storageOf(): IDBFactory | null {
  try {
    return (globalThis.indexedDB as IDBFactory | undefined) ?? null;
  } catch (error) {
    // Reading the property itself is refused where a person blocked storage.
    if (!(error instanceof DOMException)) throw error;
    return null;
  }
}

async function freeBytes(): Promise<number | null> {
  const storage = navigator.storage as StorageManager | undefined;
  if (storage === undefined) return null;
  try {
    const { quota, usage } = await storage.estimate();
    return quota === undefined || usage === undefined ? null : Math.max(0, quota - usage);
  } catch (error) {
    // Some private windows refuse the question; writing will tell.
    if (!(error instanceof Error)) throw error;
    return null;
  }
}

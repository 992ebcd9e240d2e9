import { IDBFactory } from "fake-indexeddb";
import type { Platform } from "../../../src/device/platform.ts";
import { ortRuntime } from "../../../src/device/scoring/ort_runtime.ts";
import { FakeLocks } from "./locks.ts";

/** A browser under Node: the real wasm build, a database in memory, a clock that can be set. */
export function testPlatform(parts: Partial<Platform> = {}): Platform {
  return {
    fetch: (url, init) => fetch(url, init),
    clock: () => Date.now(),
    indexedDB: new IDBFactory(),
    locks: new FakeLocks(),
    freeBytes: async () => null,
    runtime: ortRuntime(null),
    userAgent: "Node",
    ...parts,
  };
}

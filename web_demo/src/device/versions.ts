/** Which programs a device runs, and whether a bundle can run on them. */
import { ScoringError, TrustError, UnsupportedError } from "./errors.ts";
import type { Platform } from "./platform.ts";

/** Version of this library; the page reports it to the server. */
const VERSION = "0.1.0";

/**
 * Return what a device reports of the programs it runs, without `onnxruntime` when the scoring runtime has failed: a
 * device that cannot score still has results to send, and tells its server that it lives.
 */
export async function runtimeFields({ runtime, userAgent }: Platform): Promise<Readonly<Record<string, string>>> {
  const fields = { edge_runtime: `web ${VERSION}`, platform: userAgent };
  try {
    return { ...fields, onnxruntime: await runtime.version() };
  } catch (error) {
    if (!(error instanceof ScoringError || error instanceof UnsupportedError)) throw error;
    return fields;
  }
}

/**
 * Check a version bound of a manifest, such as `>=1.20`.
 *
 * @param bound - Another form than `>=` and numbers is not understood and refused.
 * @param installed - The version at hand.
 * @throws TrustError - The version is older, or the bound is not understood (reason `newer_runtime`).
 */
export function checkRuntime(bound: string, installed: string): void {
  const least = /^\s*>=\s*(\d+(?:\.\d+)*)\s*$/.exec(bound)?.[1];
  const found = /^\d+(?:\.\d+)*/.exec(installed)?.[0];
  if (least !== undefined && found !== undefined && !isOlder(found, least)) return;
  throw new TrustError(
    `The bundle needs onnxruntime ${bound}; this page has ${installed || "none"}.`,
    "newer_runtime",
    "Load the newest version of this page; the active bundle stays until then.",
  );
}

function isOlder(version: string, than: string): boolean {
  const [left, right] = [version.split(".").map(Number), than.split(".").map(Number)];
  for (let part = 0; part < Math.max(left.length, right.length); part += 1) {
    const difference = (left[part] ?? 0) - (right[part] ?? 0);
    if (difference !== 0) return difference < 0;
  }
  return false;
}

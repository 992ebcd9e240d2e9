/** What Python wrote for these tests: see `tests/simulators/web_fixtures.py`. */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { inject } from "vitest";
import type { Bytes } from "../../../src/device/contract/bytes.ts";

declare module "vitest" {
  interface ProvidedContext {
    readonly fixtures: string;
  }
}

const GOLDEN = new URL("../../../../tests/golden/", import.meta.url);

/** Return a golden file of the contract. */
export function golden(name: string): Bytes {
  return new Uint8Array(readFileSync(new URL(name, GOLDEN)));
}

/** Return the parsed content of a golden file. */
export function goldenJson<T>(name: string): T {
  return JSON.parse(new TextDecoder().decode(golden(name))) as T;
}

/** What a repository shows at one moment: files in base64 by name. */
export interface Moment {
  readonly metadata: Readonly<Record<string, string>>;
  readonly targets: Readonly<Record<string, string>>;
}

/** What the repository of one test shows, moment after moment. */
export interface Scene {
  readonly line: string;
  readonly moments: Readonly<Record<string, Moment>>;
}

/** Return the scene of a name. */
export function scene(name: string): Scene {
  const scenes = JSON.parse(readFileSync(join(inject("fixtures"), "scenes.json"), "utf8")) as Record<string, Scene>;
  return scenes[name]!;
}

/** One model with windows, and what Python says of them. */
export interface ParityCase {
  readonly name: string;
  readonly file: (name: string) => Bytes;
}

/** Return the parity cases of a folder. */
export function parityCases(folder = join(inject("fixtures"), "parity")): readonly ParityCase[] {
  const names = readdirSync(folder, { withFileTypes: true }).filter(
    (entry) => entry.isDirectory() && entry.name !== "fleet",
  );
  return names.map(({ name }) => ({ name, file: (file) => new Uint8Array(readFileSync(join(folder, name, file))) }));
}

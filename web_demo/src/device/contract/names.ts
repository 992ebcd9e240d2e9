/** Names that travel: models, versions, channels, cohorts and the paths of bundles. */
import { ContractError } from "../errors.ts";
import { sha256Hex, utf8 } from "./bytes.ts";
import type { Json } from "./json.ts";

const NAME = /^[a-z0-9][a-z0-9._-]{0,63}$/;

/** Longest cohort, in characters. */
export const MAX_COHORT_CHARACTERS = 128;

/**
 * Return a model, version or channel name that follows the rule.
 *
 * @param kind - What is named, for the error.
 * @throws ContractError - The name breaks `[a-z0-9][a-z0-9._-]{0,63}`.
 */
export function checkName(kind: "model" | "version" | "channel", name: Json): string {
  if (typeof name !== "string" || !NAME.test(name)) {
    throw new ContractError(
      `'${String(name).slice(0, 80)}' is not a ${kind} name.`,
      "Use 1 to 64 of a-z, 0-9, '.', '_' and '-', beginning with a letter or digit.",
    );
  }
  return name;
}

/** Return the file-name part of a cohort: `default`, or 16 hex digits, since cohorts are free text. */
async function cohortPart(cohort: string | null): Promise<string> {
  return cohort === null ? "default" : (await sha256Hex(utf8(cohort))).slice(0, 16);
}

/**
 * Return the TUF target path `MODEL/VERSION/COHORT.bundle`.
 *
 * @throws ContractError - The model or version breaks the naming rule.
 */
export async function targetPath(model: string, version: string, cohort: string | null): Promise<string> {
  return `${checkName("model", model)}/${checkName("version", version)}/${await cohortPart(cohort)}.bundle`;
}

/**
 * Canonical JSON as TUF signs it: keys sorted, no spaces, only `"` and `\` escaped, whole numbers alone.
 *
 * Source: OLPC canonical JSON as securesystemslib.formats.encode_canonical writes it.
 */
import { ContractError } from "../errors.ts";
import { utf8, type Bytes } from "../contract/bytes.ts";
import { isObject, JsonFloat, type Json } from "../contract/json.ts";

/**
 * Return the bytes that a signature covers.
 *
 * @throws ContractError - A number that is not whole.
 */
export function canonicalBytes(value: Json): Bytes {
  return utf8(encode(value));
}

function encode(value: Json): string {
  if (value instanceof JsonFloat) throw new ContractError("Signed metadata holds a number that is not whole.");
  if (typeof value === "string") return `"${value.replaceAll(/["\\]/g, "\\$&")}"`;
  if (Array.isArray(value)) return `[${(value as readonly Json[]).map(encode).join(",")}]`;
  if (!isObject(value)) return String(value);
  const members = Object.entries(value).sort(([one], [other]) => compareCodePoints(one, other));
  return `{${members.map(([key, item]) => `${encode(key)}:${encode(item)}`).join(",")}}`;
}

/** Compare as Python does: by code points. UTF-16 puts what lies beyond U+FFFF before U+E000 to U+FFFF. */
function compareCodePoints(one: string, other: string): number {
  const [left, right] = [[...one], [...other]];
  for (const [index, character] of left.entries()) {
    const against = right[index];
    if (against === undefined) return 1;
    const difference = character.codePointAt(0)! - against.codePointAt(0)!;
    if (difference !== 0) return difference;
  }
  return left.length - right.length;
}

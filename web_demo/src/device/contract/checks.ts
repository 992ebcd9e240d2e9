/**
 * Small strict readers for values that came from JSON: each returns the typed value or says what is wrong.
 *
 * Booleans are never taken for numbers, numbers must be finite, and every message names the field.
 */
import { ContractError } from "../errors.ts";
import { isObject, JsonFloat, type Json, type JsonObject } from "./json.ts";

/** 9999-12-31T23:59:59Z in milliseconds: past it neither Python nor Postgres can show a date. */
export const LATEST_MS = 253_402_300_799_000;

const HEX64 = /^[0-9a-f]{64}$/;
const HEX32 = /^[0-9a-f]{32}$/;
const CONTROL = /[\u0000-\u001f\u007f]/;

/** Bounds of a number. */
export interface Bounds {
  readonly least?: number;
  readonly most?: number;
}

/**
 * Return a field that must be there.
 *
 * @throws ContractError - The field is missing.
 */
export function get(object: JsonObject, field: string): Json {
  const value = Object.hasOwn(object, field) ? object[field] : undefined;
  if (value === undefined) throw new ContractError(`Field '${field}' is missing.`, "", { field });
  return value;
}

/** Return a field, or null when it is missing. */
export function optional(object: JsonObject, field: string): Json {
  return (Object.hasOwn(object, field) ? object[field] : undefined) ?? null;
}

/**
 * Return text of at most `most` characters without control characters and lone surrogates.
 *
 * @throws ContractError - Another type, too long, or such characters inside.
 */
export function text(value: Json, field: string, most = 256): string {
  if (typeof value !== "string" || !isShort(value, most) || CONTROL.test(value) || !value.isWellFormed()) {
    throw new ContractError(`Field '${field}' must be text of at most ${most} characters.`, "", { field });
  }
  return value;
}

/**
 * Return a whole number within bounds; `1.0` is none.
 *
 * @throws ContractError - Another type or out of bounds.
 */
export function integer(
  value: Json,
  field: string,
  { least = 0, most = Number.MAX_SAFE_INTEGER }: Bounds = {},
): number {
  if (typeof value !== "number" || value < least || value > most) {
    throw new ContractError(`Field '${field}' must be a whole number from ${least} to ${most}.`, "", { field });
  }
  return value;
}

/**
 * Return a time in UTC epoch milliseconds, between 1970 and 9999.
 *
 * @throws ContractError - Another type or out of bounds.
 */
export function moment(value: Json, field: string): number {
  return integer(value, field, { most: LATEST_MS });
}

/**
 * Return a finite number within bounds.
 *
 * @throws ContractError - Another type, not finite, or out of bounds.
 */
export function number(value: Json, field: string, { least = -Infinity, most = Infinity }: Bounds = {}): number {
  const found = value instanceof JsonFloat ? value.value : value;
  if (typeof found !== "number") throw new ContractError(`Field '${field}' must be a number.`, "", { field });
  if (!Number.isFinite(found) || found < least || found > most) {
    throw new ContractError(`Field '${field}' must be a finite number from ${least} to ${most}.`, "", { field });
  }
  return found;
}

/**
 * Return a boolean.
 *
 * @throws ContractError - Another type.
 */
export function flag(value: Json, field: string): boolean {
  if (typeof value !== "boolean") throw new ContractError(`Field '${field}' must be true or false.`, "", { field });
  return value;
}

/**
 * Return a list of at most `most` items.
 *
 * @throws ContractError - Another type or too many items.
 */
export function array(value: Json, field: string, most: number): readonly Json[] {
  if (!Array.isArray(value) || value.length > most) {
    throw new ContractError(`Field '${field}' must be a list of at most ${most} items.`, "", { field });
  }
  return value as readonly Json[];
}

/**
 * Return a JSON object.
 *
 * @throws ContractError - Another type.
 */
export function table(value: Json, field: string): JsonObject {
  if (!isObject(value)) throw new ContractError(`Field '${field}' must be an object.`, "", { field });
  return value;
}

/**
 * Return a SHA-256 digest in 64 lower-case hex digits.
 *
 * @throws ContractError - Anything else.
 */
export function hex64(value: Json, field: string): string {
  if (typeof value !== "string" || !HEX64.test(value)) {
    throw new ContractError(`Field '${field}' must be a SHA-256 digest in 64 lower-case hex digits.`, "", { field });
  }
  return value;
}

/**
 * Return a 128-bit id in 32 lower-case hex digits.
 *
 * @throws ContractError - Anything else.
 */
export function hex32(value: Json, field: string): string {
  if (typeof value !== "string" || !HEX32.test(value)) {
    throw new ContractError(`Field '${field}' must be 32 lower-case hex digits.`, "", { field });
  }
  return value;
}

/** Say whether a text has at most so many characters, as Python counts them: code points, not UTF-16 units. */
export function isShort(value: string, most: number): boolean {
  return value.length <= most || (value.length <= 2 * most && [...value].length <= most);
}

/**
 * JSON as the contract reads it: UTF-8, no key twice in an object, no NaN or Infinity, whole numbers told from others.
 *
 * `JSON.parse` keeps the last of two equal keys and cannot tell 1 from 1.0. Both differences would let one document
 * mean two things, here and on a device that runs Python.
 */
import { ContractError } from "../errors.ts";

/** A number that was written with a fraction or an exponent, or is too large to be held exactly. */
export class JsonFloat {
  readonly value: number;

  constructor(value: number) {
    this.value = value;
  }
}

/** A JSON value; whole numbers are `number`, all others {@link JsonFloat}. */
export type Json = null | boolean | number | string | JsonFloat | readonly Json[] | JsonObject;

/** A JSON object, without a prototype. */
export interface JsonObject {
  readonly [key: string]: Json;
}

// Python stops near its recursion limit of 1,000; nothing in the contract is deeper than 8.
const MAX_DEPTH = 200;
const NUMBER = /-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?/y;
const SPACE = /[ \t\n\r]*/y;
// Up to the closing quote; control characters may not stand inside.
const STRING = /"(?:[^"\\\u0000-\u001f]|\\.)*"/y;

/**
 * Read one JSON object from bytes.
 *
 * @param data - UTF-8 JSON.
 * @param what - Name of the document, for the error.
 * @throws ContractError - Not UTF-8, not JSON, not an object, a repeated key, or too deep.
 */
export function parseObject(data: Uint8Array, what: string): JsonObject {
  const value = parse(data, what);
  if (!isObject(value)) throw new ContractError(`${what} is not a JSON object.`);
  return value;
}

/** Say whether a JSON value is an object. */
export function isObject(value: Json | undefined): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value) && !(value instanceof JsonFloat);
}

/**
 * Read one JSON value from bytes.
 *
 * @throws ContractError - As {@link parseObject}, but any value will do.
 */
export function parse(data: Uint8Array, what: string): Json {
  let text: string;
  try {
    text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(data);
  } catch (error) {
    if (!(error instanceof TypeError)) throw error;
    throw new ContractError(`${what} is not valid JSON: it is not UTF-8.`);
  }
  return new Parser(text, what).document();
}

class Parser {
  private readonly text: string;
  private readonly what: string;
  private at = 0;

  constructor(text: string, what: string) {
    this.text = text;
    this.what = what;
  }

  document(): Json {
    const value = this.value(0);
    this.space();
    if (this.at !== this.text.length) throw this.broken("something follows its end");
    return value;
  }

  private value(depth: number): Json {
    if (depth > MAX_DEPTH) throw this.broken("it is nested too deeply");
    this.space();
    switch (this.text[this.at]) {
      case "{":
        return this.object(depth);
      case "[":
        return this.array(depth);
      case '"':
        return this.string();
      case "t":
        return this.word("true", true);
      case "f":
        return this.word("false", false);
      case "n":
        return this.word("null", null);
      default:
        return this.number();
    }
  }

  private object(depth: number): JsonObject {
    const result = Object.create(null) as Record<string, Json>;
    this.at += 1;
    if (this.skips("}")) return result;
    do {
      this.space();
      const key = this.string();
      if (key in result) throw this.broken("a key appears twice");
      if (!this.skips(":")) throw this.broken(`a colon is missing at ${this.at}`);
      result[key] = this.value(depth + 1);
    } while (this.skips(","));
    if (!this.skips("}")) throw this.broken(`an object does not end at ${this.at}`);
    return result;
  }

  private array(depth: number): readonly Json[] {
    const result: Json[] = [];
    this.at += 1;
    if (this.skips("]")) return result;
    do {
      result.push(this.value(depth + 1));
    } while (this.skips(","));
    if (!this.skips("]")) throw this.broken(`a list does not end at ${this.at}`);
    return result;
  }

  private string(): string {
    const match = this.match(STRING);
    if (match === null) throw this.broken(`text is expected at ${this.at}`);
    try {
      return JSON.parse(match[0]) as string;
    } catch (error) {
      if (!(error instanceof SyntaxError)) throw error;
      throw this.broken("a text has a bad escape");
    }
  }

  private number(): number | JsonFloat {
    const match = this.match(NUMBER);
    if (match === null) throw this.broken(`a value is expected at ${this.at}`);
    const value = Number(match[0]);
    const whole = match[1] === undefined && match[2] === undefined && Number.isSafeInteger(value);
    // -0 as a whole number is 0 in every other language.
    return whole ? value + 0 : new JsonFloat(value);
  }

  private word<T extends boolean | null>(word: string, value: T): T {
    if (!this.text.startsWith(word, this.at)) throw this.broken(`a value is expected at ${this.at}`);
    this.at += word.length;
    return value;
  }

  private skips(character: string): boolean {
    this.space();
    if (this.text[this.at] !== character) return false;
    this.at += 1;
    return true;
  }

  private space(): void {
    this.match(SPACE);
  }

  private match(pattern: RegExp): RegExpExecArray | null {
    pattern.lastIndex = this.at;
    const match = pattern.exec(this.text);
    if (match !== null) this.at = pattern.lastIndex;
    return match;
  }

  private broken(how: string): ContractError {
    return new ContractError(`${this.what} is not valid JSON: ${how}.`);
  }
}

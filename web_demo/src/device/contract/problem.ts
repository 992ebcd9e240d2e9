/** How a server says no: application/problem+json (RFC 9457) with a short code and advice. */
import { ContractError } from "../errors.ts";
import { isObject, parse, type JsonObject } from "./json.ts";

/** Media type of such an answer. */
const MEDIA_TYPE = "application/problem+json";

/** One refusal. */
export interface Problem {
  /** The status of the HTTP answer. */
  readonly status: number;
  /** Short code for machines, such as `token_revoked`. */
  readonly code: string;
  readonly title: string;
  /** One sentence: what happened, to what. */
  readonly detail: string;
  /** One sentence: what to do next. */
  readonly advice: string;
}

/**
 * Read a body leniently: it is only shown to a person, whatever a server or a proxy put into it.
 *
 * @param body - The answer's body, cut short as it may be.
 * @param mediaType - Its `Content-Type`.
 * @param status - Its HTTP status, which counts.
 */
export function readProblem(body: Uint8Array, mediaType: string, status: number): Problem {
  const value = mediaType.split(";")[0]?.trim().toLowerCase() === MEDIA_TYPE ? objectOf(body) : {};
  const shown = (field: string, most: number): string => {
    const item = value[field];
    return typeof item === "string" ? printable(item).slice(0, most) : "";
  };
  return {
    status,
    code: shown("code", 64),
    title: shown("title", 200),
    detail: shown("detail", 500),
    advice: shown("advice", 500),
  };
}

function objectOf(body: Uint8Array): JsonObject {
  try {
    const value = parse(body, "The answer");
    return isObject(value) ? value : {};
  } catch (error) {
    if (!(error instanceof ContractError)) throw error;
    return {};
  }
}

function printable(text: string): string {
  return text.replace(/[\p{C}\p{Zl}\p{Zp}]/gu, "");
}

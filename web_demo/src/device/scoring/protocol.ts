/** What a page and its scoring worker say to each other. */
import type { Bytes } from "../contract/bytes.ts";
import type { ErrorFields } from "../errors.ts";
import type { Windows } from "../windows.ts";
import type { Verdicts } from "./scorer.ts";

/** What the page asks. */
export type Question =
  | { readonly kind: "version" }
  | { readonly kind: "load"; readonly model: Bytes }
  | { readonly kind: "score" | "rawScores" | "regimes"; readonly scorer: number; readonly windows: Windows }
  | { readonly kind: "close"; readonly scorer: number };

/** What the worker answers to each kind of question. */
export type Reply = string | number | Verdicts | Float32Array | Int32Array | null;

/** An error that crosses the border as a value. */
export interface Failure {
  readonly kind: "scoring" | "unsupported" | "bug";
  readonly message: string;
  readonly reason: string;
  readonly advice: string;
  readonly fields: ErrorFields;
}

/** A question with its number. */
export interface Asked {
  readonly id: number;
  readonly question: Question;
}

/** An answer with the number of its question. */
export type Answered =
  { readonly id: number; readonly reply: Reply } | { readonly id: number; readonly failure: Failure };

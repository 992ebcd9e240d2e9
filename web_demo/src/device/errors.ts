/**
 * Every error that the device raises on purpose, in one tree.
 *
 * ```
 * StellaError
 * ├── ContractError     bytes or values that break a format of the contract
 * ├── InputError        readings or options that cannot be used
 * ├── TrustError        a signature, metadata or enrolment that is refused
 * ├── TransportError    the network or the server did not do its part
 * ├── StorageError      the browser's storage did not do its part: full, denied, damaged
 * ├── ScoringError      a model that cannot be loaded, trusted or run
 * └── UnsupportedError  the browser lacks what the device needs
 * ```
 *
 * Each carries one sentence for a person, advice on what to do next, and a code or reason for machines: the same reason
 * codes as the Python device reports.
 */

/** Machine-readable details of an error. */
export type ErrorFields = Readonly<Record<string, string | number | boolean | null>>;

/** What happened, to what, and what to do about it. */
export class StellaError extends Error {
  /** The kind of error, for machines. */
  readonly code: string = "error";
  /** One sentence: what to do next; empty when the message says it all. */
  readonly advice: string;
  /** Machine-readable details. */
  readonly fields: ErrorFields;

  /**
   * @param message - One sentence: what happened, to which bundle, file or request.
   * @param advice - One sentence: what to do next.
   * @param fields - Machine-readable details.
   */
  constructor(message: string, advice = "", fields: ErrorFields = {}) {
    super(message);
    this.name = new.target.name;
    this.advice = advice;
    this.fields = fields;
  }

  /** Both sentences, as a page shows them. */
  override toString(): string {
    return `${this.message} ${this.advice}`.trim();
  }
}

/** Bytes or values that break a format of the contract. */
export class ContractError extends StellaError {
  override readonly code = "contract";
}

/** Readings or options that a person or an app gave and that cannot be used. */
export class InputError extends StellaError {
  override readonly code: string = "input";
}

/** A signature, metadata, release or enrolment that is refused. */
export class TrustError extends StellaError {
  override readonly code = "trust";
  /** The reason code that is reported to the server. */
  readonly reason: string;

  /** @param reason - The reason code, such as `bad_signature`. */
  constructor(message: string, reason: string, advice = "", fields: ErrorFields = {}) {
    super(message, advice, { ...fields, reason });
    this.reason = reason;
  }
}

/** What is known of an answer that did not do. */
export interface AnswerFacts {
  /** HTTP status, or null when no answer came. */
  readonly status?: number | null;
  /** What the server asked for, in seconds, or null. */
  readonly retryAfterSeconds?: number | null;
  /** The code of a problem+json body, or empty. */
  readonly problem?: string;
}

/** The network or the server did not do its part. */
export class TransportError extends StellaError {
  override readonly code = "transport";
  readonly status: number | null;
  readonly retryAfterSeconds: number | null;
  readonly problem: string;

  constructor(message: string, advice = "", facts: AnswerFacts = {}) {
    super(message, advice, { status: facts.status ?? null, problem: facts.problem ?? "" });
    this.status = facts.status ?? null;
    this.retryAfterSeconds = facts.retryAfterSeconds ?? null;
    this.problem = facts.problem ?? "";
  }
}

/** The browser's storage did not do its part: full, denied, damaged, closed. */
export class StorageError extends StellaError {
  override readonly code = "storage";
  /** `disk_full`, `storage_denied`, `slot_damaged`, `not_enrolled` or `storage_failed`. */
  readonly reason: string;

  constructor(message: string, reason: string, advice = "") {
    super(message, advice, { reason });
    this.reason = reason;
  }
}

/** A model that cannot be loaded, fails its golden windows, or cannot score what it was given. */
export class ScoringError extends StellaError {
  override readonly code = "scoring";
  /** The reason code that is reported to the server, such as `golden_failed`. */
  readonly reason: string;

  constructor(message: string, reason: string, advice = "", fields: ErrorFields = {}) {
    super(message, advice, { ...fields, reason });
    this.reason = reason;
  }
}

/** The browser lacks what the device needs: `webcrypto`, `wasm_simd`, `wasm_unavailable` or `streams`. */
export class UnsupportedError extends StellaError {
  override readonly code = "unsupported";
  readonly reason: string;

  constructor(message: string, reason: string, advice: string) {
    super(message, advice, { reason });
    this.reason = reason;
  }
}

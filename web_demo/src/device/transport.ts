/**
 * Requests to the server: bounded in size and time, closed to redirects, and every failure one TransportError.
 *
 * A token must not travel to where a redirect points, no cookie goes along, and the browser's own cache is asked to
 * revalidate, so that an old answer is never taken for the server's word.
 */
import { parseRetryAfter } from "./backoff.ts";
import { concat, type Bytes } from "./contract/bytes.ts";
import { parseObject, type JsonObject } from "./contract/json.ts";
import { readProblem } from "./contract/problem.ts";
import { ContractError, TransportError, TrustError } from "./errors.ts";
import { checkUrl } from "./contract/enrolment.ts";
import { TARGETS } from "./contract/routes.ts";

/** Enough for any problem+json body, small enough to throw away. */
const MAX_PROBLEM_BYTES = 16_384;
/** The JSON answers of the API name ranges, ids and counts. */
export const MAX_JSON_BYTES = 2 ** 20;

/** The platform's `fetch`, or a simulator. */
export type Fetch = (url: string, init: RequestInit) => Promise<Response>;

/** One request. */
export interface Request {
  readonly method: "GET" | "POST";
  /** From the root of the server's URL, beginning with a slash. */
  readonly path: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: Bytes;
  /** Most bytes of an expected answer. */
  readonly limit: number;
  /** Statuses that are no error; 200 alone when absent. */
  readonly expected?: readonly number[];
  /** Told (bytes here) while the answer arrives. */
  readonly progress?: (bytes: number) => void;
  /** Longest time until the last byte, in milliseconds; the transport's own when absent. */
  readonly deadlineMs?: number;
}

/** How long to wait. */
export interface Patience {
  /** Longest silence, in milliseconds. */
  readonly silenceMs: number;
  /** Longest time for an answer as a whole, in milliseconds. */
  readonly deadlineMs: number;
}

/** As the Python device waits: 20 s of silence, a minute in all. */
export const DEFAULT_PATIENCE: Patience = { silenceMs: 20_000, deadlineMs: 60_000 };

/** Return the header that carries a token. */
export function bearer(token: string): Record<string, string> {
  return { Authorization: `Bearer ${token}` };
}

/** The way to one server. */
export class Transport {
  readonly serverUrl: string;
  /** How far the server's clock was ahead of this device's at the last answer, in milliseconds; null when not known. */
  clockOffsetMs: number | null = null;
  private readonly fetch: Fetch;
  private readonly clock: () => number;
  private readonly patience: Patience;

  /**
   * @param serverUrl - `https://host[:port][/path]`.
   * @param fetch - The platform's `fetch`, or a simulator.
   * @param clock - The device's clock, UTC epoch milliseconds.
   * @param patience - How long to wait.
   * @throws ContractError - The URL is not http(s).
   * @throws TrustError - Plain http to another machine (reason `insecure_http`).
   */
  constructor(serverUrl: string, fetch: Fetch, clock: () => number, patience: Patience = DEFAULT_PATIENCE) {
    checkServerUrl(serverUrl);
    this.serverUrl = serverUrl.replace(/\/+$/, "");
    this.fetch = fetch;
    this.clock = clock;
    this.patience = patience;
  }

  /**
   * Send a request and return the body of its answer.
   *
   * @throws TransportError - No answer, another status than expected, more bytes than the limit, silence, or a
   *   deadline.
   */
  async call(request: Request): Promise<Bytes> {
    const exchange = new Exchange(request, this.describe(request), this.patience);
    try {
      const answer = await exchange.open(this.fetch, this.serverUrl);
      this.noteClock(answer);
      if ((request.expected ?? [200]).includes(answer.status)) return await exchange.body(answer, request.limit);
      throw await this.refusal(request, answer, exchange);
    } finally {
      exchange.close();
    }
  }

  /**
   * Send a request and return the JSON object of its answer.
   *
   * @throws TransportError - As {@link call}, or the answer is no JSON object.
   */
  async callJson(request: Request): Promise<JsonObject> {
    const body = await this.call(request);
    try {
      return parseObject(body, "The answer");
    } catch (error) {
      if (!(error instanceof ContractError)) throw error;
      const page = new TextDecoder().decode(body.subarray(0, 64)).trimStart().startsWith("<");
      throw new TransportError(
        `${this.describe(request)} answered with ${page ? "a web page" : "something that is not JSON"}.`,
        "A proxy or a log-in page may sit between; check the server's address.",
      );
    }
  }

  private describe(request: Request): string {
    return `${request.method} ${this.serverUrl}${request.path}`;
  }

  private noteClock(answer: Response): void {
    const at = Date.parse(answer.headers.get("date") ?? "");
    if (Number.isFinite(at)) this.clockOffsetMs = at - this.clock();
  }

  private async refusal(request: Request, answer: Response, exchange: Exchange): Promise<TransportError> {
    const status = answer.type === "opaqueredirect" ? 302 : answer.status;
    const mediaType = answer.headers.get("content-type") ?? "";
    const said = readProblem(await exchange.beginning(answer, MAX_PROBLEM_BYTES), mediaType, status);
    const sentence = said.detail || said.title || wordsFor(status, mediaType);
    const withToken = (status !== 401 && status !== 403) || request.headers?.["Authorization"] !== undefined;
    const retryAfter = answer.headers.get("retry-after");
    return new TransportError(
      `${this.describe(request)} was answered with ${status}: ${sentence.replace(/\.+$/, "")}.`,
      said.advice || (withToken ? (ADVICE[status] ?? LOG) : PROXY),
      {
        status,
        retryAfterSeconds: retryAfter === null ? null : parseRetryAfter(retryAfter, this.clock()),
        problem: said.code,
      },
    );
  }
}

/** One request under way: its clocks, and the one place where the platform's failures become ours. */
class Exchange {
  private readonly request: Request;
  private readonly what: string;
  private readonly patience: Patience;
  private readonly controller = new AbortController();
  private readonly deadline: ReturnType<typeof setTimeout>;
  private silence: ReturnType<typeof setTimeout> | undefined;
  private outOfTime = "";

  constructor(request: Request, what: string, patience: Patience) {
    this.request = request;
    this.what = what;
    this.patience = patience;
    const deadlineMs = request.deadlineMs ?? patience.deadlineMs;
    this.deadline = setTimeout(() => this.giveUp("took longer than its deadline and was given up"), deadlineMs);
    this.listen();
  }

  async open(fetch: Fetch, serverUrl: string): Promise<Response> {
    const init: RequestInit = {
      method: this.request.method,
      headers: { ...this.request.headers },
      cache: this.cacheMode(),
      credentials: "omit",
      redirect: "manual",
      referrerPolicy: "no-referrer",
      signal: this.controller.signal,
      ...(this.request.body === undefined ? {} : { body: this.request.body }),
    };
    return this.translated(() => fetch(serverUrl + this.request.path, init));
  }

  /** Read a body of at most `limit` bytes. */
  async body(answer: Response, limit: number): Promise<Bytes> {
    const [content, whole] = await this.read(answer, limit);
    if (whole) return content;
    throw new TransportError(
      `${this.what} sent more than the ${limit} bytes that such an answer may have.`,
      "Check the server's address; something else may answer there.",
      { status: answer.status, problem: TOO_LONG },
    );
  }

  /** Read the first bytes of a body, as far as they come. */
  async beginning(answer: Response, most: number): Promise<Bytes> {
    try {
      return (await this.read(answer, most))[0];
    } catch (error) {
      if (!(error instanceof TransportError)) throw error;
      return new Uint8Array(0);
    }
  }

  close(): void {
    clearTimeout(this.deadline);
    clearTimeout(this.silence);
    // What was not read to its end must not go on arriving.
    this.controller.abort();
  }

  /** Bundles are kept by the device: a copy in the browser's cache that came damaged would be taken for the server's. */
  private cacheMode(): RequestCache {
    return this.request.method === "GET" && !this.request.path.startsWith(TARGETS) ? "no-cache" : "no-store";
  }

  private async read(answer: Response, limit: number): Promise<readonly [Bytes, boolean]> {
    if (answer.body === null) return [new Uint8Array(0), true];
    const reader = answer.body.getReader();
    const parts: Uint8Array[] = [];
    for (let size = 0; ;) {
      const { done, value } = await this.translated(() => reader.read());
      if (done) return [concat(parts), true];
      this.listen();
      size += value.length;
      if (size > limit) return [concat(parts), false];
      parts.push(value);
      this.request.progress?.(size);
    }
  }

  private async translated<T>(work: () => Promise<T>): Promise<T> {
    try {
      return await work();
    } catch (error) {
      // fetch rejects with TypeError for every failure of the network, and with AbortError when we gave up.
      if (!(error instanceof Error)) throw error;
      const how = this.outOfTime || "failed: the network or the server is not available";
      throw new TransportError(`${this.what} ${how}.`, "Check the network and that the server runs; nothing is lost.");
    }
  }

  private listen(): void {
    clearTimeout(this.silence);
    this.silence = setTimeout(() => this.giveUp("failed: the server fell silent"), this.patience.silenceMs);
  }

  private giveUp(how: string): void {
    this.outOfTime = how;
    this.controller.abort();
  }
}

/** The `problem` of an answer that is longer than it may be. */
export const TOO_LONG = "answer_too_long";

/**
 * Refuse an address that tokens must not travel to.
 *
 * @throws ContractError - Not an http(s) URL.
 * @throws TrustError - Plain http to another machine (reason `insecure_http`).
 */
function checkServerUrl(url: string): void {
  const parsed = checkUrl(url);
  if (parsed.protocol === "https:" || isLoopback(parsed.hostname)) return;
  throw new TrustError(
    `${url} is plain http to another machine: everybody on the way could read the device's token.`,
    "insecure_http",
    "Use an https address of the server.",
  );
}

function isLoopback(host: string): boolean {
  return host === "localhost" || host === "[::1]" || /^127(\.\d{1,3}){3}$/.test(host);
}

function wordsFor(status: number, mediaType: string): string {
  if (status >= 300 && status < 400) return "the server points elsewhere, and redirects are not followed";
  if (mediaType.includes("html")) {
    return "a web page instead of an answer of the API; a proxy or another program may answer there";
  }
  if (status === 401) return "the token is not accepted";
  if (status === 404) return "there is nothing under this address";
  return status >= 500 ? "the server could not do it" : "the server refused it";
}

const LOG = "It is tried again; the server's log says more.";
const PROXY = "No token is needed for this: a proxy between may ask for a log-in; check the server's address.";
const ADVICE: Readonly<Record<number, string>> = {
  401: "The token was revoked or belongs to another server: enrol this browser again with a new enrolment line.",
  403: "The token does not allow this; ask the operator of the server.",
  404: "Check the server's address.",
};

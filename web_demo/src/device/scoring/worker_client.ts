/** The page's side of the scoring worker: a runtime whose models live in the worker. */
import type { Bytes } from "../contract/bytes.ts";
import { ScoringError, UnsupportedError, type StellaError } from "../errors.ts";
import type { Windows } from "../windows.ts";
import type { Answered, Asked, Failure, Question, Reply } from "./protocol.ts";
import type { Scorer, ScoringRuntime, Verdicts } from "./scorer.ts";

/** The part of a Worker that is used; a test puts a port of its own here. */
export interface Port {
  postMessage(message: Asked): void;
  onmessage: ((event: MessageEvent<Answered>) => void) | null;
  onerror: ((event: ErrorEvent) => void) | null;
  /** End the worker, whatever it does. */
  terminate(): void;
}

const TICK_MS = 5000;
// A worker that was killed for memory says nothing at all. These bounds are far above what an honest one needs: the
// first model waits for ONNX Runtime itself, some 14 MB over whatever link there is.
const PATIENCE_MS = { question: 120_000, load: 600_000, perWindow: 50 } as const;

/** Start the scoring worker and return the runtime that it hosts. */
export function startScoringWorker(): ScoringRuntime {
  return workerRuntime(new Worker(new URL("./scoring_worker.ts", import.meta.url), { type: "module" }));
}

/** Return the runtime behind a port. */
export function workerRuntime(port: Port): ScoringRuntime {
  const questions = new Questions(port);
  return {
    version: async () => (await questions.ask({ kind: "version" })) as string,
    load: async (model: Bytes) => new RemoteScorer(questions, (await questions.ask({ kind: "load", model })) as number),
  };
}

class RemoteScorer implements Scorer {
  private readonly questions: Questions;
  private readonly scorer: number;

  constructor(questions: Questions, scorer: number) {
    this.questions = questions;
    this.scorer = scorer;
  }

  async score(windows: Windows): Promise<Verdicts> {
    return (await this.questions.ask({ kind: "score", scorer: this.scorer, windows })) as Verdicts;
  }

  async rawScores(windows: Windows): Promise<Float32Array> {
    return (await this.questions.ask({ kind: "rawScores", scorer: this.scorer, windows })) as Float32Array;
  }

  async regimes(windows: Windows): Promise<Int32Array> {
    return (await this.questions.ask({ kind: "regimes", scorer: this.scorer, windows })) as Int32Array;
  }

  async close(): Promise<void> {
    if (this.questions.haveFailed) return; // its memory went with the worker
    await this.questions.ask({ kind: "close", scorer: this.scorer });
  }
}

interface Waiting {
  /** How long the answer may take once it is the next one, in milliseconds. */
  readonly patienceMs: number;
  readonly resolve: (reply: Reply) => void;
  readonly reject: (error: StellaError) => void;
}

/** Numbers questions, and gives each answer to the one who asked. */
class Questions {
  private readonly port: Port;
  private readonly waiting = new Map<number, Waiting>();
  private asked = 0;
  private failure: StellaError | null = null;
  private deadline: Deadline | null = null;

  constructor(port: Port) {
    this.port = port;
    port.onmessage = (event) => this.take(event.data);
    // The worker's script could not be loaded, or broke.
    port.onerror = (event) => this.fail(event.message || "its script could not be loaded");
  }

  /** Whether the worker is gone; then nothing is answered any more. */
  get haveFailed(): boolean {
    return this.failure !== null;
  }

  async ask(question: Question): Promise<Reply> {
    if (this.failure !== null) throw this.failure;
    this.asked += 1;
    const id = this.asked;
    return new Promise((resolve, reject) => {
      this.waiting.set(id, { resolve, reject, patienceMs: patienceOf(question) });
      if (this.waiting.size === 1) this.watch();
      this.port.postMessage({ id, question });
    });
  }

  private take(answer: Answered): void {
    const waiting = this.waiting.get(answer.id);
    this.waiting.delete(answer.id);
    this.watch();
    if ("failure" in answer) waiting?.reject(errorOf(answer.failure));
    else waiting?.resolve(answer.reply);
  }

  /** Answers come in the order of the questions, so the time runs for the oldest one alone. */
  private watch(): void {
    this.deadline?.cancel();
    this.deadline = null;
    for (const { patienceMs } of this.waiting.values()) {
      this.deadline = new Deadline(patienceMs, () => this.fail(`it has not answered for ${patienceMs / 1000} s`));
      return;
    }
  }

  /** Nobody will answer what was asked, nor what will be. */
  private fail(reason: string): void {
    const error = new ScoringError(`The scoring worker stopped: ${reason}.`, "run_failed", "Reload the page.");
    this.failure = error;
    const waiting = [...this.waiting.values()];
    this.waiting.clear();
    this.watch();
    this.port.terminate();
    for (const { reject } of waiting) reject(error);
  }
}

/** Counts time in ticks: a computer that slept, or a page that was frozen, has lost one tick and not its patience. */
class Deadline {
  private readonly timer: ReturnType<typeof setInterval>;
  private left: number;

  constructor(milliseconds: number, passed: () => void) {
    this.left = Math.ceil(milliseconds / TICK_MS);
    this.timer = setInterval(() => {
      this.left -= 1;
      if (this.left <= 0) passed();
    }, TICK_MS);
  }

  cancel(): void {
    clearInterval(this.timer);
  }
}

function patienceOf(question: Question): number {
  if (question.kind === "load") return PATIENCE_MS.load;
  return PATIENCE_MS.question + ("windows" in question ? PATIENCE_MS.perWindow * question.windows.count : 0);
}

function errorOf(failure: Failure): StellaError {
  if (failure.kind === "unsupported") return new UnsupportedError(failure.message, failure.reason, failure.advice);
  return new ScoringError(failure.message, failure.reason, failure.advice, failure.fields);
}

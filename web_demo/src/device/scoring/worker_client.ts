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
}

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
    await this.questions.ask({ kind: "close", scorer: this.scorer });
  }
}

interface Waiting {
  readonly resolve: (reply: Reply) => void;
  readonly reject: (error: StellaError) => void;
}

/** Numbers questions, and gives each answer to the one who asked. */
class Questions {
  private readonly port: Port;
  private readonly waiting = new Map<number, Waiting>();
  private asked = 0;

  constructor(port: Port) {
    this.port = port;
    port.onmessage = (event) => this.take(event.data);
    port.onerror = (event) => this.fail(event);
  }

  async ask(question: Question): Promise<Reply> {
    this.asked += 1;
    const id = this.asked;
    return new Promise((resolve, reject) => {
      this.waiting.set(id, { resolve, reject });
      this.port.postMessage({ id, question });
    });
  }

  private take(answer: Answered): void {
    const waiting = this.waiting.get(answer.id);
    this.waiting.delete(answer.id);
    if ("failure" in answer) waiting?.reject(errorOf(answer.failure));
    else waiting?.resolve(answer.reply);
  }

  /** The worker's script could not be loaded or broke: nobody will answer what was asked. */
  private fail(event: ErrorEvent): void {
    const reason = event.message || "its script could not be loaded";
    const error = new ScoringError(`The scoring worker stopped: ${reason}.`, "run_failed", "Reload the page.");
    for (const { reject } of this.waiting.values()) reject(error);
    this.waiting.clear();
  }
}

function errorOf(failure: Failure): StellaError {
  if (failure.kind === "unsupported") return new UnsupportedError(failure.message, failure.reason, failure.advice);
  return new ScoringError(failure.message, failure.reason, failure.advice, failure.fields);
}

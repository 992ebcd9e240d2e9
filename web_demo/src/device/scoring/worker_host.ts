/** The worker's side: takes questions, runs models, answers. Knows nothing of the worker that carries it. */
import { ScoringError, UnsupportedError } from "../errors.ts";
import type { Answered, Asked, Failure, Question, Reply } from "./protocol.ts";
import type { Scorer, ScoringRuntime } from "./scorer.ts";

/** Answers questions one after the other, in the order in which they come. */
export class WorkerHost {
  private readonly runtime: ScoringRuntime;
  private readonly scorers = new Map<number, Scorer>();
  private loaded = 0;
  private last: Promise<unknown> = Promise.resolve();

  constructor(runtime: ScoringRuntime) {
    this.runtime = runtime;
  }

  /** Answer one question; never rejects, since an error is an answer too. */
  answer(asked: Asked): Promise<Answered> {
    const answer = this.last.then(async (): Promise<Answered> => {
      try {
        return { id: asked.id, reply: await this.reply(asked.question) };
      } catch (error) {
        return { id: asked.id, failure: failureOf(error) };
      }
    });
    this.last = answer;
    return answer;
  }

  private async reply(question: Question): Promise<Reply> {
    switch (question.kind) {
      case "version":
        return this.runtime.version();
      case "load":
        this.loaded += 1;
        this.scorers.set(this.loaded, await this.runtime.load(question.model));
        return this.loaded;
      case "close":
        await this.scorer(question.scorer).close();
        this.scorers.delete(question.scorer);
        return null;
      default:
        return this.scorer(question.scorer)[question.kind](question.windows);
    }
  }

  private scorer(number: number): Scorer {
    const scorer = this.scorers.get(number);
    if (scorer === undefined) throw new ScoringError("The model was closed.", "run_failed");
    return scorer;
  }
}

function failureOf(error: unknown): Failure {
  if (error instanceof ScoringError || error instanceof UnsupportedError) {
    const { code: kind, message, reason, advice, fields } = error;
    return { kind, message, reason, advice, fields };
  }
  return { kind: "bug", message: String(error), reason: "run_failed", advice: "", fields: {} };
}

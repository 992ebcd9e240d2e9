/** Work that is done one thing after the other, in the order in which it was asked for. */
export class Queue {
  private last: Promise<unknown> = Promise.resolve();

  /** Do something when what was asked for before is done, however that ended. */
  async run<T>(work: () => Promise<T>): Promise<T> {
    const turn = this.last.then(work);
    this.last = turn.catch(() => undefined);
    return turn;
  }

  /** Resolves when nothing is left to do. */
  async idle(): Promise<void> {
    await this.last;
  }
}

/** Mean and largest of numbers as they come, in the same room however many there are. */
export class Tally {
  private sum = 0;
  private largest = NaN;
  private numbers = 0;

  /** Count a number. */
  add(value: number): void {
    this.sum += value;
    this.largest = this.numbers === 0 ? value : Math.max(this.largest, value);
    this.numbers += 1;
  }

  /** Forget every number. */
  clear(): void {
    this.sum = 0;
    this.largest = NaN;
    this.numbers = 0;
  }

  /** How many were counted. */
  get count(): number {
    return this.numbers;
  }

  /** Their mean; NaN when there is none. */
  get mean(): number {
    return this.sum / this.numbers;
  }

  /** The largest; NaN when there is none. */
  get most(): number {
    return this.largest;
  }
}

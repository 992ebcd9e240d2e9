/** Where readings come from: this browser's own signals, or a recording. */
import type { Reading } from "../../device/readings.ts";

/** Something that can be measured again and again. */
export interface Source {
  /** What the page calls it. */
  readonly name: string;
  /** Whether its pace can be chosen, or is the clock's. */
  readonly hasPace: boolean;
  /**
   * Return the next readings, at most so many; empty at the end.
   *
   * @param most - 1 for a source without a pace.
   */
  take(most: number): readonly Reading[];
  /** Nothing is taken now: what is measured meanwhile must not count in the next reading. */
  skip(): void;
  /** Make a fault happen for a while. */
  breakDown(): void;
  /** One sentence: where it stands, what is missing, what is broken now. */
  describe(): string;
  /** Stop measuring. */
  close(): void;
}

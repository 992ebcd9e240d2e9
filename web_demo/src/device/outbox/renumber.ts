/** New numbers for what moves into a new stream: no holes, the same order, lost runs kept as runs. Pure. */

/** Old numbers to new ones. */
export interface NewNumbers {
  /** New number of each record, by its old one. */
  readonly records: ReadonlyMap<number, number>;
  /** New first number of each lost run, by its old first one. */
  readonly runs: ReadonlyMap<number, number>;
  /** The number after the last. */
  readonly following: number;
}

/**
 * Number records and lost runs from 1, in their old order.
 *
 * A gap record speaks of numbers of its own stream. When it moves into a new stream, the run that it names moves along
 * and takes as many numbers there, so that the server finds no hole without a gap record in either.
 *
 * @param records - Old numbers.
 * @param runs - (first, last) of the lost runs that the gap records among them name, disjoint.
 */
export function renumbered(records: readonly number[], runs: readonly (readonly [number, number])[]): NewNumbers {
  const numbers = { records: new Map<number, number>(), runs: new Map<number, number>() };
  const items = [
    ...records.map((number) => ({ first: number, last: number, into: numbers.records })),
    ...runs.map(([first, last]) => ({ first, last, into: numbers.runs })),
  ].sort((one, other) => one.first - other.first);
  let following = 1;
  for (const { first, last, into } of items) {
    into.set(first, following);
    following += last - first + 1;
  }
  return { ...numbers, following };
}

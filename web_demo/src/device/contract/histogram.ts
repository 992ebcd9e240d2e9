/** The one set of edges for every histogram of anomaly scores: training, summaries, drift. */

/** Fine where verdicts are decided: up to .999 an anomaly score is the share of healthy windows below it. */
export const EDGES: readonly number[] = [
  0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 0.995, 0.999, 0.9999, 1,
];

/** Number of bins. */
export const BINS = EDGES.length - 1;

/**
 * Return the bin of a score: bin i holds edges[i] to below edges[i + 1], the last one 1 as well.
 *
 * @param anomalyScore - In [0, 1].
 * @throws RangeError - The score is outside [0, 1] or NaN.
 */
export function binOf(anomalyScore: number): number {
  if (!(anomalyScore >= 0 && anomalyScore <= 1))
    throw new RangeError(`anomaly score ${anomalyScore} is outside [0, 1]`);
  const above = EDGES.findIndex((edge) => edge > anomalyScore);
  return above === -1 ? BINS - 1 : above - 1;
}

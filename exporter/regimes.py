"""Regimes: the few typical contexts of a fleet, and what is healthy in each.

Context is scaled by its mean and spread, k-means finds the centroids, and the number of regimes is the one with the
best silhouette (Rousseeuw 1987): 1 to 16, and 1 when no split is clear.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.cluster import KMeans
from sklearn.metrics import silhouette_score
from threadpoolctl import threadpool_limits

from edge_runtime.contract.manifest import MAX_REGIMES, Regimes

# A silhouette above .5 speaks of a reasonable structure (Kaufman, Rousseeuw 1990); noise cut in pieces stays below
# in two and more dimensions.
CLEAR_SILHOUETTE = 0.55
# More regimes must be better by this much: equal splits differ in the third digit by sampling alone.
WORTH_IT = 0.005
SAMPLE_FOR_CLUSTERS = 2_000
SAMPLE_FOR_SILHOUETTE = 1_000
# A regime of fewer readings has no mean and spread worth the name.
FEWEST_IN_REGIME = 50

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Clusters:
    """Regimes of the context alone.

    Attributes:
        centroids: (K, C) in training spreads.
        means: (C,) of the context, in its unit.
        spreads: (C,) of the context, in its unit; 1 where it is constant.
    """

    centroids: FloatArray
    means: FloatArray
    spreads: FloatArray

    def nearest(self, context: FloatArray) -> npt.NDArray[np.int64]:
        """Return the regime of each reading of (n, C) context without missing values: (n,)."""
        apart = (context[:, None, :] - (self.means + self.spreads * self.centroids)) / self.spreads
        result: npt.NDArray[np.int64] = np.square(apart).sum(axis=2).argmin(axis=1)
        return result


def find_clusters(context: npt.NDArray[np.floating], seed: int) -> Clusters:
    """Find the regimes of a fleet's context.

    Args:
        context: (n, C) healthy training readings; those with a missing value are left out.
        seed: Of sampling and k-means.
    """
    known = context[~np.isnan(context).any(axis=1)]
    if not len(known):
        columns = context.shape[1]
        return Clusters(np.zeros((1, columns)), np.zeros(columns), np.ones(columns))
    means, spreads = known.mean(axis=0, dtype=np.float64), known.std(axis=0, dtype=np.float64)
    constant = known.min(axis=0) == known.max(axis=0)
    means, spreads = np.where(constant, known[0], means), np.where(constant, 1.0, spreads)
    rng = np.random.default_rng(seed)
    sample = (known[rng.permutation(len(known))[:SAMPLE_FOR_CLUSTERS]] - means) / spreads
    # On samples this small k-means waits for its threads longer than it computes, ten times so on a busy machine.
    with threadpool_limits(limits=1):
        return Clusters(_best_centroids(sample, seed), means, spreads)


def fit_regimes(clusters: Clusters, context: FloatArray, signals: FloatArray) -> Regimes:
    """Measure what is healthy in each regime.

    Args:
        clusters: The regimes.
        context: (n, C) healthy training readings.
        signals: (n, P) the same readings' other signals.

    Returns:
        The regimes as the manifest holds them. A signal that is constant in a regime has that value for a mean,
        exactly, and a spread of 1, so that its residual is exactly 0; one without values takes the whole fleet's.
    """
    known = ~np.isnan(context).any(axis=1)
    place = np.full(len(context), -1)
    place[known] = clusters.nearest(context[known])
    overall = _centre(signals, np.zeros(signals.shape[1]), np.ones(signals.shape[1]))
    rows = [_centre(signals[place == k], *overall) for k in range(len(clusters.centroids))]
    return Regimes(
        centroids=_table(clusters.centroids),
        context_means=tuple(clusters.means.tolist()),
        context_spreads=tuple(clusters.spreads.tolist()),
        means=_table(np.stack([mean for mean, _ in rows])),
        spreads=_table(np.stack([spread for _, spread in rows])),
    )


def _centre(values: FloatArray, empty_mean: FloatArray, empty_spread: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return mean and spread of each column, blind to missing values."""
    present = ~np.isnan(values)
    count = present.sum(axis=0)
    some = np.maximum(count, 1)
    mean = np.where(present, values, 0.0).sum(axis=0) / some
    spread = np.sqrt(np.where(present, np.square(values - mean), 0.0).sum(axis=0) / some)
    low = np.where(present, values, np.inf).min(axis=0, initial=np.inf)
    high = np.where(present, values, -np.inf).max(axis=0, initial=-np.inf)
    constant = low == high
    mean, spread = np.where(constant, low, mean), np.where(constant | (spread == 0), 1.0, spread)
    return np.where(count > 0, mean, empty_mean), np.where(count > 0, spread, empty_spread)


def _best_centroids(sample: FloatArray, seed: int) -> FloatArray:
    distinct = len(np.unique(sample, axis=0))
    best, best_silhouette = sample.mean(axis=0, keepdims=True), CLEAR_SILHOUETTE
    rng = np.random.default_rng(seed)
    judged = rng.permutation(len(sample))[:SAMPLE_FOR_SILHOUETTE]
    fewest = min(FEWEST_IN_REGIME, len(sample) // 20)
    for count in range(2, min(MAX_REGIMES, distinct, len(sample) - 1) + 1):
        clusters = KMeans(count, n_init=4, random_state=seed).fit(sample)
        if np.bincount(clusters.labels_, minlength=count).min() < max(1, fewest):
            continue
        labels = clusters.labels_[judged]
        if not 1 < len(np.unique(labels)) < len(labels):
            continue
        silhouette = float(silhouette_score(sample[judged], labels))
        if silhouette > best_silhouette + WORTH_IT:
            best, best_silhouette = clusters.cluster_centers_, silhouette
    ordered: FloatArray = best[np.lexsort(best.T[::-1])]
    return ordered


def _table(values: FloatArray) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(row) for row in values.tolist())

"""codebook8: a forest whose thresholds and leaf values take at most 256 values each, so that it deflates better.

Affine 8-bit inputs destroy heavy-tailed signals: a step of max / 255 is wider than all that is normal. So the levels
come from the forest: per feature, its thresholds are grouped by Lloyd's algorithm on a scale that is even where they
lie dense and logarithmic in the tails, asinh((x - median) / spread). Where training values are given, the share of them
that lies below counts as much: thresholds between the same two values are then one group, since no row tells them
apart, which loses a tenth as much on signals of few values (asd, letter, satellite). A threshold counts half as much
as one a level above it, because half the rows get there.

Each group becomes the shortest float32 near its mean, the one with the most zero bits at the end: deflate makes nothing
of 256 levels as such, and much of bytes that are zero. Tensors stay float32, and the graph stays what it was. ``int8``
(``exporter.quantization.forest_codes``) has the same levels.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from exporter.graph.path_forest import PathForest, level_order

Floats = npt.NDArray[np.float32]

LEVELS = 256
# How far a level may lie from the mean of its group: a twentieth of the way to the next level, and a thousandth on the
# asinh scale. Exact means halve the loss of rank correlation on cmapss FD002, whose six regimes are narrow (.9996
# instead of .9994), and cost 15 KB on top of 87; a tenth of the way saves 3 KB and gives .9993.
REACH = 0.05
TOLERANCE = 0.001
# Lloyd's algorithm in one dimension hardly moves after these many rounds.
LLOYD_ROUNDS = 40
# Rows that tell where the values lie; sorting more takes longer and moves no level by much.
MOST_ROWS = 20_000


def codebook8(trees: PathForest, features: Floats | None = None) -> PathForest:
    """Return the forest with at most 256 distinct thresholds per feature and 256 distinct leaf values.

    Args:
        trees: Any forest.
        features: (m, n_features) float32, what it was trained on or some of it, NaN = missing; levels then follow the
            values as well.
    """
    splits, weights = trees.splits.copy(), np.zeros(trees.splits.size)
    for depth, nodes in enumerate(level_order(trees)):
        weights[nodes] = 0.5**depth
    inner = ~trees.leaves
    rows = np.zeros((0, trees.n_features), np.float32) if features is None else _some(features)
    for feature in np.unique(trees.features[inner]).tolist():
        chosen = inner & (trees.features == feature)
        splits[chosen] = _threshold_levels(splits[chosen], weights[chosen], rows[:, feature])
    lengths = trees.path_lengths.copy()
    lengths[trees.leaves] = _leaf_levels(lengths[trees.leaves])
    return replace(trees, splits=splits, path_lengths=lengths)


def shortest_between(low: Floats, high: Floats) -> Floats:
    """Return, for each pair, the number from low to high with the most zero bits at its end: any shape.

    Bits of floats of one sign are ordered as the floats are. So the common leading bits of both ends, one more, and
    zeros are a number between them; 0 is the shortest where the signs differ.
    """
    negative = high < 0
    near = np.where(negative, -high, low).astype(np.float32).view(np.uint32)
    far = np.where(negative, -low, high).astype(np.float32).view(np.uint32)
    different = np.bitwise_xor(near, far)
    for step in (1, 2, 4, 8, 16):  # smear the highest different bit downwards
        different |= different >> np.uint32(step)
    magnitude = (far & ~(different >> np.uint32(1))).view(np.float32)
    found = np.where(negative, -magnitude, magnitude)
    return np.asarray(np.where((low <= 0) & (high >= 0), np.float32(0), found), np.float32)


def _some(features: Floats) -> Floats:
    return features[:: max(1, len(features) // MOST_ROWS)]


def _threshold_levels(values: Floats, weights: npt.NDArray[np.float64], rows: Floats) -> Floats:
    """Return the thresholds of one feature as levels, (n,) to (n,), given (m,) training values."""
    points, place = np.unique(values.astype(np.float64), return_inverse=True)
    low, middle, high = np.quantile(points, (0.25, 0.5, 0.75))
    spread = (high - low) or max(float(np.abs(points - middle).max()), 1.0)
    counts = np.asarray(np.bincount(place, weights), np.float64)
    scaled = np.arcsinh((points - middle) / spread)
    extent = (scaled[-1] - scaled[0]) or 1.0
    group = _lloyd(scaled / extent + _share_below(rows, points), counts)
    means = _means(points, counts, group)
    reach = TOLERANCE * np.hypot(spread, means - middle)  # the derivative of spread * sinh(u)
    gaps = np.diff(means) * REACH
    lowest = means - np.minimum(np.r_[0.0, gaps], reach)
    highest = means + np.minimum(np.r_[gaps, 0.0], reach)
    levels = shortest_between(lowest.astype(np.float32), highest.astype(np.float32))
    return np.asarray(levels[group][place], np.float32)


def _share_below(rows: Floats, points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the share of the values that lies below each point; 0 where there are none."""
    known = np.sort(rows[~np.isnan(rows)])
    return np.searchsorted(known, points) / max(1, known.size)


def _leaf_levels(values: Floats) -> Floats:
    """Return leaf values as the means of their groups: (n,) to (n,)."""
    points, place, counts = np.unique(values.astype(np.float64), return_inverse=True, return_counts=True)
    group = _lloyd(points, counts.astype(np.float64))
    return np.asarray(_means(points, counts, group)[group][place], np.float32)


def _means(
    points: npt.NDArray[np.float64], weights: npt.NDArray[np.number[Any]], group: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    """Return the mean of each group."""
    return np.asarray(np.bincount(group, weights * points) / np.bincount(group, weights), np.float64)


def _lloyd(points: npt.NDArray[np.float64], weights: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Group sorted points into at most 256 runs of small squared error (Lloyd 1982), a run each when they are few.

    Returns:
        The run of each point, counted from 0 without a gap: (n,).
    """
    if points.size <= LEVELS:
        return np.arange(points.size)
    levels = points[np.linspace(0, points.size - 1, LEVELS).round().astype(np.int64)]
    for _ in range(LLOYD_ROUNDS):
        nearest = np.searchsorted((levels[1:] + levels[:-1]) / 2, points)
        total = np.bincount(nearest, weights, LEVELS)
        sums = np.bincount(nearest, weights * points, LEVELS)
        levels = np.sort(np.where(total > 0, sums / np.where(total > 0, total, 1.0), levels))
    return np.unique(np.searchsorted((levels[1:] + levels[:-1]) / 2, points), return_inverse=True)[1]

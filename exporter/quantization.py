"""codebook8: a forest whose thresholds and leaf values take at most 256 values each, so that it deflates better.

Affine 8-bit inputs destroy heavy-tailed signals: a step of max / 255 is wider than all that is normal. So the levels
come from the forest: per feature, the thresholds in order are cut into 256 groups of equal size, which moves each past
the fewest neighbours whatever its scale. All of a group become the shortest float32 in its reach, the one with the
most zero bits at the end: deflate makes nothing of 256 levels as such, and much of bytes that are zero. Tensors stay
float32, and the graph stays what it was.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from exporter.graph.forest import PathForest

LEVELS = 256
# How far into the gap to its neighbours a group's level may lie: at most halfway, or levels could meet.
REACH = 0.125
# Lloyd's algorithm in one dimension has settled on leaf values after a handful of rounds.
LLOYD_ROUNDS = 12


def codebook8(trees: PathForest) -> PathForest:
    """Return the forest with at most 256 distinct thresholds per feature and 256 distinct leaf values."""
    splits = trees.splits.copy()
    inner = ~trees.leaves
    for feature in np.unique(trees.features[inner]).tolist():
        chosen = inner & (trees.features == feature)
        splits[chosen] = _equal_groups(splits[chosen])
    lengths = trees.path_lengths.copy()
    lengths[trees.leaves] = _nearest_levels(lengths[trees.leaves])
    return replace(trees, splits=splits, path_lengths=lengths)


def _equal_groups(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Replace values by the medians of 256 groups of neighbours in rank; equal values stay equal."""
    levels, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    if levels.size <= LEVELS:
        return values
    middle_rank = np.cumsum(counts) - counts / 2
    group = (middle_rank * LEVELS / values.size).astype(np.int64)
    starts = np.flatnonzero(np.r_[True, np.diff(group) != 0])
    ends = np.r_[starts[1:], levels.size]
    lowest, highest = levels[starts].astype(np.float64), levels[ends - 1].astype(np.float64)
    room = np.r_[0.0, (lowest[1:] - highest[:-1]) * REACH, 0.0]  # none beyond the ends: they are the tails
    shortest = shortest_between((lowest - room[:-1]).astype(np.float32), (highest + room[1:]).astype(np.float32))
    return np.asarray(np.repeat(shortest, ends - starts)[place], np.float32)


def shortest_between(low: npt.NDArray[np.float32], high: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
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


def _nearest_levels(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Replace values by 256 levels that minimise the squared error (Lloyd 1982), beginning at their quantiles."""
    distinct, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    if distinct.size <= LEVELS:
        return values
    points, weights = distinct.astype(np.float64), counts.astype(np.float64)
    levels = np.unique(np.quantile(points, np.linspace(0, 1, LEVELS)))
    for _ in range(LLOYD_ROUNDS):
        nearest = np.searchsorted((levels[1:] + levels[:-1]) / 2, points)
        total = np.bincount(nearest, weights, levels.size)
        sums = np.bincount(nearest, weights * points, levels.size)
        levels = np.sort(np.where(total > 0, sums / np.maximum(total, 1), levels))
    nearest = np.searchsorted((levels[1:] + levels[:-1]) / 2, points)
    return np.asarray(levels.astype(np.float32)[nearest][place], np.float32)

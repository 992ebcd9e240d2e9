"""int8: a forest in 8-bit codes, for the tensor form (``exporter.graph.tensor_forest``).

A threshold becomes its rank among the levels of its feature, a leaf its rank among the path lengths, a byte each. The
levels are those of ``codebook8``, so both forms score alike; what differs is how they are held. Path lengths are whole
numbers of a small unit, so that their sum is exact in any order: a row scores the same to the bit alone and in a block,
on one thread and on more::

    codes = encode_forest(codebook8(flatten_forest(forest)))

With 300 trees on 25 normal signals that is 93 instead of 297 KB on disk and 59 instead of 119 KB deflated. How many
features there are and how deep the trees go does not matter: columns take two bytes from 129 features on.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from exporter.errors import ConversionError
from exporter.graph.path_forest import PathForest, level_order
from exporter.graph.tensor_forest import ForestCodes
from exporter.quantization.codebook import LEVELS

# Rounding each path length up still leaves the sum of all trees below 2 ** 31.
LARGEST_SUM_BITS = 30


def encode_forest(trees: PathForest) -> ForestCodes:
    """Return a forest in codes, its nodes level by level over all trees.

    Args:
        trees: A forest of at most 256 thresholds per feature and 256 path lengths, as ``codebook8`` makes it.

    Raises:
        ConversionError: It has more of them.
    """
    levels = level_order(trees)
    order = np.concatenate(levels)
    leaf = trees.leaves[order]
    nodes, leaves = order[~leaf], order[leaf]
    thresholds, ranks, first = _ranked(trees.features[nodes], trees.splits[nodes], trees.n_features)
    leaf_levels, leaf_codes = np.unique(trees.path_lengths[leaves], return_inverse=True)
    unit = _unit(leaf_levels, trees.roots.size)
    columns = trees.features[nodes] + np.where(trees.missing_left[nodes], trees.n_features, 0)
    return ForestCodes(
        inner=~leaf,
        columns=columns.astype(np.min_scalar_type(2 * trees.n_features - 1)),
        ranks=_as_bytes(ranks, "thresholds of one feature"),
        leaf_codes=_as_bytes(leaf_codes, "path lengths"),
        levels=thresholds,
        first_levels=first,
        leaf_levels=np.rint(leaf_levels / unit).astype(np.int32),
        n_trees=trees.roots.size,
        depth=len(levels) - 1,
        n_features=trees.n_features,
        scale=trees.scale * unit,
    )


def _unit(lengths: npt.NDArray[np.float32], n_trees: int) -> float:
    """Return the power of two in whose multiples path lengths are held: as fine as their sum in 31 bits allows."""
    largest = float(lengths.max()) * n_trees
    return math.ldexp(1.0, math.frexp(largest)[1] - LARGEST_SUM_BITS)


def _ranked(
    features: npt.NDArray[np.int64], splits: npt.NDArray[np.float32], n_features: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return all levels, feature after feature, each threshold's rank within its feature, and where each one begins."""
    levels, ranks = [np.zeros(0, np.float32)], np.zeros(features.size, np.int64)
    for feature in range(n_features):
        chosen = features == feature
        found, ranks[chosen] = np.unique(splits[chosen], return_inverse=True)
        levels.append(found)
    return np.concatenate(levels), ranks, np.cumsum([part.size for part in levels])[:-1]


def _as_bytes(codes: npt.NDArray[np.int64], of: str) -> npt.NDArray[np.uint8]:
    most = int(codes.max(initial=0)) + 1
    if most > LEVELS:
        raise ConversionError(
            f"This forest has {most:,} different {of}, and a byte tells {LEVELS} apart.",
            advice="Give it to codebook8 first.",
        )
    return codes.astype(np.uint8)

"""int8: a forest in 8-bit codes, for the tensor form (``exporter.graph.tensor_forest``).

The levels are those of ``codebook8``, so both forms give the same scores: what differs is how they are held. Here a
threshold is its rank among its feature's levels and a leaf its rank among the path lengths, a byte each.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from exporter.errors import ConversionError
from exporter.graph.path_forest import PathForest
from exporter.graph.tensor_forest import ForestCodes
from exporter.quantization.codebook import codebook8

MOST_FEATURES = 2**15  # each one is there twice, and 16 bits number the columns


def encode_forest(trees: PathForest) -> ForestCodes:
    """Return the forest in codes, nodes level by level over all trees.

    Args:
        trees: Any forest; thresholds and leaf values are grouped to 256 levels as ``codebook8`` does it.

    Returns:
        Its codes; columns take two bytes instead of one from 129 features on.

    Raises:
        ConversionError: It has more than 32,768 features.
    """
    if trees.n_features > MOST_FEATURES:
        raise ConversionError(
            f"A forest on {trees.n_features:,} features has no int8 form.",
            advice=f"It takes at most {MOST_FEATURES:,}; ship fp32 or codebook8.",
        )
    small = codebook8(trees)
    levels = _level_order(small)
    order = np.concatenate(levels)
    leaf = small.leaves[order]
    nodes, leaves = order[~leaf], order[leaf]
    columns = small.features[nodes] + np.where(small.missing_left[nodes], small.n_features, 0)
    leaf_levels, leaf_codes = np.unique(small.path_lengths[leaves], return_inverse=True)
    thresholds, ranks, first = _ranked(small.features[nodes], small.splits[nodes], small.n_features)
    return ForestCodes(
        inner=~leaf,
        columns=columns.astype(np.uint8 if 2 * small.n_features <= 256 else np.uint16),
        ranks=ranks,
        leaf_codes=leaf_codes.astype(np.uint8),
        levels=thresholds,
        first_levels=first,
        leaf_levels=leaf_levels,
        n_trees=small.roots.size,
        depth=len(levels) - 1,
        n_features=small.n_features,
        scale=small.scale,
    )


def _level_order(trees: PathForest) -> list[npt.NDArray[np.int64]]:
    """Return the nodes of each level: roots first, then the children of the level before, left beside right."""
    levels = [trees.roots]
    while (inner := levels[-1][~trees.leaves[levels[-1]]]).size:
        levels.append(np.stack([trees.left[inner], trees.right[inner]], axis=1).ravel())
    return levels


def _ranked(
    features: npt.NDArray[np.int64], splits: npt.NDArray[np.float32], n_features: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Return all levels, feature after feature, each threshold's rank within its feature, and where each one begins."""
    levels, ranks = [np.zeros(0, np.float32)], np.zeros(features.size, np.uint8)
    for feature in range(n_features):
        chosen = features == feature
        found, ranks[chosen] = np.unique(splits[chosen], return_inverse=True)
        levels.append(found)
    first = np.cumsum([part.size for part in levels])[:-1]
    # A table of nothing has no entry that a leaf could read in vain.
    return np.concatenate(levels) if features.size else np.zeros(1, np.float32), ranks, first

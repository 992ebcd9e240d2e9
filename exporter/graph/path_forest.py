"""The trees of a fitted isolation forest as flat arrays, with the path length of every leaf worked out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from exporter.errors import ConversionError

if TYPE_CHECKING:
    from sklearn.ensemble import IsolationForest

LEAF = -1


@dataclass(frozen=True, slots=True)
class PathForest:
    """All trees of a forest in flat arrays, n nodes in scikit-learn's order, tree after tree.

    Attributes:
        features: (n,) int64, column that an inner node compares; 0 in leaves.
        splits: (n,) float32, thresholds rounded down; 0 in leaves.
        left: (n,) int64, node for ``x <= split``, -1 in leaves.
        right: (n,) int64, node for the others, -1 in leaves.
        missing_left: (n,) bool, whether NaN goes left.
        path_lengths: (n,) float32, depth + c(rows) in leaves, 0 elsewhere.
        roots: (trees,) int64, first node of each tree.
        tree_of: (n,) int64, the tree of each node.
        n_features: Columns of the input.
        scale: The score is exp(scale * sum of path lengths).
    """

    features: npt.NDArray[np.int64]
    splits: npt.NDArray[np.float32]
    left: npt.NDArray[np.int64]
    right: npt.NDArray[np.int64]
    missing_left: npt.NDArray[np.bool_]
    path_lengths: npt.NDArray[np.float32]
    roots: npt.NDArray[np.int64]
    tree_of: npt.NDArray[np.int64]
    n_features: int
    scale: float

    @property
    def leaves(self) -> npt.NDArray[np.bool_]:
        """Which nodes are leaves: (n,) bool."""
        return np.equal(self.left, LEAF)


def flatten_forest(forest: IsolationForest) -> PathForest:
    """Gather the trees of a fitted forest in flat arrays.

    Args:
        forest: A fitted ``sklearn.ensemble.IsolationForest``.

    Returns:
        Its trees, with columns of the whole input also where trees saw a part of them (``max_features``).

    Raises:
        ConversionError: It is no isolation forest, or is not fitted.
    """
    from sklearn.ensemble import IsolationForest

    if not isinstance(forest, IsolationForest):
        raise ConversionError(
            f"Only an IsolationForest becomes a graph here, and this is {_described(forest)}.",
            advice="Give the forest itself: the last step of a Pipeline, fed with what the steps before it make.",
        )
    estimators = getattr(forest, "estimators_", None)
    if not estimators:
        raise ConversionError("This isolation forest is not fitted.", advice="Call fit before converting it.")
    trees = [estimator.tree_ for estimator in estimators]
    counts = np.array([tree.node_count for tree in trees], np.int64)
    roots = np.r_[0, np.cumsum(counts)[:-1]].astype(np.int64)
    tree_of = np.repeat(np.arange(len(trees)), counts)
    offsets = roots[tree_of]
    left = np.concatenate([tree.children_left for tree in trees]).astype(np.int64)
    right = np.concatenate([tree.children_right for tree in trees]).astype(np.int64)
    leaf = left == LEAF
    local = np.where(leaf, 0, np.concatenate([tree.feature for tree in trees]))
    columns = np.stack([np.asarray(chosen, np.int64) for chosen in forest.estimators_features_])
    thresholds = np.concatenate([tree.threshold for tree in trees])
    rows = np.concatenate([tree.n_node_samples for tree in trees])
    depths = np.concatenate([tree.compute_node_depths() for tree in trees]) - 1.0  # it counts the root as 1
    scale, lengths = _score_parts(forest, depths + average_path_length(rows), len(trees))
    return PathForest(
        features=np.where(leaf, 0, columns[tree_of, local]),
        splits=np.where(leaf, np.float32(0), round_down(np.where(leaf, 0.0, thresholds))),
        left=np.where(leaf, LEAF, left + offsets),
        right=np.where(leaf, LEAF, right + offsets),
        missing_left=np.concatenate([tree.missing_go_to_left for tree in trees]).astype(bool) & ~leaf,
        path_lengths=np.where(leaf, lengths, 0.0).astype(np.float32),
        roots=roots,
        tree_of=tree_of,
        n_features=int(forest.n_features_in_),
        scale=scale,
    )


def level_order(trees: PathForest) -> list[npt.NDArray[np.int64]]:
    """Return the nodes of each level over all trees: roots first, then children, the left one beside the right one."""
    levels = [trees.roots]
    while (inner := levels[-1][~trees.leaves[levels[-1]]]).size:
        levels.append(np.stack([trees.left[inner], trees.right[inner]], axis=1).ravel())
    return levels


def _described(value: object) -> str:
    name = value.__name__ if isinstance(value, type) else type(value).__name__
    return f"the class {name}" if isinstance(value, type) else f"of type {name}"


def average_path_length(rows: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Return c(n), the expected path length of an unsuccessful search among n rows.

    0 for at most one row and 1 for two, as in scikit-learn; otherwise 2 H(n - 1) - 2 (n - 1) / n with
    H(i) = ln(i) + Euler's constant (Liu, Ting, Zhou 2008, equation 1).

    Args:
        rows: Any shape, counts.
    """
    n = np.asarray(rows, np.float64)
    more = np.maximum(n, 3.0)
    formula = 2.0 * (np.log(more - 1.0) + np.euler_gamma) - 2.0 * (more - 1.0) / more
    return np.where(n <= 1, 0.0, np.where(n == 2, 1.0, formula))


def round_down(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    """Return the largest float32 that is not above each value: any shape."""
    nearest = values.astype(np.float32)
    return np.where(nearest > values, np.nextafter(nearest, np.float32(-np.inf)), nearest)


def _score_parts(
    forest: IsolationForest, lengths: npt.NDArray[np.float64], trees: int
) -> tuple[float, npt.NDArray[np.float64]]:
    """Return the factor of the sum of path lengths in the exponent, and the path lengths."""
    # What the trees really drew: max_samples_ is the wish, and differs where it is a share (scikit-learn 1.9).
    drawn = getattr(forest, "_max_samples", forest.max_samples_)
    expected = float(average_path_length(np.array(drawn)))
    if expected == 0.0:  # one row a tree: scikit-learn scores everything 2 ** -1
        return -float(np.log(2.0)) / trees, np.ones_like(lengths)
    return -float(np.log(2.0)) / (trees * expected), lengths

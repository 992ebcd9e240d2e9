"""An isolation forest as one ONNX node.

skl2onnx turns every tree into its own ensemble and computes path lengths with some 26 further nodes a tree. But the
path length of a leaf is known in advance: its depth plus c(n), the expected depth of the n training rows that ended
there (Liu, Ting, Zhou 2008, equation 1). So each leaf of one ``TreeEnsemble`` holds that sum, the node adds them up
over the trees, and the score is 2 ** (-sum / (trees * c(max_samples))), a Mul and an Exp::

    model = forest_to_onnx(IsolationForest(n_estimators=300).fit(X))
    session.run(None, {"X": X.astype(np.float32)})[0]      # (N, 1), equal to -forest.score_samples(X)

Two things make it exact. Thresholds are rounded down to float32: scikit-learn compares a float32 value with a float64
threshold, and ``x <= t`` is ``x <= round_down(t)`` for every float32 x. Missing values take the branch that
scikit-learn stored for them (``missing_go_to_left``), whether or not the forest saw any in training.

The columns come twice, as they are and negated, so that each node can have its two branches either way round: ``x > t``
is ``-x <= -t - ulp``. Then NaN, for which no comparison holds, takes the false branch everywhere, and that is the one
that onnxruntime keeps next to its node in memory. scikit-learn sends NaN with the larger half of the training rows
unless it learnt better, so the usual way is also the short one: 15 instead of 25 us a row, 7 instead of 10 in batches
(``benchmarks/forest.py``). Wrong guesses at branches are 4.5 us of those in batches: 1,000 equal rows take 1.9 us each.

onnxruntime lays the nodes out anew when it loads them, depth first and the false branch next to its node, with a leaf
of its own wherever one is named. So the order in the file is free, and chosen for deflate: nodes whose children are of
the same kind stand together, by column, then by leaves; and each path length, of which there are some 150, is one leaf
that many nodes name, as the operator's definition allows. 300 trees on 25 normal signals are 119 instead of 184 KB
deflated, 297 instead of 429 KB on disk, bit-equal in scores. What is left are thresholds (67 KB) and ids (48 KB), and
neither gives way: deflate sees as little in ids that count up as in random ones, and several nodes of 150 trees or
fewer are no smaller, no faster in batches, and 1 us slower each alone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, numpy_helper

from exporter.errors import ConversionError
from exporter.graph.nodes import ML_DOMAIN, GraphBuilder, tensor_info
from exporter.graph.path_forest import LEAF, PathForest, flatten_forest

if TYPE_CHECKING:
    from sklearn.ensemble import IsolationForest

ML_OPSETS = (3, 5)
# onnxruntime adds path lengths up in float32, tree after tree; measured against scikit-learn the score is off by
# 5e-7 at 300 trees, 9e-7 at 1,000 and 2.3e-6 at 3,000. Sums of parts keep larger forests within 1e-6.
_TREES_A_NODE = 500
_LESS_OR_EQUAL = 0  # BRANCH_LEQ in the enumeration of TreeEnsemble 5


def forest_to_onnx(forest: IsolationForest, ml_opset: int = 5) -> ModelProto:
    """Convert a fitted isolation forest to an ONNX model with one tree node.

    Args:
        forest: Fitted; any ``max_samples``, ``max_features``, ``bootstrap`` and depth, one-node trees included.
        ml_opset: 5 for ``TreeEnsemble`` (onnxruntime >= 1.20), 3 for ``TreeEnsembleRegressor`` of older runtimes.

    Returns:
        A model with input ``X`` [N, n_features] float32, NaN = missing, and output ``score`` [N, 1] float32, equal
        to ``-forest.score_samples(X)`` within 1e-6; higher is more anomalous.

    Raises:
        ConversionError: It is no isolation forest, is not fitted, or ``ml_opset`` is neither 3 nor 5.
    """
    trees = flatten_forest(forest)
    graph = GraphBuilder()
    add_forest(graph, trees, "X", name="score", ml_opset=ml_opset)
    return graph.model(
        "isolation_forest",
        [tensor_info("X", np.float32, ("N", trees.n_features))],
        [tensor_info("score", np.float32, ("N", 1))],
        ml_opset=ml_opset,
    )


def add_forest(graph: GraphBuilder, trees: PathForest, features: str, *, name: str = "", ml_opset: int = 5) -> str:
    """Add the forest to a graph.

    Args:
        graph: Where to add.
        trees: The forest.
        features: Name of a [N, n_features] float32 tensor.
        name: Name of the score's tensor; made up when empty.
        ml_opset: 3 or 5.

    Returns:
        Name of the raw score [N, 1] float32, in (0, 1], higher is more anomalous.

    Raises:
        ConversionError: ``ml_opset`` is neither 3 nor 5.
    """
    if not isinstance(ml_opset, int) or ml_opset not in ML_OPSETS:
        raise ConversionError(
            f"Forests cannot be written for ai.onnx.ml {ml_opset!r}.", advice="Use 5, or 3 for older runtimes."
        )
    ensemble = _ensemble_5 if ml_opset == 5 else _ensemble_3
    sums = [ensemble(graph, part, features) for part in _parts(trees)]
    lengths = sums[0] if len(sums) == 1 else graph.add("Sum", *sums)
    return graph.add("Exp", graph.add("Mul", lengths, graph.constant(np.float32(trees.scale))), name=name)


def _parts(trees: PathForest) -> list[PathForest]:
    """Cut a forest into forests of at most 500 trees each, on the same columns and scale."""
    count = trees.roots.size
    bounds = np.r_[trees.roots, trees.left.size]
    result = []
    for start in range(0, count, _TREES_A_NODE):
        stop = min(start + _TREES_A_NODE, count)
        nodes, first = slice(bounds[start], bounds[stop]), bounds[start]
        leaf = trees.left[nodes] == LEAF
        result.append(
            replace(
                trees,
                features=trees.features[nodes],
                splits=trees.splits[nodes],
                left=np.where(leaf, LEAF, trees.left[nodes] - first),
                right=np.where(leaf, LEAF, trees.right[nodes] - first),
                missing_left=trees.missing_left[nodes],
                path_lengths=trees.path_lengths[nodes],
                roots=trees.roots[start:stop] - first,
                tree_of=trees.tree_of[nodes] - start,
            )
        )
    return result


@dataclass(frozen=True, slots=True)
class _Branches:
    """What the nodes ask so that NaN takes the false branch: (n,) each, columns counted over [X, -X]."""

    columns: npt.NDArray[np.int64]
    splits: npt.NDArray[np.float32]
    true: npt.NDArray[np.int64]
    false: npt.NDArray[np.int64]


def _branches(graph: GraphBuilder, trees: PathForest, features: str) -> tuple[str, _Branches]:
    """Turn the nodes whose NaN goes left; returns the name of [X, -X], or of X when none is turned."""
    turned = trees.missing_left
    # For float32 x: x > t is -x < -t, which is -x <= the next smaller float32.
    mirrored = np.nextafter(-trees.splits, np.float32(-np.inf))
    branches = _Branches(
        columns=trees.features + np.where(turned, trees.n_features, 0),
        splits=np.where(turned, mirrored, trees.splits),
        true=np.where(turned, trees.right, trees.left),
        false=np.where(turned, trees.left, trees.right),
    )
    if not turned.any():
        return features, branches
    return graph.add("Concat", features, graph.add("Neg", features), axis=1), branches


def _ensemble_5(graph: GraphBuilder, trees: PathForest, features: str) -> str:
    """Add a TreeEnsemble; inner nodes and leaves are numbered apart, and a tree needs an inner root."""
    columns, nodes = _branches(graph, trees, features)
    leaf = trees.leaves
    weights, number = np.zeros(0, np.float32), np.zeros(leaf.size, np.int64)
    weights, number[leaf] = np.unique(trees.path_lengths[leaf], return_inverse=True)
    order = _deflatable_order(nodes, leaf, number)
    number[order] = np.arange(order.size)
    bare = trees.roots[leaf[trees.roots]]  # one-node trees get a root whose two branches are that leaf
    true, false = np.r_[nodes.true[order], bare], np.r_[nodes.false[order], bare]
    roots = number[trees.roots]
    roots[leaf[trees.roots]] = order.size + np.arange(bare.size)

    def padded(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return np.concatenate([values[order], np.zeros(bare.size, values.dtype)])

    return graph.add(
        "TreeEnsemble",
        columns,
        domain=ML_DOMAIN,
        aggregate_function=1,
        n_targets=1,
        tree_roots=roots,
        nodes_featureids=padded(nodes.columns),
        nodes_modes=numpy_helper.from_array(np.full(true.size, _LESS_OR_EQUAL, np.uint8)),
        nodes_splits=numpy_helper.from_array(padded(nodes.splits)),
        nodes_truenodeids=number[true],
        nodes_trueleafs=leaf[true],
        nodes_falsenodeids=number[false],
        nodes_falseleafs=leaf[false],
        leaf_targetids=np.zeros(weights.size, np.int64),
        leaf_weights=numpy_helper.from_array(weights),
    )


def _deflatable_order(
    nodes: _Branches, leaf: npt.NDArray[np.bool_], codes: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Return the inner nodes so that nodes with the same kinds of children, column and leaves stand together: (n,)."""
    inner = np.flatnonzero(~leaf)
    true, false = nodes.true[inner], nodes.false[inner]
    keys = (nodes.splits[inner], codes[false], codes[true], nodes.columns[inner], leaf[false], leaf[true])
    return inner[np.lexsort(keys)]


def _ensemble_3(graph: GraphBuilder, trees: PathForest, features: str) -> str:
    """Add a TreeEnsembleRegressor; nodes are numbered within their tree."""
    columns, nodes = _branches(graph, trees, features)
    leaf = trees.leaves
    first = trees.roots[trees.tree_of]
    ids = np.arange(leaf.size) - first
    modes = np.where(leaf, b"LEAF", b"BRANCH_LEQ")
    return graph.add(
        "TreeEnsembleRegressor",
        columns,
        domain=ML_DOMAIN,
        aggregate_function="SUM",
        n_targets=1,
        post_transform="NONE",
        nodes_treeids=trees.tree_of,
        nodes_nodeids=ids,
        nodes_featureids=nodes.columns,
        nodes_modes=modes,
        nodes_values=nodes.splits,
        nodes_truenodeids=np.where(leaf, 0, nodes.true - first),
        nodes_falsenodeids=np.where(leaf, 0, nodes.false - first),
        target_treeids=trees.tree_of[leaf],
        target_nodeids=ids[leaf],
        target_ids=np.zeros(int(leaf.sum()), np.int64),
        target_weights=trees.path_lengths[leaf],
    )

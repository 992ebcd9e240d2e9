"""Trees as LightGBM, XGBoost and skl2onnx export them, rewritten for ai.onnx.ml 5.

Our graphs declare version 5, in which ``TreeEnsembleRegressor`` and ``TreeEnsembleClassifier`` are deprecated and
onnxruntime refuses them. ``TreeEnsemble`` says the same with other attributes: inner nodes and leaves are numbered
apart, and a leaf adds to one target, so that a tree whose leaves add to several is written once for each. Base values
and the transform at the end become nodes of their own (ONNX, operators of ai.onnx.ml).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import NodeProto, TensorProto, helper, numpy_helper

from exporter.errors import ConversionError
from exporter.graph.nodes import ML_DOMAIN, GraphBuilder

_LEAF = b"LEAF"
# Enumerations of TreeEnsemble 5.
_MODES = {b"BRANCH_LEQ": 0, b"BRANCH_LT": 1, b"BRANCH_GTE": 2, b"BRANCH_GT": 3, b"BRANCH_EQ": 4, b"BRANCH_NEQ": 5}
_AGGREGATES = {b"SUM": 1, b"AVERAGE": 1, b"MIN": 2, b"MAX": 3}  # an average is a sum, divided at the end
_NODE_LISTS = ("treeids", "nodeids", "featureids", "modes", "values", "truenodeids", "falsenodeids")
_LEAF_LISTS = ("treeids", "nodeids", "ids", "weights")
_TRANSFORMS = {b"NONE": "", b"LOGISTIC": "Sigmoid", b"SOFTMAX": "Softmax"}


def add_upgraded(graph: GraphBuilder, node: NodeProto) -> None:
    """Add what a TreeEnsembleRegressor or TreeEnsembleClassifier of ai.onnx.ml 1 or 3 says.

    Its scores get the name that they have; a classifier's label is not made.

    Args:
        graph: Where to add; its inputs are there.
        node: The node.

    Raises:
        ConversionError: A mode, transform or base value that TreeEnsemble 5 cannot say.
    """
    attributes = {one.name: helper.get_attribute_value(one) for one in node.attribute}
    classifies = node.op_type == "TreeEnsembleClassifier"
    trees = _read(attributes, "class" if classifies else "target")
    transforms = _TRANSFORMS if classifies else {b"NONE": ""}  # onnxruntime passes over that of a regressor
    transform = _known(transforms, attributes.get("post_transform", b"NONE"), "transform")
    aggregate = attributes.get("aggregate_function", b"SUM")
    targets = _class_count(attributes) if classifies else int(attributes.get("n_targets", 1))
    # A classifier of two classes whose leaves name one class alone scores that one; the other follows from it.
    single = classifies and targets == 2 and np.unique(trees.weight_targets).size == 1
    if single:
        trees.weight_targets[:] = 0
    sums = _add_sums(graph, node.input[0], trees, 1 if single else targets, _known(_AGGREGATES, aggregate, "sum"))
    if aggregate == b"AVERAGE":
        sums = graph.add("Div", sums, graph.constant(np.float32(np.unique(trees.tree).size)))
    base = np.asarray(attributes.get("base_values", ()), np.float32)
    # Of the base values of two classes onnxruntime takes one for both (tree_ensemble_aggregator.h).
    if base.size and (classifies != single or base.size != (1 if single else targets)):
        raise ConversionError(
            f"The trees have {base.size} base values, and what onnxruntime makes of them is not what ONNX says.",
            advice="Export a regressor, or margins instead of probabilities.",
        )
    if base.size:
        sums = graph.add("Add", sums, graph.constant(base))
    output = node.output[1] if classifies else node.output[0]
    if single:
        _add_two_classes(graph, sums, transform, bool((trees.weights >= 0).all()), output)
    else:
        # The classes are the last axis, which is Softmax's own choice.
        graph.add(transform or "Identity", sums, name=output)


@dataclass(frozen=True, slots=True)
class _OldTrees:
    """Nodes of all trees, and what leaves add: (n,) a node, (m,) a weight."""

    tree: npt.NDArray[np.int64]
    feature: npt.NDArray[np.int64]
    mode: npt.NDArray[np.int64]
    leaf: npt.NDArray[np.bool_]
    split: npt.NDArray[Any]
    true: npt.NDArray[np.int64]
    false: npt.NDArray[np.int64]
    missing_true: npt.NDArray[np.int64]
    weight_nodes: npt.NDArray[np.int64]
    weight_targets: npt.NDArray[np.int64]
    weights: npt.NDArray[Any]


def _read(attributes: dict[str, Any], leaves: str) -> _OldTrees:
    def whole(name: str) -> npt.NDArray[np.int64]:
        return np.asarray(attributes.get(name, ()), np.int64)

    def real(name: str) -> npt.NDArray[Any]:
        if f"{name}_as_tensor" in attributes:
            return numpy_helper.to_array(attributes[f"{name}_as_tensor"])
        return np.asarray(attributes.get(name, ()), np.float32)

    tree, number, modes = whole("nodes_treeids"), whole("nodes_nodeids"), attributes.get("nodes_modes", ())
    _check_lengths(attributes, leaves)
    place = {key: index for index, key in enumerate(zip(tree.tolist(), number.tolist(), strict=True))}
    leaf = np.array([mode == _LEAF for mode in modes])

    def places(trees: npt.NDArray[np.int64], numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        try:
            return np.array([place[key] for key in zip(trees.tolist(), numbers.tolist(), strict=True)], np.int64)
        except KeyError as error:
            raise ConversionError("The trees name a node that is not there.", advice="Export it again.") from error

    def children(name: str) -> npt.NDArray[np.int64]:
        return np.where(leaf, 0, places(tree, np.where(leaf, number, whole(name))))

    return _OldTrees(
        tree=tree,
        feature=whole("nodes_featureids"),
        mode=np.array([0 if mode == _LEAF else _known(_MODES, mode, "mode") for mode in modes], np.int64),
        leaf=leaf,
        split=real("nodes_values"),
        true=children("nodes_truenodeids"),
        false=children("nodes_falsenodeids"),
        missing_true=whole("nodes_missing_value_tracks_true"),
        weight_nodes=places(whole(f"{leaves}_treeids"), whole(f"{leaves}_nodeids")),
        weight_targets=whole(f"{leaves}_ids"),
        weights=real(f"{leaves}_weights"),
    )


def _check_lengths(attributes: dict[str, Any], leaves: str) -> None:
    """Refuse trees that lack a list, or whose lists say something of more nodes than others do."""
    for group, names in (("nodes", _NODE_LISTS), (leaves, _LEAF_LISTS)):
        lists = (attributes.get(f"{group}_{name}", attributes.get(f"{group}_{name}_as_tensor", ())) for name in names)
        lengths = {numpy_helper.to_array(one).size if isinstance(one, TensorProto) else len(one) for one in lists}
        tracked = len(attributes.get("nodes_missing_value_tracks_true", ())) if group == "nodes" else 0
        if len(lengths | ({tracked} - {0})) != 1:
            raise ConversionError(
                f"The trees have lists of different lengths for their {group}.", advice="Export the model again."
            )


def _known(table: dict[bytes, Any], word: bytes, what: str) -> Any:
    if word not in table:
        raise ConversionError(
            f"Trees with the {what} {word.decode(errors='replace')} cannot be written for ai.onnx.ml 5.",
            advice="Export the model without it.",
        )
    return table[word]


def _class_count(attributes: dict[str, Any]) -> int:
    return max(len(attributes.get("classlabels_int64s", ())), len(attributes.get("classlabels_strings", ())))


def _add_sums(graph: GraphBuilder, values: str, trees: _OldTrees, targets: int, aggregate: int) -> str:
    """Add one TreeEnsemble: [batch, F] of any float type to [batch, targets] float32."""
    double = trees.split.dtype == np.float64
    columns = graph.add("Cast", values, to=TensorProto.DOUBLE if double else TensorProto.FLOAT)
    parts = list(_copies(trees))
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    inner, leaves = (np.cumsum([0, *(part[name].size for part in parts)]) for name in ("modes", "weights"))
    for branch in ("true", "false"):
        # Children are numbered within their copy; inner nodes and leaves apart.
        joined[f"{branch}_ids"] = np.concatenate(
            [
                part[f"{branch}_ids"] + np.where(part[f"{branch}_leaf"], leaves[at], inner[at])
                for at, part in enumerate(parts)
            ]
        )
    kind = np.float64 if double else np.float32
    sums = graph.add(
        "TreeEnsemble",
        columns,
        domain=ML_DOMAIN,
        aggregate_function=aggregate,
        n_targets=targets,
        tree_roots=np.array([part["root"][0] + inner[at] for at, part in enumerate(parts)]),
        nodes_featureids=joined["features"],
        nodes_modes=numpy_helper.from_array(joined["modes"].astype(np.uint8)),
        nodes_splits=numpy_helper.from_array(joined["splits"].astype(kind)),
        nodes_truenodeids=joined["true_ids"],
        nodes_trueleafs=joined["true_leaf"],
        nodes_falsenodeids=joined["false_ids"],
        nodes_falseleafs=joined["false_leaf"],
        leaf_targetids=joined["targets"],
        leaf_weights=numpy_helper.from_array(joined["weights"].astype(kind)),
        nodes_missing_value_tracks_true=joined["missing"],
    )
    return graph.add("Cast", sums, to=TensorProto.FLOAT)


def _copies(trees: _OldTrees) -> Iterator[dict[str, npt.NDArray[Any]]]:
    """Yield each tree, once for every target that its leaves add to."""
    parents = np.zeros(trees.tree.size, np.int64)
    for branch in (trees.true, trees.false):
        np.add.at(parents, branch[~trees.leaf], 1)
    if (parents > 1).any():  # a circle among them would keep a runtime busy for ever
        raise ConversionError("A node of the trees has two parents.", advice="Export the model again.")
    tree_of_weight = trees.tree[trees.weight_nodes]
    for tree in np.unique(trees.tree).tolist():
        nodes = np.flatnonzero(trees.tree == tree)
        roots = nodes[parents[nodes] == 0]
        if roots.size != 1:
            raise ConversionError(f"Tree {tree} has {roots.size} roots.", advice="Export the model again.")
        mine = tree_of_weight == tree
        for target in np.unique(trees.weight_targets[mine]).tolist():
            chosen = mine & (trees.weight_targets == target)
            weights = np.zeros(trees.tree.size, trees.weights.dtype)
            np.add.at(weights, trees.weight_nodes[chosen], trees.weights[chosen])
            yield _copy(trees, nodes, int(roots[0]), target, weights)


def _copy(
    trees: _OldTrees, nodes: npt.NDArray[np.int64], root: int, target: int, weights: npt.NDArray[Any]
) -> dict[str, npt.NDArray[Any]]:
    """Number one tree's inner nodes and leaves; a tree that is one leaf gets a root with that leaf on both sides."""
    leaf = trees.leaf[nodes]
    number = np.zeros(trees.tree.size, np.int64)
    number[nodes] = np.where(leaf, np.cumsum(leaf), np.cumsum(~leaf)) - 1
    inner = nodes[~leaf]
    bare = inner.size == 0
    true, false = (np.array([root]), np.array([root])) if bare else (trees.true[inner], trees.false[inner])
    asked = np.array([root]) if bare else inner
    missing = trees.missing_true[asked] if trees.missing_true.size else np.zeros(asked.size, np.int64)
    return {
        "features": np.zeros(1, np.int64) if bare else trees.feature[inner],
        "modes": trees.mode[asked],
        "splits": trees.split[asked],
        "missing": missing,
        "true_ids": number[true],
        "true_leaf": trees.leaf[true],
        "false_ids": number[false],
        "false_leaf": trees.leaf[false],
        "root": np.array([0 if bare else number[root]]),
        "targets": np.full(int(leaf.sum()), target, np.int64),
        "weights": weights[nodes[leaf]],
    }


def _add_two_classes(graph: GraphBuilder, score: str, transform: str, positive: bool, name: str) -> None:
    """Add both columns from the score of the second class, as onnxruntime does (ml/ml_common.h, add_second_class)."""
    one = graph.constant(np.float32(1))
    if transform == "Softmax":
        raise ConversionError("Trees of one class cannot be put through a softmax.", advice="Export with LOGISTIC.")
    mirrored = graph.add("Neg", score)
    if transform:
        first, second = _logistic(graph, mirrored), _logistic(graph, score)
    else:
        first, second = graph.add("Sub", one, score) if positive else mirrored, score
    graph.add("Concat", first, second, axis=1, name=name)


def _logistic(graph: GraphBuilder, score: str) -> str:
    """Add the logistic function as onnxruntime's tree operators have it; Sigmoid keeps more digits near 0.

    Healthy windows have probabilities near 0, so the digits that those operators drop decide their order.
    """
    one = graph.constant(np.float32(1))
    grown = graph.add("Exp", graph.add("Neg", graph.add("Abs", score)))
    upper = graph.add("Div", one, graph.add("Add", one, grown))
    below = graph.add("Less", score, graph.constant(np.float32(0)))
    return graph.add("Where", below, graph.add("Sub", one, upper), upper)

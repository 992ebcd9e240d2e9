"""A forest of 8-bit codes walked by core ONNX operators, for runtimes and accelerators without tree operators.

What travels are bytes: which nodes have children (a bit each), their columns, the ranks of their thresholds among
their feature's levels, the codes of the leaves, and the levels themselves. Everything else follows from them and is
worked out by nodes whose inputs are all constant, which a runtime folds while it loads the model. Nodes stand level by
level over all trees, the two children of each inner node beside each other, so the left child of the k-th inner node
is node trees + 2 k: no child table is sent. A leaf is its own left child and compares with infinity, so trees of
different depths take the same number of steps::

    codes = encode_forest(codebook8(flatten_forest(forest)))            # exporter.quantization.forest_codes
    add_tensor_forest(graph, codes, "features", name="raw_score")

A step is four table reads, a comparison and a sum over [batch, trees]. All reads are GatherElements: onnxruntime 1.32
reads an element in .4 ns with it and in 3 ns with Gather, which copies blocks; with Gather the forest below took 20 us
a row. 300 trees on 25 features take 5.8 us a row in batches of 100 to 1,000 on one core, where TreeEnsemble takes 6.3,
6.9 in batches of 10,000, whose tensors of [batch, trees] leave the cache (12 MB each, 52 at once), and 27 us alone,
where TreeEnsemble takes 13: some 80 small nodes. Nothing here depends on guessing branches, so anomalous rows take no
longer than others (TreeEnsemble: half as long again), and it loads in half the time. In the wasm build a row takes
80 us where TreeEnsemble takes 30.

Path lengths are summed as whole numbers, which no order changes: a row scores the same to the bit alone, in a block and
on any number of threads, and elsewhere up to that platform's exp.

Thresholds are compared as the floats that their ranks stand for. Ranking the inputs first, so that the walk compares
bytes, was tried: the search in each feature's levels takes 14 us more alone and the walk no less in batches, and 256
levels leave 257 places for an input, one more than a byte has.

Every operator that is left after loading has a kernel for CPUs, for the wasm build and for CUDA.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import TensorProto

from exporter.graph.nodes import GraphBuilder

_FLAT = np.array([-1], np.int64)


@dataclass(frozen=True, slots=True)
class ForestCodes:
    """A forest in small integers; n inner nodes and m leaves, level by level over all trees.

    Attributes:
        inner: (n + m,) bool, which nodes have children; the first ones are the roots.
        columns: (n,) uint8, wider above 128 features: which column an inner node compares, its feature, plus
            ``n_features`` where NaN goes left.
        ranks: (n,) uint8, its threshold's place among the levels of its feature.
        leaf_codes: (m,) uint8, a leaf's place in ``leaf_levels``.
        levels: (l,) float32, thresholds in rising order, feature after feature.
        first_levels: (n_features,) int64, where the levels of each feature begin.
        leaf_levels: (at most 256,) int32, path lengths; any sum of one a tree fits into an int32.
        n_trees: Trees.
        depth: Steps from a root to the deepest leaf.
        n_features: Columns of the input.
        scale: The score is exp(scale * sum of path lengths).
    """

    inner: npt.NDArray[np.bool_]
    columns: npt.NDArray[np.unsignedinteger[Any]]
    ranks: npt.NDArray[np.uint8]
    leaf_codes: npt.NDArray[np.uint8]
    levels: npt.NDArray[np.float32]
    first_levels: npt.NDArray[np.int64]
    leaf_levels: npt.NDArray[np.int32]
    n_trees: int
    depth: int
    n_features: int
    scale: float


@dataclass(frozen=True, slots=True)
class _Tables:
    """Names of tables over all nodes, [nodes]: int32 columns, left children and path lengths, float32 thresholds."""

    columns: str
    splits: str
    left: str
    lengths: str


def add_tensor_forest(graph: GraphBuilder, codes: ForestCodes, features: str, *, name: str = "") -> str:
    """Add the forest to a graph.

    Args:
        graph: Where to add.
        codes: The forest.
        features: Name of a [N, n_features] float32 tensor, NaN = missing.
        name: Name of the score's tensor; made up when empty.

    Returns:
        Name of the raw score [N, 1] float32, in (0, 1], higher is more anomalous.
    """
    tables = _add_tables(graph, codes)
    values = _both_ways_of_missing(graph, features)
    flat, by_tree = graph.constant(_FLAT), graph.constant(np.array([-1, codes.n_trees], np.int64))
    roots = graph.constant(np.arange(codes.n_trees, dtype=np.int32))
    # All rows begin at the same nodes, so the first step reads its tables once, and the loader does that.
    columns, splits, left = (
        graph.add("Gather", table, roots) for table in (tables.columns, tables.splits, tables.left)
    )
    columns = graph.add("Expand", columns, _shape_by_tree(graph, features, codes.n_trees))
    compared = graph.add("GatherElements", values, columns, axis=1)
    nodes = graph.add("Reshape", _next(graph, compared, splits, left), flat)
    for _ in range(1, codes.depth):
        columns = graph.add("Reshape", graph.add("GatherElements", tables.columns, nodes), by_tree)
        compared = graph.add("Reshape", graph.add("GatherElements", values, columns, axis=1), flat)
        splits, left = (graph.add("GatherElements", table, nodes) for table in (tables.splits, tables.left))
        nodes = _next(graph, compared, splits, left)
    lengths = graph.add("Reshape", graph.add("GatherElements", tables.lengths, nodes), by_tree)
    total = graph.add("ReduceSum", lengths, graph.constant(np.array([1], np.int64)), keepdims=1)
    total = graph.add("Cast", total, to=TensorProto.FLOAT)
    return graph.add("Exp", graph.add("Mul", total, graph.constant(np.float32(codes.scale))), name=name)


def _shape_by_tree(graph: GraphBuilder, features: str, n_trees: int) -> str:
    """Return the shape [N, trees]."""
    rows = graph.add("Shape", features, start=0, end=1)
    return graph.add("Concat", rows, graph.constant(np.array([n_trees], np.int64)), axis=0)


def _next(graph: GraphBuilder, values: str, splits: str, left: str) -> str:
    """One step: the left child, or the one after it when the value is above the threshold."""
    above = graph.add("Cast", graph.add("Greater", values, splits), to=TensorProto.INT32)
    return graph.add("Add", left, above)


def _both_ways_of_missing(graph: GraphBuilder, features: str) -> str:
    """Return [N, 2 F]: the features with NaN as infinity, which goes right everywhere, then as minus infinity."""
    missing = graph.add("IsNaN", features)
    ways = (graph.add("Where", missing, graph.constant(np.float32(end)), features) for end in (np.inf, -np.inf))
    return graph.add("Concat", *ways, axis=1)


def _add_tables(graph: GraphBuilder, codes: ForestCodes) -> _Tables:
    """Add the nodes that spread the codes over all nodes; constants go in and a loader folds them."""
    flags = _add_flags(graph, codes.inner)
    inner = graph.add("Cast", flags, to=TensorProto.BOOL)
    before = graph.add("CumSum", flags, graph.constant(np.int32(0)), exclusive=1)  # inner nodes before each node
    padded = -(-codes.inner.size // 8) * 8
    itself = graph.add("Range", *(graph.constant(np.int32(value)) for value in (0, padded, 1)))
    twice = graph.add("Add", before, before)
    first_child = graph.add("Add", twice, graph.constant(np.int32(codes.n_trees)))
    # Leaves read the next inner node's entry, and the last leaves one that follows them all.
    columns = _looked_up(graph, np.pad(codes.columns, (0, 1)), before)
    ranks = _looked_up(graph, np.pad(codes.ranks, (0, 1)), before)
    first_levels = graph.constant(np.tile(codes.first_levels, 2).astype(np.int32))
    levels = graph.add("Add", graph.add("Gather", first_levels, columns), ranks)
    splits = graph.add("Gather", graph.constant(np.pad(codes.levels, (0, 1))), levels)
    spare = padded - codes.inner.size
    leaves = _looked_up(graph, np.pad(codes.leaf_codes, (0, spare)), graph.add("Sub", itself, before))
    return _Tables(
        columns=columns,
        splits=graph.add("Where", inner, splits, graph.constant(np.float32(np.inf))),
        left=graph.add("Where", inner, first_child, itself),
        lengths=graph.add("Gather", graph.constant(codes.leaf_levels), leaves),
    )


def _add_flags(graph: GraphBuilder, inner: npt.NDArray[np.bool_]) -> str:
    """Add an int32 a node, 1 in inner ones, from eight of them a byte; up to 7 leaves that nobody reaches follow."""
    packed = graph.constant(np.packbits(inner, bitorder="little")[:, np.newaxis])
    powers = graph.constant(2 ** np.arange(8, dtype=np.int32))
    shifted = graph.add("Div", graph.add("Cast", packed, to=TensorProto.INT32), powers)
    return graph.add("Reshape", graph.add("Mod", shifted, graph.constant(np.int32(2))), graph.constant(_FLAT))


def _looked_up(graph: GraphBuilder, table: npt.NDArray[Any], places: str) -> str:
    return graph.add("Cast", graph.add("Gather", graph.constant(table), places), to=TensorProto.INT32)

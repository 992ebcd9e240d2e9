"""codebook8: at most 256 values, the same order of scores, fewer bytes, whatever the scale of the signals."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.stats import spearmanr
from sklearn.ensemble import IsolationForest

from exporter.graph.forest import add_forest
from exporter.graph.nodes import GraphBuilder, tensor_info
from exporter.graph.path_forest import PathForest, flatten_forest
from exporter.graph.running import Graph
from exporter.quantization.codebook import LEVELS, codebook8, shortest_between


def graph_of(trees: PathForest) -> bytes:
    graph = GraphBuilder()
    add_forest(graph, trees, "X", name="score")
    shape = ("n", trees.n_features)
    return graph.model("f", [tensor_info("X", "f4", shape)], [tensor_info("score", "f4", ("n", 1))]).SerializeToString()


def check(train: np.ndarray, test: np.ndarray, least_spearman: float) -> None:
    trees = flatten_forest(IsolationForest(n_estimators=150, random_state=0).fit(train))
    small = codebook8(trees)
    inner = ~trees.leaves
    for feature in range(trees.n_features):
        assert np.unique(small.splits[inner & (trees.features == feature)]).size <= LEVELS
    assert np.unique(small.path_lengths[~inner]).size <= LEVELS
    assert (small.path_lengths[inner] == 0).all()
    before, after = (Graph(graph_of(t)).run(test.astype(np.float32), ["score"])[0][:, 0] for t in (trees, small))
    assert spearmanr(before, after)[0] >= least_spearman
    assert len(zlib.compress(graph_of(small))) < len(zlib.compress(graph_of(trees)))


@pytest.mark.parametrize("sigma", [0.5, 3.0])
def test_heavy_tails_keep_their_order(sigma: float) -> None:
    X = np.random.default_rng(0).lognormal(10, sigma, (6000, 8))
    check(X[:3000], X[3000:], 0.9995)


def test_counters_of_real_drives_keep_their_order(shared_data: Path) -> None:
    import pyarrow.parquet as pq

    frame = pq.read_table(shared_data / "backblaze2019" / "readings.parquet").to_pandas()
    X = frame.drop(columns=["device_id", "timestamp", "cohort"]).to_numpy()
    check(X[::2], X[1::2], 0.999)


def test_few_thresholds_hardly_move() -> None:
    trees = flatten_forest(
        IsolationForest(n_estimators=3, random_state=0).fit(np.random.default_rng(0).normal(size=(99, 2)))
    )
    small = codebook8(trees)
    np.testing.assert_allclose(small.splits, trees.splits, atol=0.003)
    assert np.array_equal(small.path_lengths, trees.path_lengths)


def test_thresholds_that_no_row_tells_apart_become_one() -> None:
    rng = np.random.default_rng(0)
    rows = rng.integers(0, 40, (3000, 2)).astype(np.float32)
    trees = flatten_forest(IsolationForest(n_estimators=200, random_state=0).fit(rows))
    small = codebook8(trees, without_some(rows))
    between = np.searchsorted(np.arange(40), trees.splits)
    assert np.array_equal(np.searchsorted(np.arange(40), small.splits), between)
    before, after = (Graph(graph_of(t)).run(rows, ["score"])[0] for t in (trees, small))
    assert np.array_equal(before, after)


def without_some(rows: np.ndarray) -> np.ndarray:
    return np.where(np.random.default_rng(1).random(rows.shape) < 0.1, np.nan, rows).astype(np.float32)


def test_values_at_the_ends_of_float32() -> None:
    rows = np.random.default_rng(0).choice([-3.4e38, 0.0, 1e38, 3.4e38], (300, 3)).astype(np.float32)
    trees = flatten_forest(IsolationForest(n_estimators=100, random_state=0).fit(rows))
    assert np.isfinite(codebook8(trees, rows).splits).all()


@given(hnp.arrays(np.float32, (20, 2), elements=st.floats(-(2.0**100), 2.0**100, width=32)))
def test_the_shortest_number_lies_between(pairs: np.ndarray) -> None:
    low, high = pairs.min(axis=1), pairs.max(axis=1)
    found = shortest_between(low, high)
    assert (found >= low).all()
    assert (found <= high).all()
    assert shortest_between(np.float32([0.7]), np.float32([1.3]))[0] == 1.0
    assert shortest_between(np.float32([-1.3]), np.float32([-0.7]))[0] == -1.0

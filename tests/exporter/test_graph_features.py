"""The feature graph against a plain numpy reading of its definitions, alone and in blocks."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_runtime.contract.manifest import Regimes
from exporter.errors import SpecError
from exporter.graph.features import FeaturePlan, feature_model, plan_features
from exporter.graph.running import Graph
from exporter.graph.statistics import STATISTICS

EVERY = tuple(STATISTICS)


def statistic(name: str, column: np.ndarray) -> float:
    slots = np.flatnonzero(~np.isnan(column))
    x, t = column[slots], slots.astype(np.float64)
    if not x.size or (name in ("slope", "delta") and x.size < 2):
        return float("nan")
    return float(
        {
            "last": lambda: x[-1],
            "mean": lambda: x.mean(),
            "std": lambda: x.std(),
            "min": lambda: x.min(),
            "max": lambda: x.max(),
            "range": lambda: x.max() - x.min(),
            "slope": lambda: np.sum((t - t.mean()) * (x - x.mean())) / np.sum((t - t.mean()) ** 2),
            "delta": lambda: x[-1] - x[0],
        }[name]()
    )


def expected(plan: FeaturePlan, regimes: Regimes | None, window: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    raw = window.astype(np.float64)
    values, context = raw[:, : len(plan.signals)], raw[:, len(plan.signals) :]
    places, distance = np.zeros(plan.slots, np.int64), []
    if regimes is not None:
        scaled = (context - regimes.context_means) / np.array(regimes.context_spreads)
        apart = ((scaled[:, None] - np.array(regimes.centroids)) ** 2).sum(axis=2)
        known = ~np.isnan(context).any(axis=1)
        places[known] = apart[known].argmin(axis=1)
        residual = (values - np.array(regimes.means)[places]) / np.array(regimes.spreads)[places]
        residual[~known] = np.nan
        distance = [np.sqrt(apart[-1].min())]
        values_seen = residual
    else:
        values_seen = values
    features = [
        statistic(item.name, values_seen[plan.slots - item.slots :, column])
        for item in plan.statistics
        for column in range(len(plan.signals))
    ]
    filled = (~np.isnan(values)).any(axis=1).sum()
    shares = [
        1 - (~np.isnan(values[:, plan.signals.index(name)])).sum() / filled if filled else np.nan
        for name in plan.shares
    ]
    return np.array([*features, *distance, *shares], np.float32), places


def make(
    rng: np.random.Generator, *, context: int, regimes: int, slots: int, statistics: tuple[str, ...], signals: int = 3
):
    names = [f"s{i}" for i in range(signals)]
    plan = plan_features(
        statistics, signals=names, context=[f"c{i}" for i in range(context)], slots=slots, shares=names[1:]
    )
    if not context:
        return plan, None

    def table(low: float, columns: int) -> tuple[tuple[float, ...], ...]:
        return tuple(map(tuple, (low + rng.random((regimes, columns)) * 3).tolist()))

    found = Regimes(table(-1, context), (0.3,) * context, (2.0,) * context, table(-2, signals), table(0.1, signals))
    return plan, found


def windows_of(rng: np.random.Generator, plan: FeaturePlan, count: int, missing: float) -> np.ndarray:
    windows = rng.normal(size=(count, plan.slots, plan.columns)).astype(np.float32) * 3
    windows[rng.random(windows.shape) < missing] = np.nan
    for row in range(0, count, 3):  # warm-up: the oldest slots are empty
        windows[row, : rng.integers(0, plan.slots)] = np.nan
    return windows


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**16),
    context=st.integers(0, 2),
    regimes=st.integers(1, 4),
    slots=st.integers(1, 9),
    missing=st.sampled_from([0.0, 0.1, 0.6, 1.0]),
)
def test_features_are_their_definitions(seed: int, context: int, regimes: int, slots: int, missing: float) -> None:
    rng = np.random.default_rng(seed)
    statistics = (*EVERY, f"mean:{slots // 2 + 1}", "last:1")
    plan, found = make(rng, context=context, regimes=regimes, slots=slots, statistics=statistics)
    windows = windows_of(rng, plan, 12, missing)
    outputs = ["features", "regime"] if found else ["features"]
    got = Graph(feature_model(plan, found)).run(windows, outputs)
    wanted = [expected(plan, found, window) for window in windows]
    np.testing.assert_allclose(got[0], np.stack([row for row, _ in wanted]), rtol=1e-5, atol=1e-5)
    assert got[0].shape == (12, len(plan.names))
    if found:
        assert np.array_equal(got[1], np.stack([places for _, places in wanted]))


@pytest.mark.parametrize("context", [0, 3])
def test_a_window_has_the_same_features_alone_and_in_a_block(context: int) -> None:
    rng = np.random.default_rng(7)
    plan, found = make(rng, context=context, regimes=6, slots=24, statistics=EVERY, signals=22)
    windows = windows_of(rng, plan, 2000, 0.05)
    windows[:, :, 4] = 41.7  # a constant signal was what made float32 differ
    graph = Graph(feature_model(plan, found))
    block = graph.run(windows, ["features"])[0]
    alone = np.concatenate([graph.run(windows[i : i + 1], ["features"])[0] for i in range(len(windows))])
    assert np.array_equal(block.view(np.uint32), alone.view(np.uint32))


def test_no_data_is_nan_never_zero() -> None:
    plan, found = make(np.random.default_rng(0), context=1, regimes=2, slots=4, statistics=EVERY)
    got = Graph(feature_model(plan, found)).run(np.full((2, 4, 4), np.nan, np.float32), ["features", "regime"])
    assert np.isnan(got[0]).all()
    assert not got[1].any()


def test_a_reading_without_its_context_counts_as_missing() -> None:
    plan, found = make(np.random.default_rng(0), context=1, regimes=2, slots=2, statistics=("last", "mean"))
    graph = Graph(feature_model(plan, found))
    window = np.ones((1, 2, 4), np.float32)
    window[0, 1, 3] = np.nan
    without = graph.run(window, ["features"])[0][0]
    window[0, 1] = np.nan
    assert np.array_equal(without[:6], graph.run(window, ["features"])[0][0, :6])
    assert np.isnan(without[plan.names.index("regime_distance")])


def test_one_slot_has_one_feature_a_signal() -> None:
    plan = plan_features(EVERY, signals=["a", "b"], context=[], slots=1, shares=["a"])
    assert plan.names == ("a.last", "b.last")


def test_names_say_the_span() -> None:
    plan = plan_features(["last", "mean:6", "last"], signals=["a"], context=["c"], slots=12, shares=["a"])
    assert plan.names == ("a.last", "a.mean_6", "regime_distance", "a.missing_share")


@pytest.mark.parametrize(("text", "advice"), [("meen", "'mean'"), ("mean:13", "widen"), ("mean:x", "widen")])
def test_statistics_that_are_refused(text: str, advice: str) -> None:
    with pytest.raises(SpecError, match=advice):
        plan_features([text], signals=["a"], context=[], slots=12)


def test_the_graph_is_valid_onnx() -> None:
    plan, found = make(np.random.default_rng(0), context=2, regimes=3, slots=6, statistics=EVERY)
    onnx.checker.check_model(feature_model(plan, found), full_check=True)
    onnx.checker.check_model(feature_model(plan_features(["last"], signals=["a"], context=[], slots=1), None))


def test_slots_are_the_window_itself() -> None:
    plan = plan_features(["slots", "mean:2", "slots:2"], signals=("a", "b"), context=(), slots=3)
    assert plan.names == (
        "a.ago_2", "b.ago_2", "a.ago_1", "b.ago_1", "a.ago_0", "b.ago_0", "a.mean_2", "b.mean_2",
        "a.ago_1", "b.ago_1", "a.ago_0", "b.ago_0",
    )  # fmt: skip
    window = np.array([[[1, 2], [3, np.nan], [5, 6]]], np.float32)
    found = Graph(feature_model(plan, None)).run(window, ["features"])[0][0]
    np.testing.assert_array_equal(found, np.array([1, 2, 3, np.nan, 5, 6, 4, 6, 3, np.nan, 5, 6], np.float32))

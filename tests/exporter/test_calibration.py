"""The calibration map: strictly increasing, its knots where the contract puts them, the same in the graph."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.calibration import CLOSEST, MOST_QUANTILES, fit_calibration
from exporter.errors import TelemetryError
from exporter.graph.calibration import add_calibration
from exporter.graph.nodes import GraphBuilder, tensor_info
from exporter.graph.running import Graph


def graph_of(calibration):
    graph = GraphBuilder()
    add_calibration(graph, calibration, "raw", name="score")
    model = graph.model("map", [tensor_info("raw", "f4", ("n", 1))], [tensor_info("score", "f4", ("n", 1))])
    return Graph(model)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 999),
    n=st.integers(2, 5000),
    spread=st.sampled_from([2e-6, 0.001, 0.05, 0.3]),
)
def test_knots_follow_the_contract(seed: int, n: int, spread: float) -> None:
    rng = np.random.default_rng(seed)
    scores = np.clip(0.45 + rng.normal(size=n) * spread, 0.01, 0.99)
    scores = np.round(scores, 7)
    if scores.max() - scores.min() < 3 * CLOSEST:
        return
    calibration = fit_calibration(scores)
    xs, ys = np.array(calibration.raw_scores), np.array(calibration.anomaly_scores)
    assert (xs[0], ys[0], xs[-1], ys[-1]) == (0, 0, 1, 1)
    assert (np.diff(xs) >= CLOSEST * 0.999).all()
    assert (np.diff(ys) > 0).all()
    assert len(xs) <= MOST_QUANTILES + 2
    assert ys[-2] == pytest.approx(0.999 if n >= 1000 else n / (n + 1))
    assert xs[-2] == pytest.approx(np.quantile(scores, 0.999) if n >= 1000 else scores.max())
    assert (np.diff(ys[1:-1]) * n >= 19.99).all()


def test_a_score_is_the_share_of_healthy_windows_below() -> None:
    scores = np.random.default_rng(0).beta(4, 6, 20_000)
    calibration = fit_calibration(scores)
    for share in (0.05, 0.5, 0.9, 0.99):
        assert calibration(np.quantile(scores, share)) == pytest.approx(share, abs=0.003)
        assert calibration.inverse(share) == pytest.approx(np.quantile(scores, share), abs=3e-3)


def test_the_graph_is_the_same_map_and_never_falls() -> None:
    rng = np.random.default_rng(1)
    calibration = fit_calibration(rng.beta(4, 6, 3000))
    raw = np.sort(np.r_[0, 1, calibration.raw_scores, rng.random(5000)]).astype(np.float32)[:, None]
    scores = graph_of(calibration).run(raw, ["score"])[0]
    np.testing.assert_allclose(scores, calibration(raw), atol=1e-6)
    assert (np.diff(scores[:, 0]) >= 0).all()
    assert scores.min() >= 0
    assert scores.max() <= 1


def test_scores_that_are_all_equal_are_refused() -> None:
    with pytest.raises(TelemetryError, match="score the same"):
        fit_calibration(np.full(100, 0.5))
    with pytest.raises(TelemetryError):
        fit_calibration(np.array([]))

"""The squash keeps the order of any detector's scores, also of very large ones in float32, and graph and code agree."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.graph.nodes import GraphBuilder, tensor_info
from exporter.graph.running import Graph
from exporter.graph.squash import Squash, add_squash


def squashed(squash: Squash, scores: np.ndarray) -> np.ndarray:
    graph = GraphBuilder()
    add_squash(graph, squash, "s", name="raw")
    model = graph.model("squash", [tensor_info("s", "f4", ("n", 1))], [tensor_info("raw", "f4", ("n", 1))])
    return Graph(model).run(scores.astype(np.float32)[:, None], ["raw"])[0][:, 0]


@given(
    middle=st.floats(-1e3, 1e3),
    spread=st.floats(1e-3, 1e3),
    scores=st.lists(st.floats(-1e6, 1e6, width=32), min_size=2, max_size=50),
)
def test_order_and_range_are_kept(middle: float, spread: float, scores: list[float]) -> None:
    values = np.sort(np.array(scores))
    raw = squashed(Squash(middle, spread), values)
    assert raw.min() >= 0
    assert raw.max() <= 1
    assert (np.diff(raw) >= 0).all()
    np.testing.assert_allclose(raw, Squash(middle, spread)(values.astype(np.float32)), atol=1e-7)


def test_far_scores_stay_apart_in_float32() -> None:
    far = np.array([1e2, 1e3, 1e4, 1e5, 1e6, 2e6])
    assert (np.diff(squashed(Squash(0.0, 1.0), far)) > 0).all()


@pytest.mark.parametrize(
    ("scores", "spread"), [([0.0, 1, 2, 3, 4], 2.0), ([5.0, 5, 5, 5, 9], 5.0), ([0.0, 0, 0], 1.0), ([-3.0, -3], 3.0)]
)
def test_the_scale_is_that_of_healthy_scores(scores: list[float], spread: float) -> None:
    squash = Squash.fit(scores)
    assert squash.spread == spread
    assert squash(squash.middle) == 0.5
    assert squash(squash.middle + spread) == 0.75

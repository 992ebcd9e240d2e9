"""What a graph costs is measured side by side: sizes exactly, times for every graph and batch."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
from simulators.tiny_build import SIGNALS, SLOTS, tiny_graph

from exporter import costs as costs_module
from exporter.costs import measure_costs
from exporter.graph.running import BLOCK_VALUES
from exporter.spec import BATCHES


def test_every_graph_is_measured_at_every_batch() -> None:
    graphs = {"one": tiny_graph(), "two": tiny_graph()}
    few = np.random.default_rng(0).normal(size=(7, SLOTS, SIGNALS)).astype(np.float32)
    costs = measure_costs(graphs, few)
    assert list(costs) == ["one", "two"]
    for name, cost in costs.items():
        assert cost.bytes == len(graphs[name])
        assert cost.bytes_deflated == len(zlib.compress(graphs[name], 9))
        assert cost.load_ms > 0
        assert set(cost.window_us) == set(BATCHES)
        assert all(value > 0 for value in cost.window_us.values())
        assert set(cost.to_dict()["window_us"]) == {"1", "100", "10000"}


def test_graphs_of_other_shapes_get_windows_of_their_own() -> None:
    wide = np.zeros((3, SLOTS, 2 * SIGNALS), np.float32)
    windows = {"one": wide[..., :SIGNALS], "two": wide}
    graphs = {"one": tiny_graph(), "two": tiny_graph(signals=2 * SIGNALS)}
    costs = measure_costs(graphs, windows, batches=(1,))
    assert [set(cost.window_us) for cost in costs.values()] == [{1}, {1}]


def test_a_large_batch_of_large_windows_is_never_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """10,000 windows of 120 slots x 38 signals are 182 MB, and every form had a copy of its own."""
    held: list[int] = []
    made = costs_module._block

    def watched(pool: np.ndarray, offset: int, rows: slice) -> np.ndarray:
        block = made(pool, offset, rows)
        assert np.shares_memory(block, pool)
        assert len(block) == rows.stop - rows.start
        held.append(pool.nbytes)
        return block

    monkeypatch.setattr(costs_module, "_block", watched)
    few = np.random.default_rng(0).normal(size=(7, SLOTS, SIGNALS)).astype(np.float32)
    measure_costs({"one": tiny_graph()}, few)
    assert max(held) <= 4 * BLOCK_VALUES

"""What a graph costs is measured side by side: sizes exactly, times for every graph and batch."""

from __future__ import annotations

import zlib

import numpy as np
from simulators.tiny_build import SIGNALS, SLOTS, tiny_graph

from exporter.costs import measure_costs
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

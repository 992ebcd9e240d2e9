"""Golden windows: inputs whose outputs every runtime must reproduce before it activates a bundle.

32 of them: both verdicts, missing values, a warm-up window, every regime, and none so near to the threshold that a
last bit could turn its verdict (contract, Golden windows). What the data does not offer is made from what it does.
The windows are clear of the threshold in every graph that may be shipped, so that another can be chosen later.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_runtime.contract.golden import OUTPUTS, GoldenSpec
from exporter.errors import ConversionError
from exporter.graph.running import Graph
from exporter.training import Trained
from exporter.window_sets import WindowSet

GOLDEN_WINDOWS = 32
CLEAR_OF_THRESHOLD = 1e-4
# A quarter of them anomalous where there are so many: verdicts of both kinds, and mostly what a device sees.
MOST_ANOMALOUS = 8
BLANKED = 0.15
POOL = 512
# Among so many windows every regime that is worth the name is found.
MOST_WINDOWS = 100_000
# Signals are pushed this many times their largest healthy value away until a made-up window is an anomaly.
PUSHES = (2.0, 10.0, 1e3, 1e6)

Windows = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Golden:
    """Both files of the golden windows."""

    json: bytes
    blob: bytes
    windows: int


def make_golden(trained: Trained, others: WindowSet, model: bytes, candidates: Sequence[bytes] = ()) -> Golden:
    """Choose golden windows and record what the graph says of them.

    Args:
        trained: The model, with its healthy windows.
        others: More windows of the same columns, such as held-out ones; anomalies are sought there as well.
        model: The graph that ships.
        candidates: Other graphs that may be chosen instead.

    Returns:
        The files.

    Raises:
        ConversionError: No window is clear of the threshold.
    """
    graph = Graph(model)
    graphs = [graph, *(Graph(other) for other in candidates if other != model)]
    groups = _candidates(trained, others, graph)
    chosen: list[Windows] = []
    for group, most in groups:
        raw = np.stack([one.run(group, ["raw_score"])[0][:, 0] for one in graphs])
        above = raw > trained.threshold.raw_score
        clear = np.abs(raw - trained.threshold.raw_score) > CLEAR_OF_THRESHOLD
        group = group[clear.all(axis=0) & (above == above[0]).all(axis=0)]
        chosen.append(_spread(group, min(most, GOLDEN_WINDOWS - sum(map(len, chosen)))))
    windows = np.concatenate(chosen)
    if not len(windows):
        raise ConversionError(
            "No window scores clear of the threshold, so none can prove the model on a device.",
            advice="Set calibration.threshold elsewhere, or bring data that varies more.",
        )
    outputs = graph.run(windows, OUTPUTS)
    spec = GoldenSpec(windows=len(windows), slots=windows.shape[1], signals=windows.shape[2])
    blob = b"".join(np.ascontiguousarray(part, "<f4").tobytes() for part in (windows, *outputs))
    return Golden(spec.to_bytes(), blob, len(windows))


def _candidates(trained: Trained, others: WindowSet, graph: Graph) -> list[tuple[Windows, int]]:
    """Return groups of candidates, what must be there first, each with the number wanted."""
    healthy = trained.healthy.take(_evenly(len(trained.healthy), POOL))
    plain = healthy.windows()
    blanked = plain.copy()
    blanked[np.random.default_rng(0).random(blanked.shape) < BLANKED] = np.nan
    groups = [
        (_anomalous(trained, others, plain, graph), MOST_ANOMALOUS),
        (blanked, 4),
        (_warming_up(plain, trained.plan.slots), 2),
    ]
    groups += [(group, 1) for group in _by_regime(trained)]
    return [*groups, (plain, GOLDEN_WINDOWS)]


def _anomalous(trained: Trained, others: WindowSet, healthy: Windows, graph: Graph) -> Windows:
    """Return windows that the graph calls anomalies: real ones, else healthy ones pushed out of range."""
    sample = others.take(_evenly(len(others), 8 * POOL))
    if len(sample):
        verdicts = np.asarray(sample.run(graph, ["is_anomaly"])[0][:, 0], bool)
        if verdicts.any():
            return sample.take(verdicts).windows()
    columns = len(trained.plan.signals)
    largest = np.abs(np.nan_to_num(healthy[..., :columns])).max(axis=(0, 1)) + 1.0
    for push in PUSHES:
        pushed = healthy[:MOST_ANOMALOUS].copy()
        pushed[..., :columns] += (largest * push).astype(np.float32)
        verdicts = np.asarray(graph.run(pushed, ["is_anomaly"])[0][:, 0], bool)
        if verdicts.any():
            return np.ascontiguousarray(pushed[verdicts])
    return healthy[:0]


def _warming_up(windows: Windows, slots: int) -> Windows:
    """Return windows whose older half is empty, as after a start; none with one slot."""
    if slots == 1:
        return windows[:0]
    young = windows.copy()
    young[:, : slots - max(1, slots // 2)] = np.nan
    return young


def _by_regime(trained: Trained) -> list[Windows]:
    """Return windows of each regime, by the newest reading."""
    if trained.regimes is None:
        return []
    healthy = trained.healthy.take(_evenly(len(trained.healthy), MOST_WINDOWS))
    newest = healthy.run(trained.feature_graph(), ["regime"])[0][:, -1]
    places = range(len(trained.regimes.centroids))
    found = [np.flatnonzero(newest == place)[:POOL] for place in places]
    return [healthy.take(rows).windows() for rows in found if rows.size]


def _spread(windows: Windows, most: int) -> Windows:
    return windows[_evenly(len(windows), most)]


def _evenly(count: int, most: int) -> npt.NDArray[np.int64]:
    """Return at most ``most`` numbers below ``count``, evenly apart."""
    size = min(count, most)
    return np.arange(size) * count // max(1, size)

"""Out of fold means out of fold: what calibrates a model has seen nothing of the device that it scores."""

from __future__ import annotations

import numpy as np
import pytest

from edge_runtime.contract.window import WindowRule
from exporter.config import CalibrationSpec, DetectorSpec
from exporter.dataset import Device
from exporter.detectors import graph_scores, make_detector
from exporter.errors import TelemetryError
from exporter.graph.features import feature_model, plan_features
from exporter.graph.running import Graph
from exporter.regimes import fit_regimes
from exporter.training import Columns, out_of_fold_scores, train
from exporter.window_sets import WindowSet, cut_windows

HOUR = 3_600_000
COLUMNS = Columns(("heat", "load"), ("charging",), ("last", "mean"))
DETECTOR = DetectorSpec(trees=25)


def fleet(devices: int, hours: int = 120) -> WindowSet:
    """Devices that differ from each other, each with its own level of heat."""
    rng = np.random.default_rng(0)
    rule = WindowRule(4, HOUR, 4 * HOUR, 2)
    times = np.arange(hours, dtype=np.int64) * HOUR
    made = []
    for number in range(devices):
        charging = (rng.random(hours) < 0.5).astype(np.float64)
        heat = 20 + number + 10 * charging + rng.normal(size=hours)
        values = np.stack([heat, rng.normal(size=hours), charging], axis=1).astype(np.float32)
        made.append(Device(f"d{number}", None, times, values, np.zeros(hours, np.int8)))
    return cut_windows(made, rule)


def test_each_device_is_scored_by_what_the_others_taught() -> None:
    windows = fleet(5)
    trained = train(windows, COLUMNS, DETECTOR, CalibrationSpec(alarms_per_device_day=0.5), labelled=True)
    assert trained.clusters is not None
    for number in range(5):
        rest, own = windows.of_devices([n for n in range(5) if n != number]), windows.of_devices([number])
        readings = rest.newest.astype(np.float64)
        graph = Graph(feature_model(trained.plan, fit_regimes(trained.clusters, readings[:, 2:], readings[:, :2])))
        taught, asked = (np.asarray(part.run(graph, ["features"])[0], np.float32) for part in (rest, own))
        expected = graph_scores(make_detector(DETECTOR).fit(taught), asked)
        np.testing.assert_array_equal(trained.out_of_fold[windows.device == number].astype(np.float32), expected)
    # The devices at both ends are stranger to the others than they are to a model that knows them.
    known = graph_scores(trained.detector, trained.features)
    ends = np.isin(windows.device, [0, 4])
    assert trained.out_of_fold[ends].mean() > known[ends].mean() + 0.02


@pytest.mark.parametrize("devices", [1, 2, 9, 10, 23])
def test_every_window_gets_a_score_from_a_fold_of_whole_devices(devices: int) -> None:
    windows = fleet(devices, hours=30)
    plan = plan_features(("last",), signals=("heat", "load", "charging"), context=(), slots=4)
    scores = out_of_fold_scores(windows, plan, None, DetectorSpec(trees=3))
    assert ((scores > 0) & (scores <= 1)).all()


def test_one_window_is_no_fleet() -> None:
    windows = fleet(1, hours=30)
    with pytest.raises(TelemetryError, match="score the same"):
        train(windows.take(np.arange(1)), COLUMNS, DETECTOR, CalibrationSpec(), labelled=True)

"""Out of fold means out of fold: what calibrates a model has seen nothing of the device that it scores."""

from __future__ import annotations

import numpy as np
import pytest

from edge_runtime.contract.window import WindowRule
from exporter.config import CalibrationSpec, DetectorSpec
from exporter.dataset import Device
from exporter.detectors import graph_scores, make_detector
from exporter.errors import TelemetryError
from exporter.graph.features import feature_model
from exporter.graph.running import Graph
from exporter.regimes import fit_regimes
from exporter.training import Columns, train
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
    columns = Columns(("heat", "load", "charging"), (), ("last",))
    spec = CalibrationSpec(threshold=0.9)
    scores = train(windows, columns, DetectorSpec(trees=3), spec, labelled=True).out_of_fold
    assert scores.shape == (len(windows),)
    assert ((scores > 0) & (scores <= 1)).all()


def test_one_window_is_no_fleet() -> None:
    windows = fleet(1, hours=30)
    with pytest.raises(TelemetryError, match="score the same"):
        train(windows.take(np.arange(1)), COLUMNS, DETECTOR, CalibrationSpec(), labelled=True)


def test_very_many_windows_train_and_calibrate_by_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("exporter.training.MOST_TRAINED", 500)
    monkeypatch.setattr("exporter.training.MOST_CALIBRATED", 1300)
    windows = fleet(20)
    trained = train(windows, COLUMNS, DETECTOR, CalibrationSpec(alarms_per_device_day=0.5), labelled=True)
    assert len(trained.features) == 500
    judged = np.unique(trained.healthy.device)
    assert 1 < judged.size < 20
    assert len(trained.healthy) == len(windows.of_devices(judged)) <= 1300
    assert len(trained.out_of_fold) == len(trained.healthy)
    assert any("a sample of 500" in note for note in trained.notes)
    assert any(f"of {judged.size} devices" in note for note in trained.notes)


def test_a_hybrid_is_calibrated_on_devices_that_neither_forest_saw() -> None:
    spec = DetectorSpec(kind="hybrid", trees=25, cohort_weight=0.7)
    fleet_wide = fleet(12)
    calibration = CalibrationSpec(alarms_per_device_day=0.5)
    base = train(fleet_wide, COLUMNS, spec, calibration, labelled=True).base()
    cohort = fleet_wide.of_devices([0, 1, 2, 3, 4])
    trained = train(cohort, COLUMNS, spec, calibration, labelled=True, base=base)
    assert trained.regimes == base.regimes  # both forests judge the same residuals
    number = base.folds.of_device[0]
    fold, held = base.folds.learnt[number], base.folds.of_device[cohort.device] == number
    graph = Graph(feature_model(trained.plan, fold.regimes))
    rest, asked = (
        np.asarray(part.run(graph, ["features"])[0], np.float32) for part in (cohort.take(~held), cohort.take(held))
    )
    expected = make_detector(spec, fold.detector).fit(rest)
    np.testing.assert_array_equal(trained.out_of_fold[held].astype(np.float32), graph_scores(expected, asked))
    np.testing.assert_allclose(expected.raw_scores(asked), graph_scores(expected, asked), atol=1e-6)
    assert trained.folds is not None
    with pytest.raises(ValueError, match="hybrid"):
        train(cohort, COLUMNS, DETECTOR, calibration, labelled=True).base()


def test_a_model_for_comparing_has_the_detector_that_ships_and_is_calibrated_on_itself() -> None:
    windows = fleet(5)
    spec = CalibrationSpec(threshold=0.9)
    shipped = train(windows, COLUMNS, DETECTOR, spec, labelled=True)
    compared = train(windows, COLUMNS, DETECTOR, spec, labelled=True, calibrate=False)
    np.testing.assert_array_equal(
        graph_scores(compared.detector, shipped.features), graph_scores(shipped.detector, shipped.features)
    )
    np.testing.assert_array_equal(compared.out_of_fold, graph_scores(compared.detector, compared.features))
    assert compared.folds is None

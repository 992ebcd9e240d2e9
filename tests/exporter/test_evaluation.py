"""The figures of a report, on fleets small enough to check by hand."""

from __future__ import annotations

import numpy as np
import pytest

from edge_runtime.contract.window import WindowRule
from exporter.dataset import Device
from exporter.evaluation import evaluate
from exporter.window_sets import WindowSet, cut_windows

HOUR = 3_600_000


def fleet() -> WindowSet:
    """Two devices, 24 hourly readings each; the first is faulty in its last six."""
    rule = WindowRule(1, HOUR, 6 * HOUR, 1)
    times, values = np.arange(24, dtype=np.int64) * HOUR, np.zeros((24, 1), np.float32)
    faulty = np.r_[np.zeros(16, np.int8), -np.ones(2, np.int8), np.ones(6, np.int8)]
    return cut_windows(
        [Device("a", "x", times, values, faulty), Device("b", "y", times, values, np.zeros(24, np.int8))], rule
    )


def figures(anomalous_hours: dict[int, list[int]], *, labelled: bool = True):
    windows = fleet()
    anomalous = np.zeros(len(windows), bool)
    for device, hours in anomalous_hours.items():
        anomalous[[device * 24 + hour for hour in hours]] = True
    scores = anomalous.astype(np.float64)
    return evaluate(windows, scores, scores, anomalous, incident_gap=3, labelled=labelled)


def test_a_fault_is_caught_from_the_start_of_its_incident() -> None:
    found = figures({0: [16, 17, 18], 1: [3, 4, 20]})
    assert (found["faulty_devices"], found["faulty_devices_caught"]) == (1, 1)
    assert (found["median_hours_early"], found["median_readings_early"]) == (7.0, 7.0)
    assert found["median_hours_after_onset"] == -2.0
    alarms = found["healthy_alarms_per_device_day"]
    assert alarms["incidents"] == 2
    assert alarms["device_days"] == pytest.approx(40 / 24)
    assert alarms["max"] == pytest.approx(2.0)
    assert alarms["devices_without_alarm"] == 1
    assert set(found["auc_by_cohort"]) == {"x", "y"}


def test_a_fault_without_alarm_is_not_caught() -> None:
    found = figures({0: [2]})
    assert found["faulty_devices_caught"] == 0
    assert found["median_hours_early"] is None


def test_without_labels_every_alarm_counts_as_healthy() -> None:
    found = figures({0: [20]}, labelled=False)
    assert found["auc"] is None
    assert found["faulty_devices"] is None
    assert found["healthy_alarms_per_device_day"]["mean"] == pytest.approx(0.5)


def test_each_fault_of_a_device_counts_from_the_alarm_that_caught_it() -> None:
    rule = WindowRule(1, HOUR, 6 * HOUR, 1)
    labels = np.zeros(40, np.int8)
    labels[[10, 11, 30, 31, 32]] = 1
    times, values = np.arange(40, dtype=np.int64) * HOUR, np.zeros((40, 1), np.float32)
    windows = cut_windows([Device("a", None, times, values, labels)], rule)
    anomalous = np.zeros(40, bool)
    anomalous[[20, 31]] = True  # a false alarm between two faults, then the second fault
    found = evaluate(windows, anomalous * 1.0, anomalous * 1.0, anomalous, incident_gap=3, labelled=True)
    assert found["faulty_devices_caught"] == 1
    assert (found["median_readings_early"], found["median_hours_after_onset"]) == (1.0, 1.0)
    assert found["healthy_alarms_per_device_day"]["incidents"] == 1


def test_healthy_alarms_are_the_incidents_that_a_device_would_report() -> None:
    rule = WindowRule(1, HOUR, 6 * HOUR, 1)
    labels = np.zeros(60, np.int8)
    labels[2:50] = 1
    times, values = np.arange(60, dtype=np.int64) * HOUR, np.zeros((60, 1), np.float32)
    windows = cut_windows([Device("a", None, times, values, labels)], rule)
    anomalous = np.zeros(60, bool)
    anomalous[[1, 51]] = True  # two days apart, with nothing but faulty windows between them
    found = evaluate(windows, anomalous * 1.0, anomalous * 1.0, anomalous, incident_gap=3, labelled=True)
    alarms = found["healthy_alarms_per_device_day"]
    assert alarms["incidents"] == 2
    assert alarms["device_days"] == pytest.approx(12 / 24)
    anomalous[48:52] = True  # the end of a fault's incident is no false alarm
    found = evaluate(windows, anomalous * 1.0, anomalous * 1.0, anomalous, incident_gap=3, labelled=True)
    assert found["healthy_alarms_per_device_day"]["incidents"] == 1

"""Incidents, device days and thresholds by alarm rate."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.contract.window import WindowRule
from exporter.alarms import days_by_device, find_incidents, threshold_for_rate
from exporter.dataset import Device
from exporter.errors import TelemetryError
from exporter.window_sets import WindowSet, cut_windows

HOUR = 3_600_000


def windows_of(devices: int, readings: int) -> WindowSet:
    rule = WindowRule(1, HOUR, 6 * HOUR, 1)
    values, labels = np.zeros((readings, 1), np.float32), np.zeros(readings, np.int8)
    times = np.arange(readings, dtype=np.int64) * HOUR
    return cut_windows([Device(str(i), None, times, values, labels) for i in range(devices)], rule)


def slow_incidents(anomalous: list[bool], device: list[int], gap: int) -> int:
    count, healthy, inside, before = 0, 0, False, None
    for hit, name in zip(anomalous, device, strict=True):
        if name != before:
            inside, healthy, before = False, 0, name
        if hit:
            count += not inside
            inside, healthy = True, 0
        elif inside:
            healthy += 1
            inside = healthy < gap
    return count


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 2)), max_size=60), st.integers(1, 4))
def test_incidents_are_runs_ended_by_healthy_windows(rows: list[tuple[bool, int]], gap: int) -> None:
    rows = sorted(rows, key=lambda row: row[1])
    hits, devices = [row[0] for row in rows], [row[1] for row in rows]
    found = find_incidents(np.array(hits, bool), np.array(devices, np.int64), gap)
    assert len(found.first) == slow_incidents(hits, devices, gap)


def test_days_count_gaps_up_to_the_largest() -> None:
    rule = WindowRule(1, HOUR, 6 * HOUR, 1)
    times = np.array([0, HOUR, 100 * HOUR], np.int64)
    device = Device("d", None, times, np.zeros((3, 1), np.float32), np.zeros(3, np.int8))
    assert days_by_device(cut_windows([device], rule)) == pytest.approx([(1 + 1 + 6) / 24])


@pytest.mark.parametrize("rate", [0.02, 0.1, 1.0])
def test_the_threshold_keeps_the_rate_and_wastes_little_of_it(rate: float) -> None:
    windows = windows_of(20, 240)
    scores = np.random.default_rng(0).beta(4, 6, len(windows))
    cut = threshold_for_rate(windows, scores, alarms_per_device_day=rate, incident_gap=3)
    incidents = len(find_incidents(scores >= cut, windows.device, 3).first)
    assert incidents <= rate * 200
    assert incidents >= rate * 200 - 1


def test_too_rare_a_rate_names_one_that_works() -> None:
    windows = windows_of(2, 24)
    scores = np.random.default_rng(0).random(len(windows))
    with pytest.raises(TelemetryError, match=r"2 device days.*can support 0.5") as caught:
        threshold_for_rate(windows, scores, alarms_per_device_day=0.02, incident_gap=3)
    rate = caught.value.fields["supported"]
    assert isinstance(rate, float)
    threshold_for_rate(windows, scores, alarms_per_device_day=rate, incident_gap=3)


def test_windows_that_were_left_out_part_incidents() -> None:
    windows = windows_of(1, 100).take(np.r_[0:5, 50:100])
    hits = np.isin(np.arange(55), [4, 5])
    assert len(find_incidents(hits, windows.device, 3).first) == 1
    assert len(find_incidents(hits, windows.device, 3, windows.rows).first) == 2
    assert days_by_device(windows) == pytest.approx([55 / 24])


def test_one_endless_incident_is_no_low_rate() -> None:
    # In the middle of the scores almost everything is an anomaly, and that is one incident a device.
    windows = windows_of(10, 240)
    noise = np.random.default_rng(0).random(len(windows))
    scores = np.where(np.arange(len(windows)) % 4 == 0, 0.5 + 0.1 * noise, 0.3 * noise)
    cut = threshold_for_rate(windows, scores, alarms_per_device_day=0.2, incident_gap=4)
    assert (scores >= cut).mean() < 0.02


def test_neighbours_in_float32_keep_the_rate() -> None:
    windows = windows_of(1, 240)
    low = np.float32(0.5)
    scores = np.full(240, float(low))
    scores[::100] = np.nextafter(low, np.float32(1))
    for lower in (low, np.nextafter(low, np.float32(1))):  # ties go to even: one of the two rounds down
        moved = scores - float(low) + float(lower)
        cut = threshold_for_rate(windows, moved, alarms_per_device_day=0.3, incident_gap=3)
        assert np.count_nonzero(moved.astype(np.float32) >= np.float32(cut)) == 3

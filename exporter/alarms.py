"""Incidents and device days: how often a threshold would have rung on healthy devices.

An incident is a run of anomalous windows of one device, ended by ``incident_gap`` healthy ones (contract, Results).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from exporter.errors import TelemetryError
from exporter.window_sets import WindowSet

DAY_MS = 86_400_000
# Fewer healthy incidents than this say nothing about a rate: with one expected, none is seen in 37 of 100 fleets.
FEWEST_INCIDENTS = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class Incidents:
    """Incidents of a fleet, as positions in a window set.

    Attributes:
        first: (i,) int64, the window that begins each.
        last: (i,) int64, its last anomalous window.
        device: (i,) int64, its device's number.
    """

    first: npt.NDArray[np.int64]
    last: npt.NDArray[np.int64]
    device: npt.NDArray[np.int64]


def find_incidents(
    anomalous: npt.NDArray[np.bool_],
    device: npt.NDArray[np.int64],
    incident_gap: int,
    rows: npt.NDArray[np.integer] | None = None,
) -> Incidents:
    """Group anomalous windows into incidents.

    Args:
        anomalous: (m,) which windows are anomalies, ordered by device and time.
        device: (m,) the device of each.
        incident_gap: Healthy windows that end an incident.
        rows: (m,) ascending, ``WindowSet.rows`` where some windows were left out: those count as healthy ones, so that
            two alarms a month apart are not one because only what lay between them was left out.
    """
    hits = np.flatnonzero(anomalous)
    if not hits.size:
        empty = np.empty(0, np.int64)
        return Incidents(empty, empty, empty)
    apart = (np.diff(hits if rows is None else rows[hits]) > incident_gap) | (np.diff(device[hits]) != 0)
    starts, ends = np.r_[True, apart], np.r_[apart, True]
    return Incidents(hits[starts], hits[ends], device[hits[starts]])


def days_by_device(windows: WindowSet) -> npt.NDArray[np.float64]:
    """Return the days that each device was watched, warm-up left out: (devices,)."""
    return np.bincount(windows.device, weights=windows.watched_ms, minlength=len(windows.devices)) / DAY_MS


def threshold_for_rate(
    windows: WindowSet, scores: npt.NDArray[np.float64], *, alarms_per_device_day: float, incident_gap: int
) -> float:
    """Choose the lowest raw score from which healthy devices raise no more incidents than wanted.

    Args:
        windows: Healthy windows.
        scores: (m,) their out-of-fold raw scores.
        alarms_per_device_day: Incidents per device and day.
        incident_gap: Healthy windows that end an incident.

    Returns:
        A raw score between two that were seen.

    Raises:
        TelemetryError: The data is too little for so rare a rate; the message names the rate that it supports.
    """
    days = float(days_by_device(windows).sum())
    wanted = alarms_per_device_day * days
    if wanted < FEWEST_INCIDENTS:
        supported = FEWEST_INCIDENTS / days if days else float("inf")
        raise TelemetryError(
            f"{days:.3g} device days of healthy readings cannot support {alarms_per_device_day:g} alarms per device "
            f"and day; they can support {_round_up(supported):g}.",
            advice="Raise calibration.alarms_per_device_day, set calibration.threshold, or bring more readings.",
            supported=_round_up(supported),
        )
    middle = float(np.median(scores))
    levels = np.unique(scores[scores > middle])
    device, rows = windows.device, windows.rows

    def count(level: int) -> int:
        return len(find_incidents(scores >= levels[level], device, incident_gap, rows).first)

    # From the top down, and never below the middle: at the bottom everything is an anomaly, which is one incident a
    # device and no low rate at all. Between the last threshold that keeps the rate and the first that does not,
    # incidents hardly ever merge; where they do, the search ends at a crossing, which keeps the rate as well.
    span = 1
    while span < len(levels) and count(len(levels) - span) <= wanted:
        span *= 2
    low, high = max(0, len(levels) - span), len(levels) - span // 2
    while low < high:
        tried = (low + high) // 2
        low, high = (low, tried) if count(tried) <= wanted else (tried + 1, high)
    if low == len(levels):  # even the highest score alone rings too often: many windows share it
        return float(np.nextafter(np.float32(scores.max()), np.float32(np.inf)))
    below = levels[low - 1] if low else middle
    between = np.float32((below + levels[low]) / 2)  # of two neighbours in float32 it may be the lower one
    return float(between) if between > below else float(levels[low])


def _round_up(rate: float) -> float:
    """Round up to two digits, so that the rate that is named is one that is accepted."""
    if not np.isfinite(rate):
        return rate
    step = 10.0 ** (np.floor(np.log10(rate)) - 1)
    return float(np.round(np.ceil(rate / step) * step, 12))

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


def find_incidents(anomalous: npt.NDArray[np.bool_], device: npt.NDArray[np.int64], incident_gap: int) -> Incidents:
    """Group anomalous windows into incidents.

    Args:
        anomalous: (m,) which windows are anomalies, ordered by device and time.
        device: (m,) the device of each.
        incident_gap: Healthy windows that end an incident.
    """
    hits = np.flatnonzero(anomalous)
    if not hits.size:
        empty = np.empty(0, np.int64)
        return Incidents(empty, empty, empty)
    apart = (np.diff(hits) > incident_gap) | (np.diff(device[hits]) != 0)
    starts, ends = np.r_[True, apart], np.r_[apart, True]
    return Incidents(hits[starts], hits[ends], device[hits[starts]])


def days_by_device(windows: WindowSet) -> npt.NDArray[np.float64]:
    """Return the days that each device was watched: (devices,).

    A window stands for the time since the one before it, at most the largest gap, and the first of a device for one
    interval.
    """
    steps = np.diff(windows.timestamps_ms, prepend=0)
    first = np.r_[True, np.diff(windows.device) != 0] if len(windows) else np.empty(0, bool)
    watched = np.where(first, windows.rule.interval_ms, np.minimum(steps, windows.rule.largest_gap_ms))
    return np.bincount(windows.device, weights=watched, minlength=len(windows.devices)) / DAY_MS


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
    levels = np.unique(scores)

    def count(level: int) -> int:
        return len(find_incidents(scores >= levels[level], windows.device, incident_gap).first)

    # The number of incidents falls with the threshold nearly always; where two merge it may rise by one, and then
    # the search ends at one of the crossings, which keeps the rate as well.
    low, high = 0, len(levels)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if count(middle) <= wanted else (middle + 1, high)
    if low == len(levels):  # even the highest score alone rings too often: many windows share it
        return float(np.nextafter(np.float32(levels[-1]), np.float32(np.inf)))
    below = levels[low - 1] if low else levels[0]
    return float((below + levels[low]) / 2)


def _round_up(rate: float) -> float:
    """Round up to two digits, so that the rate that is named is one that is accepted."""
    if not np.isfinite(rate):
        return rate
    step = 10.0 ** (np.floor(np.log10(rate)) - 1)
    return float(np.round(np.ceil(rate / step) * step, 12))

"""What a model is worth on devices that it was not trained on: the figures of the report and the card."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from exporter.alarms import days_by_device, find_incidents
from exporter.dataset import FAULTY, HEALTHY
from exporter.parity import area_under_curve
from exporter.window_sets import WindowSet

HOUR_MS = 3_600_000


def evaluate(
    windows: WindowSet,
    raw_scores: npt.NDArray[np.floating],
    anomaly_scores: npt.NDArray[np.floating],
    anomalous: npt.NDArray[np.bool_],
    *,
    incident_gap: int,
    labelled: bool,
) -> dict[str, Any]:
    """Measure a model's verdicts.

    Args:
        windows: Windows of held-out devices, all labels.
        raw_scores: (m,) of the graph.
        anomaly_scores: (m,) of the graph.
        anomalous: (m,) its verdicts.
        incident_gap: Healthy windows that end an incident.
        labelled: Whether labels exist; without them all windows count as healthy.

    Returns:
        JSON-ready: ``windows``, ``devices``, ``auc`` of the anomaly score and ``auc_raw_score``, ``auc_by_cohort``
        (where there is more than one), ``faulty_devices`` with how many were caught and how early, and
        ``healthy_alarms_per_device_day`` with its spread over devices. None where there is nothing to measure by.
    """
    labels = windows.labels if labelled else np.full(len(windows), HEALTHY, np.int8)
    healthy = labels == HEALTHY
    return {
        "windows": len(windows),
        "devices": int(np.unique(windows.device).size),
        "auc": area_under_curve(labels, anomaly_scores),
        "auc_raw_score": area_under_curve(labels, raw_scores),
        "auc_by_cohort": _auc_by_cohort(windows, labels, anomaly_scores),
        **_faults(windows, labels, anomalous, incident_gap),
        "healthy_alarms_per_device_day": _healthy_alarms(windows.take(healthy), anomalous[healthy], incident_gap),
    }


def _auc_by_cohort(
    windows: WindowSet, labels: npt.NDArray[np.int8], scores: npt.NDArray[np.floating]
) -> dict[str, float | None]:
    cohort_of = np.array([name or "" for name in windows.cohorts], object)[windows.device]
    names = sorted({str(name) for name in cohort_of if name})
    if len(names) < 2:
        return {}
    return {name: area_under_curve(labels[cohort_of == name], scores[cohort_of == name]) for name in names}


def _faults(
    windows: WindowSet, labels: npt.NDArray[np.int8], anomalous: npt.NDArray[np.bool_], incident_gap: int
) -> dict[str, Any]:
    """How many faulty devices raise an incident while faulty, and how long before the end of the fault it began."""
    faulty = np.flatnonzero(labels == FAULTY)
    if not faulty.size:
        return {"faulty_devices": None, "faulty_devices_caught": None, "faulty_devices_caught_share": None}
    incidents = find_incidents(anomalous, windows.device, incident_gap)
    devices = np.unique(windows.device[faulty])
    times = windows.timestamps_ms
    hours_before, readings_before, hours_after_onset = [], [], []
    for device in devices.tolist():
        rows = faulty[windows.device[faulty] == device]
        overlap = (incidents.device == device) & (incidents.last >= rows[0]) & (incidents.first <= rows[-1])
        # An incident may span a healthy stretch around the fault: what counts is an alarm while it lasts.
        if not anomalous[rows].any() or not overlap.any():
            continue
        begin = int(incidents.first[overlap][0])
        hours_before.append((times[rows[-1]] - times[begin]) / HOUR_MS)
        readings_before.append(int(rows[-1]) - begin)
        hours_after_onset.append((times[begin] - times[rows[0]]) / HOUR_MS)
    caught = len(hours_before)
    return {
        "faulty_devices": int(devices.size),
        "faulty_devices_caught": caught,
        "faulty_devices_caught_share": caught / devices.size,
        "median_hours_early": float(np.median(hours_before)) if caught else None,
        "median_readings_early": float(np.median(readings_before)) if caught else None,
        "median_hours_after_onset": float(np.median(hours_after_onset)) if caught else None,
    }


def _healthy_alarms(healthy: WindowSet, anomalous: npt.NDArray[np.bool_], incident_gap: int) -> dict[str, Any] | None:
    days = days_by_device(healthy)
    watched = np.flatnonzero(days > 0)
    if not watched.size:
        return None
    incidents = find_incidents(anomalous, healthy.device, incident_gap)
    rates = np.bincount(incidents.device, minlength=days.size)[watched] / days[watched]
    return {
        "mean": float(len(incidents.first) / days.sum()),
        "incidents": len(incidents.first),
        "device_days": float(days.sum()),
        "devices": int(watched.size),
        "devices_without_alarm": int(np.count_nonzero(rates == 0)),
        "median": float(np.median(rates)),
        "p90": float(np.quantile(rates, 0.9)),
        "max": float(rates.max()),
    }

"""What a model is worth on devices that it was not trained on: the figures of the report and the card."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from exporter.alarms import Incidents, days_by_device, find_incidents
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
    incidents = find_incidents(anomalous, windows.device, incident_gap)
    return {
        "windows": len(windows),
        "devices": int(np.unique(windows.device).size),
        "auc": area_under_curve(labels, anomaly_scores),
        "auc_raw_score": area_under_curve(labels, raw_scores),
        "auc_by_cohort": _auc_by_cohort(windows, labels, anomaly_scores),
        **_faults(windows, labels, anomalous, incidents),
        "healthy_alarms_per_device_day": _healthy_alarms(windows, labels == HEALTHY, incidents),
    }


def _auc_by_cohort(
    windows: WindowSet, labels: npt.NDArray[np.int8], scores: npt.NDArray[np.floating]
) -> dict[str, float | None]:
    device, cohorts = windows.device, windows.cohorts
    names = {cohorts[number] for number in np.unique(device).tolist()}
    aucs = {}
    for name in sorted(name for name in names if name):
        own = np.array([cohort == name for cohort in cohorts])[device]
        aucs[name] = area_under_curve(labels[own], scores[own])
    return aucs if len(aucs) > 1 else {}


def _faults(
    windows: WindowSet, labels: npt.NDArray[np.int8], anomalous: npt.NDArray[np.bool_], incidents: Incidents
) -> dict[str, Any]:
    """How many faulty devices raise an alarm while faulty, and how long before the end of that fault it began.

    The alarm is the incident of the first anomalous faulty window; it may have begun before the fault was labelled. A
    device may have several faults: the one that counts is the one it was caught in.
    """
    faulty = np.flatnonzero(labels == FAULTY)
    if not faulty.size:
        return {"faulty_devices": None, "faulty_devices_caught": None, "faulty_devices_caught_share": None}
    breaks = (np.diff(faulty) != 1) | (np.diff(windows.device[faulty]) != 0)
    fault = np.r_[0, np.cumsum(breaks)]  # which fault each faulty window belongs to
    onsets, ends = faulty[np.r_[True, breaks]], faulty[np.r_[breaks, True]]
    hits = np.flatnonzero(anomalous[faulty])
    _, first = np.unique(windows.device[faulty[hits]], return_index=True)
    hits = hits[first]
    begin = incidents.first[np.searchsorted(incidents.first, faulty[hits], side="right") - 1]
    onset, end = onsets[fault[hits]], ends[fault[hits]]
    times = windows.timestamps_ms
    devices = int(np.unique(windows.device[faulty]).size)
    return {
        "faulty_devices": devices,
        "faulty_devices_caught": int(hits.size),
        "faulty_devices_caught_share": hits.size / devices,
        "median_hours_early": _median((times[end] - times[begin]) / HOUR_MS),
        "median_readings_early": _median(end - begin),
        "median_hours_after_onset": _median((times[begin] - times[onset]) / HOUR_MS),
    }


def _median(values: npt.NDArray[Any]) -> float | None:
    return float(np.median(values)) if values.size else None


def _healthy_alarms(windows: WindowSet, healthy: npt.NDArray[np.bool_], incidents: Incidents) -> dict[str, Any] | None:
    """Incidents that begin on a healthy window: they are found over all windows, as a device finds them."""
    days = days_by_device(windows.take(healthy))
    watched = np.flatnonzero(days > 0)
    if not watched.size:
        return None
    false = healthy[incidents.first]
    rates = np.bincount(incidents.device[false], minlength=days.size)[watched] / days[watched]
    count = int(np.count_nonzero(false))
    return {
        "mean": count / float(days.sum()),
        "incidents": count,
        "device_days": float(days.sum()),
        "devices": int(watched.size),
        "devices_without_alarm": int(np.count_nonzero(rates == 0)),
        "median": float(np.median(rates)),
        "p90": float(np.quantile(rates, 0.9)),
        "max": float(rates.max()),
    }

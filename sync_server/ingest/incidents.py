"""Incidents put together from anomaly records and ``incident_ended`` events, whatever order they arrive in.

Every column is folded by an operation that does not care about order (greatest, or a sum of records stored once), so a
device that uploads its past in pieces ends at the same row as one that sends it at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edge_runtime.contract.result import MAX_WINDOWS, Anomaly, AnyRecord, Event
from sync_server.ingest.records import Arrival

INCIDENT_ENDED = "incident_ended"
STARTED_AT = "incident_started_at_ms"  # names of the event's detail fields
WINDOWS = "windows"

Key = tuple[str, int]
"""Bundle and start; with the device, an incident's identity."""


def fold(arrival: Arrival, records: Sequence[AnyRecord]) -> dict[Key, dict[str, Any]]:
    """Return what a batch's records say of each incident, as rows that ``store_results`` folds into the stored ones.

    Records without an incident are passed over.
    """
    folded: dict[Key, dict[str, Any]] = {}
    for record in records:
        if isinstance(record, Anomaly):
            row = _row_of(folded, arrival, record.bundle, record.incident_started_at_ms)
            _add_anomaly(row, arrival, record)
        elif isinstance(record, Event) and record.name == INCIDENT_ENDED and record.bundle is not None:
            started = record.detail.get(STARTED_AT)
            # The detail is free form: an end that does not say of which incident is an event and nothing more.
            if type(started) is int and 0 <= started <= record.observed_at_ms:
                row = _row_of(folded, arrival, record.bundle, started)
                row["ended_at_ms"] = max(row["ended_at_ms"] or 0, record.observed_at_ms)
                windows = record.detail.get(WINDOWS)
                if type(windows) is int and 0 <= windows <= MAX_WINDOWS:
                    row["windows"] = max(row["windows"], windows)
    return folded


def _row_of(folded: dict[Key, dict[str, Any]], arrival: Arrival, bundle: str, started: int) -> dict[str, Any]:
    return folded.setdefault(
        (bundle, started),
        {
            "bundle": bundle,
            "started_at_ms": started,
            "last_observed_ms": started,
            "listed_at_ms": min(started, arrival.now_ms),
            "ended_at_ms": None,
            "windows": 0,
            "records": 0,
            "peak_score": None,
            "peak_raw_score": None,
            "contributions": [],
            "signals": [],
            "stale": False,
            "ahead": arrival.is_ahead(started),
        },
    )


def _add_anomaly(row: dict[str, Any], arrival: Arrival, record: Anomaly) -> None:
    row["last_observed_ms"] = max(row["last_observed_ms"], record.observed_at_ms)
    row["listed_at_ms"] = min(row["last_observed_ms"], arrival.now_ms)
    row["windows"] = max(row["windows"], record.windows)
    row["records"] += 1
    row["stale"] = row["stale"] or record.stale
    row["ahead"] = row["ahead"] or arrival.is_ahead(record.observed_at_ms)
    peak = (row["peak_score"], row["peak_raw_score"])
    if row["peak_score"] is None or (record.anomaly_score, record.raw_score) > peak:
        row["peak_score"], row["peak_raw_score"] = record.anomaly_score, record.raw_score
        row["contributions"] = [list(item) for item in record.contributions]
        row["signals"] = [signal for signal, _ in record.contributions]

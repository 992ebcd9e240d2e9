"""Incidents put together from anomaly records and ``incident_ended`` events, whatever order they arrive in.

Every column is folded by an operation that does not care about order (greatest, or a sum of records stored once), so a
device that uploads its past in pieces ends at the same row as one that sends it at once.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from sqlalchemy import text
from sqlalchemy.orm import Session

from edge_runtime.contract.result import MAX_WINDOWS, Anomaly, AnyRecord, Event
from sync_server.ingest.records import Arrival

INCIDENT_ENDED = "incident_ended"
STARTED_AT = "incident_started_at_ms"  # names of the event's detail fields
WINDOWS = "windows"

Key = tuple[str, int]
"""Bundle and start; with the device, an incident's identity."""

_HIGHER = (
    "excluded.peak_score IS NOT NULL AND (incidents.peak_score IS NULL OR"
    " (excluded.peak_score, excluded.peak_raw_score) > (incidents.peak_score, incidents.peak_raw_score))"
)
_PEAK = ", ".join(
    f"{column} = CASE WHEN {_HIGHER} THEN excluded.{column} ELSE incidents.{column} END"
    for column in ("peak_score", "peak_raw_score", "contributions", "signals")
)
# xmax is 0 in a row that this statement inserted, and the locking transaction in one that it updated.
_UPSERT = text(f"""
    INSERT INTO incidents (device_id, cohort, created_at, updated_at, status, bundle, started_at_ms, last_observed_ms,
        listed_at_ms, ended_at_ms, windows, records, peak_score, peak_raw_score, contributions, signals, stale, ahead)
    SELECT :device_id, :cohort, :now, :now, 'open', r.*
    FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS r(
        bundle text, started_at_ms bigint, last_observed_ms bigint, listed_at_ms bigint, ended_at_ms bigint,
        windows bigint, records bigint, peak_score float8, peak_raw_score float8, contributions jsonb, signals text[],
        stale boolean, ahead boolean)
    ORDER BY r.bundle, r.started_at_ms
    ON CONFLICT (device_id, bundle, started_at_ms) DO UPDATE SET
        last_observed_ms = greatest(incidents.last_observed_ms, excluded.last_observed_ms),
        listed_at_ms = greatest(incidents.listed_at_ms, excluded.listed_at_ms),
        ended_at_ms = greatest(incidents.ended_at_ms, excluded.ended_at_ms),
        windows = greatest(incidents.windows, excluded.windows),
        records = incidents.records + excluded.records,
        stale = incidents.stale OR excluded.stale,
        ahead = incidents.ahead OR excluded.ahead,
        updated_at = excluded.updated_at, {_PEAK}
    RETURNING bundle, started_at_ms, (xmax = 0) AS created
""")  # noqa: S608 - put together from our own constants


def store_incidents(session: Session, arrival: Arrival, records: Sequence[AnyRecord]) -> list[Key]:
    """Fold the records of a batch that are new into their incidents, in one statement.

    Args:
        session: The open transaction.
        arrival: What all records of the batch share.
        records: Records that were not held before; those without an incident are passed over.

    Returns:
        The incidents that are new with this batch.
    """
    folded = fold(arrival, records)
    if not folded:
        return []
    rows = session.execute(
        _UPSERT,
        {
            "device_id": arrival.device_id,
            "cohort": arrival.cohort,
            "now": arrival.now,
            "rows": json.dumps(list(folded.values()), allow_nan=False),
        },
    )
    return [(bundle, started) for bundle, started, created in rows if created]


def fold(arrival: Arrival, records: Sequence[AnyRecord]) -> dict[Key, dict[str, Any]]:
    """Return what a batch's records say of each incident, as rows for the upsert."""
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

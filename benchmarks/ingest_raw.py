"""Rows of batches inserted with psycopg alone: the limit that ingest through HTTP is held against.

The same rows go into the same tables, a transaction a batch, without anything that makes a retry safe: no stream row,
no incidents, no roll-up, no digest computed (a given one of the same size).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, LiteralString

import psycopg
from psycopg.types.json import Jsonb

from benchmarks.ingest_batches import MadeBatch
from edge_runtime.contract.result import Anomaly, Event, Summary

Rows = Mapping[str, Sequence[tuple[Any, ...]]]

# Streams of raw rows are none that a device has; they count up from here.
FIRST_STREAM = 10**12
_streams = itertools.count(FIRST_STREAM)

_COLUMNS: dict[str, LiteralString] = {
    "anomalies": "received_at, stream_id, sequence, digest, device_id, cohort, bundle, observed_at_ms,"
    " incident_started_at_ms, anomaly_score, raw_score, windows, contributions, signals, stale, ahead",
    "summaries": "received_at, stream_id, sequence, digest, device_id, bundle, period_start_ms, period, windows,"
    " anomalous, warming_up, late, cells, missing, histogram, latency_count, latency_sum_us, latency_max_us, ahead",
    "events": "received_at, stream_id, sequence, digest, device_id, bundle, observed_at_ms, name, detail, ahead",
}


def rows_by_table(batch: MadeBatch) -> Rows:
    """Return a batch's rows as psycopg takes them, under a stream of their own."""
    shared = (datetime.now(UTC), next(_streams))
    rows: dict[str, list[tuple[Any, ...]]] = {table: [] for table in _COLUMNS}
    for record in batch.records:
        head = (*shared, record.sequence, b"\x00" * 32, batch.device.id)
        match record:
            case Anomaly():
                contributions = [list(item) for item in record.contributions]
                rows["anomalies"].append(
                    (*head, "north", record.bundle, record.observed_at_ms, record.incident_started_at_ms,
                     record.anomaly_score, record.raw_score, record.windows, Jsonb(contributions),
                     [signal for signal, _ in record.contributions], record.stale, False)
                )  # fmt: skip
            case Summary():
                rows["summaries"].append(
                    (*head, record.bundle, record.period_start_ms, record.period, record.windows, record.anomalous,
                     record.warming_up, record.late, record.values, record.missing, list(record.histogram),
                     record.latency_count, record.latency_sum_us, record.latency_max_us, False)
                )  # fmt: skip
            case Event():
                detail = Jsonb(dict(record.detail))
                rows["events"].append((*head, record.bundle, record.observed_at_ms, record.name, detail, False))
            case _:
                raise ValueError(f"no table for {record}")
    return rows


def copy(cursor: psycopg.Cursor[Any], rows: Rows) -> None:
    """One COPY a table."""
    for table, columns in _COLUMNS.items():
        with cursor.copy(f"COPY {table} ({columns}) FROM STDIN") as sink:
            for row in rows[table]:
                sink.write_row(row)


def executemany(cursor: psycopg.Cursor[Any], rows: Rows) -> None:
    """One executemany a table, which psycopg sends as a pipeline of prepared statements."""
    for table, columns in _COLUMNS.items():
        marks = ", ".join(["%s"] * (columns.count(",") + 1))
        cursor.executemany(f"INSERT INTO {table} ({columns}) VALUES ({marks})", rows[table])


WAYS: dict[str, Callable[[psycopg.Cursor[Any], Rows], None]] = {"copy": copy, "executemany": executemany}

"""Records into their tables: one statement a table, whatever the size of the batch.

Rows travel as one JSON parameter that Postgres unpacks; 5,000 rows cost one round trip, and nested values
(contributions, histograms) need no form of their own. JSON's numbers are written so that float64 comes
back bit for bit.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import TextClause, text
from sqlalchemy.orm import Session

from edge_runtime.contract.result import Anomaly, AnyRecord, Event, Gap, Summary, record_digest

DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True)
class Arrival:
    """What all records of a batch share.

    Attributes:
        device_id: Who sent them.
        cohort: The device's cohort now, or None.
        model: The model that it was enrolled for.
        stream_id: Number of the stream's row.
        now: The server's clock.
    """

    device_id: str
    cohort: str | None
    model: str
    stream_id: int
    now: datetime

    @property
    def now_ms(self) -> int:
        """The server's clock in UTC epoch milliseconds."""
        return int(self.now.timestamp() * 1000)

    def is_ahead(self, claimed_ms: int) -> bool:
        """Whether a device's time lies more than a day ahead of the server's clock."""
        return claimed_ms > self.now_ms + DAY_MS


_TYPES = {
    "sequence": "bigint", "digest": "text", "bundle": "text", "observed_at_ms": "bigint", "period_start_ms": "bigint",
    "incident_started_at_ms": "bigint", "anomaly_score": "float8", "raw_score": "float8", "windows": "bigint",
    "contributions": "jsonb", "signals": "text[]", "stale": "boolean", "ahead": "boolean", "period": "text",
    "anomalous": "bigint", "warming_up": "bigint", "late": "bigint", "cells": "bigint", "missing": "bigint",
    "histogram": "bigint[]", "latency_count": "bigint", "latency_sum_us": "bigint", "latency_max_us": "bigint",
    "first_sequence": "bigint", "last_sequence": "bigint", "count": "bigint", "reason": "text", "name": "text",
    "detail": "jsonb",
}  # fmt: skip


def insert_statement(table: str, columns: Sequence[str], *shared: str) -> TextClause:
    """Return the insert of one table from a JSON parameter ``rows`` and parameters that all rows share."""
    typed = ", ".join(f"{column} {_TYPES[column]}" for column in columns)
    chosen = ", ".join("decode(r.digest, 'hex')" if column == "digest" else f"r.{column}" for column in columns)
    return text(
        f"INSERT INTO {table} ({', '.join((*shared, *columns))})"  # noqa: S608 - names are our own constants
        f" SELECT {', '.join(f':{name}' for name in shared)}, {chosen}"
        f" FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS r({typed}) ORDER BY r.sequence"
    )


_SHARED = ("received_at", "stream_id", "device_id")
_ANOMALIES = insert_statement(
    "anomalies",
    ("sequence", "digest", "bundle", "observed_at_ms", "incident_started_at_ms", "anomaly_score", "raw_score",
     "windows", "contributions", "signals", "stale", "ahead"),
    *_SHARED, "cohort",
)  # fmt: skip
_SUMMARIES = insert_statement(
    "summaries",
    ("sequence", "digest", "bundle", "period_start_ms", "period", "windows", "anomalous", "warming_up", "late", "cells",
     "missing", "histogram", "latency_count", "latency_sum_us", "latency_max_us", "ahead"),
    *_SHARED,
)  # fmt: skip
_GAPS = insert_statement("gaps", ("sequence", "digest", "first_sequence", "last_sequence", "count", "reason"), *_SHARED)
_EVENTS = insert_statement(
    "events", ("sequence", "digest", "bundle", "observed_at_ms", "name", "detail", "ahead"), *_SHARED
)


def insert_records(session: Session, arrival: Arrival, records: Sequence[AnyRecord]) -> None:
    """Insert records that are not held yet, each into its own table; at most four statements."""
    shared = {
        "received_at": arrival.now,
        "stream_id": arrival.stream_id,
        "device_id": arrival.device_id,
        "cohort": arrival.cohort,
    }
    for statement, kind in ((_ANOMALIES, Anomaly), (_SUMMARIES, Summary), (_GAPS, Gap), (_EVENTS, Event)):
        rows = [_row(arrival, record) for record in records if isinstance(record, kind)]
        if rows:
            given = {**shared, "rows": json.dumps(rows, allow_nan=False)}
            names = statement.compile().params
            session.execute(statement, {name: given[name] for name in names})


def _row(arrival: Arrival, record: AnyRecord) -> dict[str, Any]:
    """Return a record's columns; what only the server knows is added to what the device sent."""
    row = {**record.to_dict(), "digest": record_digest(record).hex()}
    match record:
        case Anomaly():
            row["signals"] = [signal for signal, _ in record.contributions]
            row["ahead"] = arrival.is_ahead(record.observed_at_ms)
        case Summary():
            row["cells"] = row.pop("values")
            row["ahead"] = arrival.is_ahead(record.period_start_ms)
        case Event():
            row["ahead"] = arrival.is_ahead(record.observed_at_ms)
        case Gap():
            pass
    return row

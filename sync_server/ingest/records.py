"""Records as rows of their tables; ``store_results`` unpacks them from one JSON document.

One parameter, whatever the size of the batch, and nested values (contributions, histograms) need no form of their own.
JSON's numbers are written so that float64 comes back bit for bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from edge_runtime.contract.result import Anomaly, AnyRecord, Event, Gap, Summary, record_digest

DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True)
class Arrival:
    """When a batch arrived.

    Attributes:
        now: The server's clock.
        now_ms: The same in UTC epoch milliseconds.
    """

    now: datetime
    now_ms: int

    @classmethod
    def at(cls, now: datetime) -> Arrival:
        """Return an arrival at a time of the server's clock."""
        return cls(now, int(now.timestamp() * 1000))

    def is_ahead(self, claimed_ms: int) -> bool:
        """Whether a device's time lies more than a day ahead of the server's clock."""
        return claimed_ms > self.now_ms + DAY_MS


def rows_of(arrival: Arrival, records: Sequence[AnyRecord]) -> dict[str, list[dict[str, Any]]]:
    """Return the rows of records by table, in the columns that ``store_results`` reads."""
    tables: dict[str, list[dict[str, Any]]] = {}
    for record in records:
        tables.setdefault(record.table, []).append(_row(arrival, record))
    return tables


def _row(arrival: Arrival, record: AnyRecord) -> dict[str, Any]:
    """Return a record's columns; what only the server knows is added to what the device sent."""
    row = {field: getattr(record, field) for field in record.fields}
    row["digest"] = record_digest(record).hex()
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

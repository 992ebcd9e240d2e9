"""One batch, one transaction: everything of it is stored, or nothing.

Sent twice, a batch changes nothing the second time and gets the same answer but for ``stored``. That is the whole
point: a device that did not hear the answer sends again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self, cast

import msgspec
from psycopg.types.json import Jsonb

from edge_runtime.contract.batch import Batch, Refusal, ResultsAnswer, ranges
from edge_runtime.contract.result import AnyRecord, Summary, record_digest
from sync_server.config import ServerConfig
from sync_server.db import Database, utc_now
from sync_server.errors import RequestError
from sync_server.ingest import incidents, rollups
from sync_server.ingest.records import Arrival, rows_of

SEQUENCE_REUSED = "sequence_reused"
# Honest devices have one stream, and one more each time a backup is restored.
MAX_STREAMS = 1_000
# Numbers without holes make one run; each refused record may split it. A row with more would cost every batch.
MAX_RUNS = 10_000

_STORE = """
    SELECT * FROM store_results(%(device_id)s, %(stream)s, %(sent_at_ms)s, %(now)s, %(numbers)s, %(sent_records)s,
        %(sent_bytes)s, %(batch)s, %(limits)s)
"""


@dataclass(frozen=True, slots=True)
class Quota:
    """How much one device may send.

    Attributes:
        minute_records: New records in one minute of the server's clock.
        hour_records: New records in one hour.
        hour_bytes: Bytes of bodies as sent in one hour.
    """

    minute_records: int
    hour_records: int
    hour_bytes: int

    @classmethod
    def from_config(cls, config: ServerConfig) -> Self:
        """Return what the settings allow each device."""
        return cls(config.device_records_per_minute, config.device_records_per_hour, config.device_bytes_per_hour)


def store_batch(database: Database, device_id: str, batch: Batch, *, sent_bytes: int, quota: Quota) -> ResultsAnswer:
    """Store what is new of a batch.

    1. ``store_results`` locks the device's and the stream's row. When none of the numbers is held, it stores all of
       the batch: records, incidents, roll-up, and the numbers in the stream's row.
    2. When some are held, it changes nothing and says which. Those are compared with what was stored: equal is
       ``held``, different is refused as ``sequence_reused``; step 1 is taken again with the others. Held numbers stay
       held, so that ends, whatever else is sent at the same time.
    3. New records of a stream with too many holes are refused like changed ones, because that makes a device open a
       new stream. Streams of one device that grow in turn mark it as cloned.

    Args:
        database: The database; one statement for a batch that is new, three for one that is not.
        device_id: Who sends it.
        batch: The decoded batch.
        sent_bytes: Size of the body as sent.
        quota: What the device may send.

    Returns:
        What is held now, and what never will be.

    Raises:
        RequestError: 401 when there is no such device, 409 when it has too many streams, 429 with Retry-After when its
            quota is used up.
    """
    arrival = Arrival.at(utc_now())
    shared = {
        "device_id": device_id,
        "stream": batch.stream,
        "sent_at_ms": batch.sent_at_ms,
        "now": arrival.now,
        "sent_records": len(batch.records),
        "sent_bytes": sent_bytes,
        "limits": [quota.minute_records, quota.hour_records, quota.hour_bytes, MAX_STREAMS, MAX_RUNS],
    }
    fresh: Sequence[AnyRecord] = batch.records
    changed: frozenset[int] = frozenset()
    while True:
        row = cast("dict[str, Any]", database.call(_STORE, {**shared, **_content(arrival, fresh)}))
        if row["outcome"] == "stored":
            return _answer(batch, len(fresh), changed)
        _check_outcome(row, device_id)
        held = frozenset(row["held"])
        changed |= _changed(fresh, row)
        if row["is_full"]:
            changed |= {record.sequence for record in fresh if record.sequence not in held}
            fresh = ()
        fresh = [record for record in fresh if record.sequence not in held]


def _content(arrival: Arrival, records: Sequence[AnyRecord]) -> dict[str, Any]:
    """Return the parameters that hold the records themselves."""
    summaries = [record for record in records if isinstance(record, Summary)]
    document = {
        **rows_of(arrival, records),
        "incidents": list(incidents.fold(arrival, records).values()),
        "rollups": rollups.fold(arrival, summaries),
    }
    return {
        "numbers": [record.sequence for record in records],
        "batch": Jsonb(document, dumps=msgspec.json.encode),
    }


def _changed(records: Sequence[AnyRecord], row: Mapping[str, Any]) -> frozenset[int]:
    """Return the numbers of held records whose content is not what was stored under them.

    A record whose partition was dropped since is held, and can no longer be compared.
    """
    stored = dict(zip(row["kept"] or (), row["digests"] or (), strict=True))
    return frozenset(
        record.sequence
        for record in records
        if record.sequence in stored and bytes(stored[record.sequence]) != record_digest(record)
    )


def _answer(batch: Batch, stored: int, changed: frozenset[int]) -> ResultsAnswer:
    reused = tuple(
        Refusal(number, SEQUENCE_REUSED, "The number is taken, or its stream is full of holes.")
        for number in sorted(changed)
    )
    held = ranges(record.sequence for record in batch.records if record.sequence not in changed)
    return ResultsAnswer(stored, held, (*batch.refused, *reused))


def _check_outcome(row: Mapping[str, Any], device_id: str) -> None:
    """Refuse the batch when the database did."""
    match row["outcome"]:
        case "device_unknown":
            raise RequestError(
                401,
                "device_unknown",
                "The token belongs to no device of this server.",
                advice="Enrol the device again.",
            )
        case "too_many_streams":
            raise RequestError(
                409, "too_many_streams", f"Device {device_id} has opened {MAX_STREAMS} streams already.",
                advice="Ask the operator; the device may have to be enrolled again into an empty home.",
            )  # fmt: skip
        case "quota":
            raise RequestError(
                429, "quota_exceeded", f"Device {device_id} has sent as much as one device may in this time.",
                advice="Send the same records again later; nothing is lost.", retry_after_seconds=row["wait_seconds"],
            )  # fmt: skip

"""Records on their way into the outbox: numbered, encoded, and making room when it is full."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass

from edge_runtime.contract.checks import canonical
from edge_runtime.contract.result import RECORD_KINDS, AnyRecord, Gap, Summary
from edge_runtime.edge_db import count
from edge_runtime.outbox.room import StoredRecord, plan_room
from edge_runtime.summaries import DAY_MS, merge_to_day

_KINDS = {kind.table: kind for kind in RECORD_KINDS}


@dataclass(frozen=True, slots=True)
class OutboxLimits:
    """Bounds of what is kept on the device.

    Attributes:
        max_records: Records in the outbox: two years of hourly summaries.
        max_bytes: Their size.
        max_dead_letters: Refused records kept for a person to look at; the oldest go first.
    """

    max_records: int = 20_000
    max_bytes: int = 16 * 1024 * 1024
    max_dead_letters: int = 1_000


DEFAULT_LIMITS = OutboxLimits()


def append_records(
    sql: sqlite3.Connection, records: Iterable[AnyRecord], limits: OutboxLimits = DEFAULT_LIMITS
) -> None:
    """Number and store records inside the caller's transaction, and give way when the outbox is full.

    Args:
        sql: The connection of an open transaction.
        records: Records whose ``sequence`` is 0.
        limits: Bounds of the store.
    """
    if not _insert(sql, records):
        return
    stored, size = sql.execute("SELECT records, bytes FROM stream").fetchone()
    if stored > limits.max_records or size > limits.max_bytes:
        _make_room(sql, limits)


def _insert(sql: sqlite3.Connection, records: Iterable[AnyRecord]) -> int:
    (following,) = sql.execute("SELECT next_sequence FROM stream").fetchone()
    rows = [
        (following + offset, record.table, _moment(record), encoded(record)) for offset, record in enumerate(records)
    ]
    if rows:
        sql.executemany("INSERT INTO outbox (sequence, kind, observed_at_ms, body) VALUES (?, ?, ?, ?)", rows)
        sql.execute("UPDATE stream SET next_sequence = ?", (following + len(rows),))
    return len(rows)


def _make_room(sql: sqlite3.Connection, limits: OutboxLimits) -> None:
    rows = sql.execute("SELECT sequence, kind, body, sent FROM outbox ORDER BY sequence").fetchall()
    plan = plan_room([_described(*row) for row in rows], max_records=limits.max_records, max_bytes=limits.max_bytes)
    bodies = {sequence: body for sequence, _, body, _ in rows if sequence in plan.removed}
    merged: list[AnyRecord] = []
    for group in plan.merges:
        summaries = [decoded(number, Summary.table, bodies[number]) for number in group]
        merged.append(merge_to_day([summary for summary in summaries if isinstance(summary, Summary)]))
    gaps = [Gap(0, first, last, last - first + 1, reason) for first, last, reason in plan.runs]
    sql.executemany("DELETE FROM outbox WHERE sequence = ?", [(number,) for number in sorted(plan.removed)])
    _insert(sql, [*merged, *gaps])
    count(sql, {"records_dropped": plan.dropped, "summaries_merged": sum(len(group) for group in plan.merges)})


def _described(sequence: int, kind: str, body: str, sent: int) -> StoredRecord:
    record = decoded(sequence, kind, body) if kind in (Summary.table, Gap.table) else None
    day = (record.bundle, record.period_start_ms // DAY_MS) if isinstance(record, Summary) else None
    run = (record.first_sequence, record.last_sequence, record.reason) if isinstance(record, Gap) else None
    return StoredRecord(sequence, kind, len(body.encode()), bool(sent), day, run)


def encoded(record: AnyRecord) -> str:
    """Return a record as the outbox keeps it: JSON without its number."""
    fields = record.to_dict()
    del fields["sequence"]  # the row's own number is the only one: a fork changes it
    return canonical(fields).decode()


def decoded(sequence: int, kind: str, body: str) -> AnyRecord:
    """Read a record as the outbox keeps it."""
    return _KINDS[kind].from_dict({"sequence": sequence, **json.loads(body)})


def _moment(record: AnyRecord) -> int:
    if isinstance(record, Gap):
        return 0
    return record.period_start_ms if isinstance(record, Summary) else record.observed_at_ms

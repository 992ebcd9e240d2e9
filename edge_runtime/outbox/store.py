"""The outbox: records that the server does not hold yet, in ``edge.db``, delivered at least once.

A record leaves the outbox in one of three ways: the server says that it holds it, the server refuses it (it becomes a
dead letter), or the store is full (a gap record says so). Nothing else deletes::

    lease = outbox.lease()                              # marks what is about to be sent
    answer = post(encode_batch(lease.stream, now, lease.records))
    outbox.settle(lease, answer, now)                   # or outbox.release(lease) when nothing left the device
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from edge_runtime.contract.batch import MAX_BATCH_RECORDS, Refusal, ResultsAnswer
from edge_runtime.contract.result import AnyRecord, DetailValue, Event, Gap
from edge_runtime.edge_db import EdgeDatabase, count, new_stream_id
from edge_runtime.outbox.renumber import renumbered
from edge_runtime.outbox.writing import DEFAULT_LIMITS, OutboxLimits, append_records, decoded, encoded

# 5,000 anomalies with 8 contributions each are 1.9 MB here and 0.33 MB of gzip on the wire (measured; the contract
# allows 1 MiB). Records of long texts come in more batches.
LEASE_BYTES = 2_000_000
REUSED = "sequence_reused"


@dataclass(frozen=True, slots=True)
class Lease:
    """Records about to be sent, oldest first; empty when there is nothing to send.

    Attributes:
        stream: The stream that their numbers belong to.
        records: At most 5,000, numbered.
        fresh_from: Number from which on they were never leased before.
    """

    stream: str
    records: tuple[AnyRecord, ...]
    fresh_from: int


@dataclass(frozen=True, slots=True)
class Settled:
    """What an answer changed.

    Attributes:
        acknowledged: Records deleted because the server holds them.
        refused: Records moved to the dead letters.
        forked_to: The new stream when the server holds other records under our numbers, else None.
    """

    acknowledged: int
    refused: int
    forked_to: str | None


@dataclass(frozen=True, slots=True)
class OutboxState:
    """What ``status`` shows and reports.

    Attributes:
        stream: Id of the current stream.
        next_sequence: Number of the next record.
        records: Records waiting.
        bytes: Their size.
        dead_letters: Records that the server refused.
        oldest_ms: Time of the oldest one waiting, by its own content, or None.
    """

    stream: str
    next_sequence: int
    records: int
    bytes: int
    dead_letters: int
    oldest_ms: int | None


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A record that the server refused for good; it is kept for a person to look at.

    Attributes:
        kind: Table name of its kind.
        reason: The server's short code.
        detail: The server's sentence.
        refused_at_ms: When, by the device's clock.
        body: The record, as JSON.
    """

    kind: str
    reason: str
    detail: str
    refused_at_ms: int
    body: str


class Outbox:
    """The outbox of one device.

    Args:
        database: The device's database.
        limits: Bounds of the store.
    """

    def __init__(self, database: EdgeDatabase, limits: OutboxLimits = DEFAULT_LIMITS) -> None:
        self._database = database
        self._limits = limits

    def append(self, records: Iterable[AnyRecord]) -> None:
        """Number and store records, in a transaction of their own.

        Args:
            records: Records whose ``sequence`` is 0.

        Raises:
            StorageError: They could not be stored; nothing was.
        """
        with self._database.transaction() as sql:
            append_records(sql, records, self._limits)

    def lease(self, most_records: int = MAX_BATCH_RECORDS, most_bytes: int = LEASE_BYTES) -> Lease:
        """Take the oldest records for sending; they stay stored, and are marked as possibly known to the server.

        Args:
            most_records: At most this many.
            most_bytes: At most this much JSON, but always one record.

        Raises:
            StorageError: The database cannot be used.
        """
        with self._database.transaction() as sql:
            stream, following = sql.execute("SELECT id, next_sequence FROM stream").fetchone()
            # Leases start at the oldest, so that those of the past are the lowest numbers.
            (fresh,) = sql.execute("SELECT min(sequence) FROM outbox WHERE sent = 0").fetchone()
            taken: list[AnyRecord] = []
            size = 0
            query = "SELECT sequence, kind, body FROM outbox ORDER BY sequence LIMIT ?"
            for sequence, kind, body in sql.execute(query, (most_records,)):
                size += len(body.encode())
                if taken and size > most_bytes:
                    break
                taken.append(decoded(sequence, kind, body))
            if taken:
                sql.execute("UPDATE outbox SET sent = 1 WHERE sequence <= ? AND sent = 0", (taken[-1].sequence,))
            return Lease(stream, tuple(taken), following if fresh is None else fresh)

    def release(self, lease: Lease) -> None:
        """Take a lease back that certainly never left the device (no connection was made).

        Records that an earlier lease held stay marked: that one may have arrived without an answer.

        Raises:
            StorageError: The database cannot be used.
        """
        with self._database.transaction() as sql:
            if lease.records and _is_current(sql, lease.stream):
                last = lease.records[-1].sequence
                sql.execute("UPDATE outbox SET sent = 0 WHERE sequence BETWEEN ? AND ?", (lease.fresh_from, last))

    def settle(self, lease: Lease, answer: ResultsAnswer, now_ms: int) -> Settled:
        """Do what the server's answer to a lease asks for, in one transaction.

        An answer about a stream that is no longer current changes nothing: its numbers mean other records now.

        Args:
            lease: What was sent.
            answer: What came back.
            now_ms: The device's clock.

        Raises:
            StorageError: The database cannot be used; the lease may simply be sent again.
        """
        with self._database.transaction() as sql:
            if not _is_current(sql, lease.stream):
                return Settled(0, 0, None)
            numbers = {record.sequence for record in lease.records}
            held = [(n,) for n in numbers if any(first <= n <= last for first, last in answer.held)]
            acknowledged = sql.executemany("DELETE FROM outbox WHERE sequence = ?", held).rowcount if held else 0
            count(sql, {"records_acknowledged": acknowledged})
            ours = [refusal for refusal in answer.refused if refusal.sequence in numbers]
            # Another record under our number: this database is an older copy. The records themselves are good.
            reused = any(refusal.reason == REUSED for refusal in ours)
            refused = self._bury(sql, lease.stream, [r for r in ours if r.reason != REUSED], now_ms)
            forked_to = self._fork(sql, lease.stream, REUSED, now_ms) if reused else None
            return Settled(acknowledged, refused, forked_to)

    def fork(self, reason: str, now_ms: int) -> str:
        """Open a new stream, move what is not acknowledged into it, and report ``stream_forked``.

        Args:
            reason: Short code for the event.
            now_ms: The device's clock.

        Returns:
            The new stream's id.

        Raises:
            StorageError: The database cannot be used; the stream is the old one.
        """
        with self._database.transaction() as sql:
            (stream,) = sql.execute("SELECT id FROM stream").fetchone()
            return self._fork(sql, stream, reason, now_ms)

    def state(self) -> OutboxState:
        """Return what is waiting.

        Raises:
            StorageError: The database cannot be read.
        """
        with self._database.reading() as sql:
            stream, following, records, size = sql.execute(
                "SELECT id, next_sequence, records, bytes FROM stream"
            ).fetchone()
            (dead,) = sql.execute("SELECT count(*) FROM dead_letter").fetchone()
            (oldest,) = sql.execute("SELECT min(observed_at_ms) FROM outbox WHERE kind != 'gaps'").fetchone()
            return OutboxState(stream, following, records, size, dead, oldest)

    def dead_letters(self, most: int = 20) -> tuple[DeadLetter, ...]:
        """Return the newest records that the server refused, newest first.

        Args:
            most: At most this many.

        Raises:
            StorageError: The database cannot be read.
        """
        query = "SELECT kind, reason, detail, refused_at_ms, body FROM dead_letter ORDER BY number DESC LIMIT ?"
        with self._database.reading() as sql:
            return tuple(DeadLetter(*row) for row in sql.execute(query, (most,)))

    def _bury(self, sql: sqlite3.Connection, stream: str, refusals: Sequence[Refusal], now_ms: int) -> int:
        for refusal in refusals:
            sql.execute(
                "INSERT INTO dead_letter (stream, sequence, kind, reason, detail, refused_at_ms, body) "
                "SELECT ?, sequence, kind, ?, ?, ?, body FROM outbox WHERE sequence = ?",
                (stream, refusal.reason, refusal.detail, now_ms, refusal.sequence),
            )
            sql.execute("DELETE FROM outbox WHERE sequence = ?", (refusal.sequence,))
        if not refusals:
            return 0
        dropped = sql.execute(
            "DELETE FROM dead_letter WHERE number <= (SELECT max(number) FROM dead_letter) - ?",
            (self._limits.max_dead_letters,),
        ).rowcount
        count(sql, {"records_refused": len(refusals), "dead_letters_dropped": dropped})
        return len(refusals)

    def _fork(self, sql: sqlite3.Connection, stream: str, reason: str, now_ms: int) -> str:
        rows = sql.execute("SELECT sequence, kind, body FROM outbox ORDER BY sequence").fetchall()
        gaps = {sequence: decoded(sequence, kind, body) for sequence, kind, body in rows if kind == Gap.table}
        runs = [(gap.first_sequence, gap.last_sequence) for gap in gaps.values() if isinstance(gap, Gap)]
        numbers, following = renumbered([row[0] for row in rows], runs)
        # New numbers keep the order and never exceed the old ones, so that ascending updates cannot collide.
        for old, new in numbers.records.items():
            sql.execute("UPDATE outbox SET sequence = ?, sent = 0 WHERE sequence = ?", (new, old))
        for old, gap in gaps.items():
            if isinstance(gap, Gap):
                first = numbers.runs[gap.first_sequence]
                moved = replace(gap, first_sequence=first, last_sequence=first + gap.count - 1)
                sql.execute("UPDATE outbox SET body = ? WHERE sequence = ?", (encoded(moved), numbers.records[old]))
        new_stream = new_stream_id()
        sql.execute("UPDATE stream SET id = ?, next_sequence = ?", (new_stream, following))
        detail: dict[str, DetailValue] = {"old_stream": stream, "reason": reason, "records": len(rows)}
        append_records(sql, [Event(0, None, now_ms, "stream_forked", detail)], self._limits)
        count(sql, {"streams_forked": 1})
        return new_stream


def _is_current(sql: sqlite3.Connection, stream: str) -> bool:
    return bool(sql.execute("SELECT id = ? FROM stream", (stream,)).fetchone()[0])

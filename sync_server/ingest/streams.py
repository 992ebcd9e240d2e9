"""Streams: which sequence numbers are held. The stream's row, locked, is what makes a repeated batch change nothing."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import text
from sqlalchemy.orm import Session

from edge_runtime.contract.batch import Batch, ranges
from edge_runtime.contract.result import AnyRecord, record_digest
from sync_server.errors import RequestError
from sync_server.ingest.partitions import RECORD_TABLES

# Honest devices have one stream, and one more each time a backup is restored.
MAX_STREAMS = 1_000
# Numbers without holes make one run; each refused record may split it. A row with more would cost every batch.
MAX_RUNS = 10_000

_LOCK = text("""
    SELECT s.id, s.first_seen_at, s.grown_at,
           ARRAY(SELECT n FROM unnest(CAST(:numbers AS bigint[])) AS n WHERE s.held @> n) AS held,
           (SELECT count(*) FROM unnest(s.held)) AS runs
    FROM streams s WHERE s.device_id = :device_id AND s.stream = :stream FOR UPDATE OF s
""")
_OPEN = text("""
    INSERT INTO streams (device_id, stream, first_seen_at, opened_at_ms)
    SELECT :device_id, :stream, :now, :sent_at_ms
    WHERE (SELECT count(*) FROM streams WHERE device_id = :device_id) < :most
    ON CONFLICT (device_id, stream) DO NOTHING
""")
_DIGESTS = text(
    " UNION ALL ".join(
        f"SELECT sequence, digest FROM {table}"  # noqa: S608 - table names are our own constants
        " WHERE stream_id = :stream_id AND sequence = ANY(CAST(:numbers AS bigint[])) AND received_at >= :since"
        for table in RECORD_TABLES
    )
)
_GROW = text("""
    UPDATE streams SET held = held + CAST(:numbers AS int8multirange), grown_at = :now,
        last_sent_at_ms = greatest(last_sent_at_ms, :sent_at_ms)
    WHERE id = :stream_id
""")
# A, then B, then A again: a device that opened B for good adds nothing to A, so two devices live in one home. But a
# request that timed out on the device may still go on here, so growth counts only when the device sent it after it
# opened the other stream, by its own clock; or, as clocks can be wrong, when it came an hour later than that.
_TURN = (
    "({grown}.last_sent_at_ms > {other}.opened_at_ms OR {grown}.grown_at > {other}.first_seen_at + interval '1 hour')"
)
_MARK_CLONED = text(f"""
    UPDATE devices SET cloned_at = :now
    WHERE id = :device_id AND cloned_at IS NULL AND EXISTS (
        SELECT FROM streams this JOIN streams other ON other.device_id = this.device_id AND other.id <> this.id
        WHERE this.id = :stream_id AND other.grown_at > :grown_before
            AND {_TURN.format(grown="this", other="other")} AND {_TURN.format(grown="other", other="this")})
""")  # noqa: S608 - put together from our own constants


@dataclass(frozen=True, slots=True)
class LockedStream:
    """A stream's row while a batch of it is stored.

    Attributes:
        id: Its number.
        first_seen_at: When it was opened; no record of it is older.
        grown_at: When a record was last added, or None.
        held: Those of the batch's numbers that are held already.
        runs: Into how many runs the held numbers fall.
    """

    id: int
    first_seen_at: datetime
    grown_at: datetime | None
    held: frozenset[int]
    runs: int

    @property
    def is_full(self) -> bool:
        """Whether the numbers held fall into so many runs that no more are taken."""
        return self.runs > MAX_RUNS


def lock_stream(session: Session, device_id: str, batch: Batch, *, now: datetime) -> LockedStream:
    """Return the stream of a device's batch, locked until the transaction ends; opened when it is new.

    Raises:
        RequestError: 409 when the device has too many streams.
    """
    numbers = [record.sequence for record in batch.records]
    given = {"device_id": device_id, "stream": batch.stream, "numbers": numbers}
    row = session.execute(_LOCK, given).one_or_none()
    if row is None:
        session.execute(_OPEN, {**given, "now": now, "sent_at_ms": batch.sent_at_ms, "most": MAX_STREAMS})
        row = session.execute(_LOCK, given).one_or_none()
    if row is None:
        raise RequestError(
            409, "too_many_streams", f"Device {device_id} has opened {MAX_STREAMS} streams already.",
            advice="Ask the operator; the device may have to be enrolled again into an empty home.",
        )  # fmt: skip
    return LockedStream(row.id, row.first_seen_at, row.grown_at, frozenset(row.held), row.runs)


def changed_records(session: Session, stream: LockedStream, records: Collection[AnyRecord]) -> frozenset[int]:
    """Return the numbers of held records whose content is not what was stored under them.

    A record whose partition was dropped since is held, and can no longer be compared.
    """
    held = {record.sequence: record_digest(record) for record in records if record.sequence in stream.held}
    if not held:
        return frozenset()
    rows = session.execute(_DIGESTS, {"stream_id": stream.id, "numbers": list(held), "since": stream.first_seen_at})
    return frozenset(sequence for sequence, digest in rows if bytes(digest) != held[sequence])


def grow(
    session: Session, device_id: str, stream: LockedStream, batch: Batch, numbers: Collection[int], *, now: datetime
) -> None:
    """Add the numbers of a batch that were stored, and mark the device as cloned when its streams grow in turn.

    A batch with numbers that were held already tells nothing of clones: it may come from a restored home, which opens a
    new stream as soon as it is told.
    """
    runs = ",".join(f"[{first},{last}]" for first, last in ranges(numbers))
    given = {"stream_id": stream.id, "sent_at_ms": batch.sent_at_ms, "now": now}
    session.execute(_GROW, {**given, "numbers": f"{{{runs}}}"})
    if stream.grown_at is not None and len(numbers) == len(batch.records):
        session.execute(_MARK_CLONED, {**given, "device_id": device_id, "grown_before": stream.grown_at})

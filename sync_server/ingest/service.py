"""One batch, one transaction: everything of it is stored, or nothing.

Sent twice, a batch changes nothing the second time and gets the same answer but for ``stored``. That is the whole
point: a device that did not hear the answer sends again.
"""

from __future__ import annotations

from sqlalchemy import text
from sqlalchemy.orm import Session

from edge_runtime.contract.batch import Batch, Refusal, ResultsAnswer, ranges
from sync_server.db import utc_now
from sync_server.devices.models import Device
from sync_server.ingest.incidents import store_incidents
from sync_server.ingest.records import Arrival, insert_records
from sync_server.ingest.rollups import add_to_rollups
from sync_server.ingest.streams import changed_records, grow, lock_stream

SEQUENCE_REUSED = "sequence_reused"

_SEEN = text(
    "UPDATE devices SET last_seen_at = :now, last_result_at = CASE WHEN :stored THEN :now ELSE last_result_at END"
    " WHERE id = :device_id"
)


def store_batch(session: Session, device: Device, batch: Batch) -> ResultsAnswer:
    """Store what is new of a batch.

    1. Lock the stream's row and ask which of the batch's numbers it holds.
    2. Held ones are compared with what was stored: equal is ``held``, different is refused as ``sequence_reused``. New
       ones of a stream with too many holes are refused alike, because that makes a device open a new stream.
    3. The others are inserted, folded into incidents and added to the roll-up.
    4. Their numbers join the stream's row; streams of one device that grow in turn mark it as cloned.

    Locks are taken in one order (stream, incidents, roll-up rows by key, device), so batches never wait in a circle.

    Args:
        session: The open transaction; at most 13 statements, whatever the size of the batch.
        device: Who sends it.
        batch: The decoded batch.

    Returns:
        What is held now, and what never will be.

    Raises:
        RequestError: 409 when the device has too many streams.
    """
    now = utc_now()
    numbers = [record.sequence for record in batch.records]
    stream = lock_stream(session, device.id, batch, now=now)
    changed = changed_records(session, stream, batch.records)
    fresh = [record for record in batch.records if record.sequence not in stream.held]
    if stream.is_full:
        changed, fresh = changed | {record.sequence for record in fresh}, []
    if fresh:
        arrival = Arrival(device.id, device.cohort, device.model, stream.id, now)
        insert_records(session, arrival, fresh)
        new_incidents = store_incidents(session, arrival, fresh)
        add_to_rollups(session, arrival, fresh, new_incidents)
        grow(session, device.id, stream, batch, [record.sequence for record in fresh], now=now)
    session.execute(_SEEN, {"now": now, "stored": bool(fresh), "device_id": device.id})
    reused = tuple(
        Refusal(number, SEQUENCE_REUSED, "The number is taken, or its stream is full of holes.")
        for number in sorted(changed)
    )
    held = ranges(number for number in numbers if number not in changed)
    return ResultsAnswer(len(fresh), held, (*batch.refused, *reused))

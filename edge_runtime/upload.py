"""Upload: lease a batch from the outbox, send it, do what the answer says, until nothing is left.

Records leave the outbox only when the server says that it holds them, or refuses them for good. A batch that is
refused as a whole is sent in halves until the record that is at fault stands alone.

Example::

    report = upload(device, outbox, batch_records=2000)
"""

from __future__ import annotations

import gzip
import logging
from dataclasses import dataclass, replace

from edge_runtime.contract.batch import (
    MAX_BATCH_BYTES,
    MAX_BATCH_GZIP_BYTES,
    MAX_BATCH_RECORDS,
    Refusal,
    ResultsAnswer,
    encode_batch,
)
from edge_runtime.contract.routes import RESULTS
from edge_runtime.device import EnrolledDevice, now_ms
from edge_runtime.edge_db import EdgeDatabase
from edge_runtime.errors import ContractError, TransportError
from edge_runtime.outbox import Lease, Outbox
from edge_runtime.transport import Request, bearer, call_json

log = logging.getLogger(__name__)

# Statuses by which a server refuses a batch as a whole (contract: bad request, too large, unsupported, unprocessable).
BATCH_REFUSALS = frozenset({400, 413, 415, 422})
GZIP_LEVEL = 6


@dataclass(frozen=True, slots=True)
class UploadReport:
    """What an upload did.

    Attributes:
        acknowledged: Records that the server holds and the device deleted.
        refused: Records that became dead letters.
        forks: Times that a new stream was opened.
        requests: Batches sent.
    """

    acknowledged: int = 0
    refused: int = 0
    forks: int = 0
    requests: int = 0


def upload(device: EnrolledDevice, outbox: Outbox, *, batch_records: int = MAX_BATCH_RECORDS) -> UploadReport:
    """Send what the outbox holds, oldest first, until it is empty.

    Args:
        device: The opened device.
        outbox: Its outbox.
        batch_records: Most records in one request.

    Returns:
        What was acknowledged and refused.

    Raises:
        TransportError: The server could not be reached, refused the device's token, or gave an answer that changes
            nothing; what was acknowledged before that stays acknowledged, the rest stays in the outbox.
        StorageError: The outbox could not be read or written.
    """
    report = UploadReport()
    most = min(batch_records, MAX_BATCH_RECORDS)
    while True:
        lease = outbox.lease(most)
        if not lease.records:
            return report
        try:
            answer = _send(device, outbox, lease)
        except TransportError as error:
            if error.status not in BATCH_REFUSALS or not error.fields.get("problem"):
                raise
            log.warning("%s", error)
            if len(lease.records) > 1:
                most = (len(lease.records) + 1) // 2
                continue
            answer = _blame(lease, error)
        settled = outbox.settle(lease, answer, now_ms())
        if not (settled.acknowledged or settled.refused or settled.forked_to):
            raise TransportError(
                f"{device.identity.server_url} answered an upload without holding or refusing any record of it.",
                advice="The records stay on the device; the server's log says more.",
            )
        report = replace(
            report,
            acknowledged=report.acknowledged + settled.acknowledged,
            refused=report.refused + settled.refused,
            forks=report.forks + (settled.forked_to is not None),
            requests=report.requests + 1,
        )
        most = min(2 * most, batch_records, MAX_BATCH_RECORDS)


def upload_all(
    device: EnrolledDevice,
    database: EdgeDatabase,
    *,
    batch_records: int = MAX_BATCH_RECORDS,
    close_summaries: bool = True,
) -> UploadReport:
    """Send the outbox, then the hour so far.

    Open summaries are closed only after the outbox went through: a device that is offline for a month and tries every
    minute would otherwise cut its hours into 60 records each.

    Args:
        device: The opened device.
        database: Its ``edge.db``.
        batch_records: Most records in one request.
        close_summaries: Whether the hour so far goes along.

    Raises:
        TransportError: As :func:`upload`.
        StorageError: As :func:`upload`.
    """
    from edge_runtime.scoring_state import close_open_summaries  # numpy, which sending alone does not need

    outbox = Outbox(database)
    first = upload(device, outbox, batch_records=batch_records)
    if not close_summaries or not close_open_summaries(database):
        return first
    second = upload(device, outbox, batch_records=batch_records)
    return UploadReport(
        first.acknowledged + second.acknowledged,
        first.refused + second.refused,
        first.forks + second.forks,
        first.requests + second.requests,
    )


def _send(device: EnrolledDevice, outbox: Outbox, lease: Lease) -> ResultsAnswer:
    plain = encode_batch(lease.stream, now_ms(), lease.records)
    body = gzip.compress(plain, GZIP_LEVEL, mtime=0)
    if len(plain) > MAX_BATCH_BYTES or len(body) > MAX_BATCH_GZIP_BYTES:
        raise TransportError(
            f"A batch of {len(lease.records)} records is larger than a server takes.",
            status=413,
            problem="batch_too_large",
        )
    headers = {**bearer(device.token), "Content-Type": "application/json", "Content-Encoding": "gzip"}
    try:
        fields = call_json(device.transport, Request("POST", RESULTS, headers, body))
    except TransportError as error:
        if error.fields.get("never_sent"):
            outbox.release(lease)  # what no server can hold may still be merged when the store is full
        raise
    try:
        return ResultsAnswer.from_dict(fields)
    except ContractError as error:
        raise TransportError(
            f"{device.identity.server_url} gave an upload an answer that this device does not understand: "
            f"{error.message}",
            advice="The records stay on the device; update the server or the device.",
        ) from error


def _blame(lease: Lease, error: TransportError) -> ResultsAnswer:
    """Return the answer that a server should have given: this one record is refused."""
    reason = str(error.fields["problem"])[:64]
    return ResultsAnswer(0, (), (Refusal(lease.records[0].sequence, reason, error.message[:512]),))

"""Snapshot and timestamp: signed by the server's online key, in the transaction of what they tell of.

A publish signs both, a rollout the timestamp; what nobody touches is signed again at half its time. All of it happens
under one advisory lock, so no two processes sign the same version.
"""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta

from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy.orm import Session
from tuf.api.metadata import Metadata, MetaFile, Snapshot, Timestamp

from edge_runtime.contract.rollout import FIELD
from sync_server.db import lock_for_transaction, try_lock_for_transaction
from sync_server.errors import RequestError
from sync_server.repository import metadata
from sync_server.repository.online_key import signer_for
from sync_server.rollouts.models import rollouts_by_channel

SNAPSHOT_TIME = timedelta(days=30)
TIMESTAMP_TIME = timedelta(days=7)


def _file_of(body: bytes, version: int) -> MetaFile:
    return MetaFile(version, len(body), {"sha256": hashlib.sha256(body).hexdigest()})


def _next(session: Session, role: str, now: datetime) -> int:
    """The version to sign: above the stored one, and above what a database from an old backup does not remember.

    Devices refuse versions that go back; seconds since 1970 grow faster than anybody signs.
    """
    row = metadata.latest(session, role)
    return max(0 if row is None else row.version + 1, int(now.timestamp()))


def _expiry(now: datetime, time: timedelta) -> datetime:
    return (now + time).replace(microsecond=0)  # TUF writes whole seconds


def sign_snapshot(session: Session, key: ec.EllipticCurvePrivateKey, now: datetime) -> None:
    """Sign the next snapshot over the newest targets, and a timestamp over it.

    Args:
        session: An open transaction that holds the repository lock.
        key: The online key.
        now: The server's clock.

    Raises:
        TrustError: The online key is not the one in root.
        RequestError: Nothing was published yet, or the timestamp would be too large for devices.
    """
    root = metadata.current_root(session)
    targets = metadata.latest(session, "targets")
    if targets is None:
        raise RequestError(409, "no_repository", "There are no targets to sign for.", advice="Run: exporter publish")
    snapshot = Snapshot(
        version=_next(session, "snapshot", now),
        expires=_expiry(now, SNAPSHOT_TIME),
        meta={"targets.json": _file_of(targets.body, targets.version)},
    )
    signed = Metadata(snapshot)
    signed.sign(signer_for(root, key))
    metadata.store(session, "snapshot", snapshot.version, signed.to_bytes(), now)
    sign_timestamp(session, key, now)


def sign_timestamp(session: Session, key: ec.EllipticCurvePrivateKey, now: datetime) -> None:
    """Sign the next timestamp over the newest snapshot and every channel's rollout; raises as :func:`sign_snapshot`."""
    root = metadata.current_root(session)
    snapshot = metadata.latest(session, "snapshot")
    if snapshot is None:
        raise RequestError(409, "no_repository", "There is no snapshot to sign for.", advice="Run: exporter publish")
    rollouts = {channel: rollout.to_dict() for channel, rollout in rollouts_by_channel(session).items()}
    timestamp = Timestamp(
        version=_next(session, "timestamp", now),
        expires=_expiry(now, TIMESTAMP_TIME),
        snapshot_meta=_file_of(snapshot.body, snapshot.version),
        unrecognized_fields={FIELD: rollouts},
    )
    signed = Metadata(timestamp)
    signed.sign(signer_for(root, key))
    body = signed.to_bytes()
    if len(body) > metadata.MAX_BYTES["timestamp"]:
        raise RequestError(
            409, "timestamp_too_large", f"The timestamp would have {len(body)} bytes; devices read at most 16384.",
            advice="Limit rollouts to fewer cohorts, or use fewer channels.",
        )  # fmt: skip
    metadata.store(session, "timestamp", timestamp.version, body, now)


def sign_anew(session: Session, key: ec.EllipticCurvePrivateKey, now: datetime) -> bool:
    """Sign snapshot and timestamp whether or not they are due.

    After a database was restored its versions are older than what devices have seen. Versions count seconds, so what
    is signed now is newer than anything that was signed before.

    Returns:
        Whether there was something to sign; nothing is before the first publish.

    Raises:
        TrustError: The online key is not the one in root.
    """
    lock_for_transaction(session, metadata.LOCK)
    if metadata.latest(session, "timestamp") is None:
        return False
    sign_snapshot(session, key, now)
    return True


def sign_again_if_due(session: Session, key: ec.EllipticCurvePrivateKey, now: datetime) -> list[str]:
    """Sign what has passed half its time, unless another process is at it.

    Returns:
        The roles that were signed: none, ``timestamp``, or both.

    Raises:
        TrustError: The online key is not the one in root.
    """
    if not try_lock_for_transaction(session, metadata.LOCK) or metadata.latest(session, "timestamp") is None:
        return []
    if metadata.current_snapshot(session).expires - now <= SNAPSHOT_TIME / 2:
        sign_snapshot(session, key, now)
        return ["snapshot", "timestamp"]
    if metadata.current_timestamp(session).expires - now <= TIMESTAMP_TIME / 2:
        sign_timestamp(session, key, now)
        return ["timestamp"]
    return []

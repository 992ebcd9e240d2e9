"""Signed metadata in Postgres: what is stored, and reading it back as python-tuf's types."""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import TypeVar, cast

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Root, Snapshot, Targets, Timestamp

from edge_runtime.errors import ContractError, StorageError
from sync_server.errors import RequestError
from sync_server.repository.models import TufMetadata

Kind = TypeVar("Kind", Root, Targets, Snapshot, Timestamp)

# What python-tuf's client is ready to read (tuf.ngclient.config.UpdaterConfig); more would lock every device out.
MAX_BYTES = {"root": 512_000, "timestamp": 16_384, "snapshot": 2_000_000, "targets": 5_000_000}
LOCK = "repository"


def parse(body: bytes, kind: type[Kind], what: str) -> Metadata[Kind]:
    """Read metadata of one role.

    Args:
        body: The file.
        kind: python-tuf's type of the role.
        what: Name of the file, for the error.

    Raises:
        ContractError: Not metadata, not of that role, or larger than clients read.
    """
    if len(body) > MAX_BYTES[kind.type]:
        raise ContractError(f"{what} has {len(body)} bytes; devices read at most {MAX_BYTES[kind.type]}.")
    try:
        metadata = cast("Metadata[Kind]", Metadata.from_bytes(body))
    except RepositoryError as error:  # the parser wraps every fault in its own DeserializationError
        raise ContractError(f"{what} is not TUF metadata.", advice="Send the file as the exporter wrote it.") from error
    if not isinstance(metadata.signed, kind):
        raise ContractError(f"{what} is metadata of the role {metadata.signed.type}, not {kind.type}.")
    return metadata


def latest(session: Session, role: str) -> TufMetadata | None:
    """Return the newest stored metadata of a role, or None before the first publish."""
    return session.scalars(
        select(TufMetadata).where(TufMetadata.role == role).order_by(TufMetadata.version.desc()).limit(1)
    ).one_or_none()


def at_version(session: Session, role: str, version: int) -> TufMetadata | None:
    """Return stored metadata of a role and version, or None."""
    return session.get(TufMetadata, (role, version))


def root_by_digest(session: Session, digest: str) -> TufMetadata | None:
    """Return the root whose SHA-256 this is, or None."""
    statement = select(TufMetadata).where(TufMetadata.role == "root", TufMetadata.digest == digest)
    return session.scalars(statement).one_or_none()


def store(session: Session, role: str, version: int, body: bytes, now: datetime) -> None:
    """Add metadata; of the timestamp only the newest is kept."""
    if role == "timestamp":
        session.execute(delete(TufMetadata).where(TufMetadata.role == role))
    digest = hashlib.sha256(body).hexdigest()
    session.add(TufMetadata(role=role, version=version, body=body, digest=digest, stored_at=now))
    session.flush()


def _required(session: Session, role: str) -> TufMetadata:
    row = latest(session, role)
    if row is None:
        raise RequestError(
            409, "no_repository", "Nothing was published to this server yet.", advice="Run: exporter publish"
        )
    return row


def _stored(session: Session, role: str, kind: type[Kind]) -> Kind:
    try:
        return parse(_required(session, role).body, kind, role).signed
    except ContractError as error:
        raise StorageError(f"The stored {role} metadata is damaged.", advice="Restore the database.") from error


def current_root(session: Session) -> Root:
    """Return the newest root.

    Raises:
        RequestError: 409 when nothing was published yet.
        StorageError: What is stored is damaged.
    """
    return _stored(session, "root", Root)


def current_targets(session: Session) -> Targets:
    """Return the newest targets; raises as :func:`current_root`."""
    return _stored(session, "targets", Targets)


def current_snapshot(session: Session) -> Snapshot:
    """Return the newest snapshot; raises as :func:`current_root`."""
    return _stored(session, "snapshot", Snapshot)


def current_timestamp(session: Session) -> Timestamp:
    """Return the newest timestamp; raises as :func:`current_root`."""
    return _stored(session, "timestamp", Timestamp)


def versions(session: Session) -> dict[str, int]:
    """Return the newest stored version of each role; roles without any are absent."""
    statement = select(TufMetadata.role, func.max(TufMetadata.version)).group_by(TufMetadata.role)
    return {str(row[0]): int(row[1]) for row in session.execute(statement)}


def enrolment_facts(session: Session) -> tuple[str, int]:
    """Return what an enrolment line pins: SHA-256 of the newest root in hex, and the newest targets version.

    Raises:
        RequestError: 409 when nothing was published yet.
    """
    return _required(session, "root").digest, _required(session, "targets").version

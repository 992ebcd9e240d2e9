"""Tables of the repository: signed metadata, and the bundles that were ever published."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, Index
from sqlalchemy.orm import Mapped, mapped_column

from sync_server.db import Base


class TufMetadata(Base):
    """One signed file; ``body`` is served as it is, ``digest`` is its SHA-256 in hex and its ETag."""

    __tablename__ = "tuf_metadata"
    __table_args__ = (
        CheckConstraint("role IN ('root', 'targets', 'snapshot', 'timestamp')", name="role"),
        CheckConstraint("version > 0", name="version"),
    )

    role: Mapped[str] = mapped_column(primary_key=True)
    version: Mapped[int] = mapped_column(primary_key=True)
    body: Mapped[bytes]
    digest: Mapped[str] = mapped_column(index=True)
    stored_at: Mapped[datetime]


class StoredBundle(Base):
    """A bundle that was published at some time, listed today or not; results refer to it by ``digest``."""

    __tablename__ = "bundles"
    __table_args__ = (
        CheckConstraint("digest ~ '^[0-9a-f]{64}$'", name="digest"),
        Index(None, "model", "release_number"),
    )

    digest: Mapped[str] = mapped_column(primary_key=True)
    path: Mapped[str] = mapped_column(index=True)
    model: Mapped[str]
    version: Mapped[str]
    cohort: Mapped[str | None]
    release_number: Mapped[int]
    size: Mapped[int]
    size_unpacked: Mapped[int]
    signer: Mapped[str]
    manifest: Mapped[dict[str, Any]]
    published_at: Mapped[datetime]

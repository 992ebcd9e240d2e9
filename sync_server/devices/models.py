"""Tables of the devices room.

Times the server sets are ``TIMESTAMPTZ``; times a device claims are ``BIGINT`` UTC epoch milliseconds, so that a device
with a broken clock can never make a value that the database, or a driver, cannot hold.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, Integer, false, text
from sqlalchemy.orm import Mapped, mapped_column

from sync_server.db import Base


class Enrolment(Base):
    """What an enrolment token is bound to; the token itself, its count and its end are an ``AccessToken``."""

    __tablename__ = "enrolments"
    __table_args__ = (
        CheckConstraint("uses_allowed > 0", name="uses_allowed"),
        CheckConstraint("kind IN ('edge', 'demo')", name="kind"),
    )

    token_id: Mapped[int] = mapped_column(BigInteger, ForeignKey("access_tokens.id"), primary_key=True)
    model: Mapped[str]
    channel: Mapped[str]
    uses_allowed: Mapped[int] = mapped_column(Integer)
    created_by: Mapped[str]
    # What it lets in: a browser's link lets no edge device in, and the other way round.
    kind: Mapped[str] = mapped_column(server_default="edge")


class Device(Base):
    """One enrolled installation, and what it last said of itself."""

    __tablename__ = "devices"
    __table_args__ = (
        CheckConstraint("id ~ '^[0-9a-f]{32}$'", name="id"),
        CheckConstraint("installation_id ~ '^[0-9a-f]{32}$'", name="installation_id"),
        CheckConstraint("kind IN ('edge', 'demo')", name="kind"),
        Index(None, "last_seen_at", "id"),
        Index(None, "cohort"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    installation_id: Mapped[str] = mapped_column(unique=True)
    enrolment_id: Mapped[int] = mapped_column(ForeignKey("enrolments.token_id"))
    name: Mapped[str | None]
    cohort: Mapped[str | None]
    kind: Mapped[str]
    model: Mapped[str]
    channel: Mapped[str]
    created_at: Mapped[datetime]
    last_seen_at: Mapped[datetime]
    last_result_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    # Two of its streams grew in turn: two devices run with the same home. See ingest.
    cloned_at: Mapped[datetime | None]
    active_bundle: Mapped[str | None]
    active_release: Mapped[int | None]
    active_version: Mapped[str | None]
    outbox_records: Mapped[int | None]
    dead_letters: Mapped[int | None]
    stale: Mapped[bool] = mapped_column(server_default=false())
    update_outcome: Mapped[str | None]
    update_reason: Mapped[str | None]
    status: Mapped[dict[str, Any] | None]
    status_at: Mapped[datetime | None]
    # What it sent in the minute and the hour that it sent in last (counted since 1970). Ingest keeps them, for quotas.
    used_minute: Mapped[int] = mapped_column(server_default=text("0"))
    used_minute_records: Mapped[int] = mapped_column(server_default=text("0"))
    used_hour: Mapped[int] = mapped_column(server_default=text("0"))
    used_hour_records: Mapped[int] = mapped_column(server_default=text("0"))
    used_hour_bytes: Mapped[int] = mapped_column(server_default=text("0"))

"""Tables of access: tokens, operators, log-ins, and the audit trail."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Identity, Index
from sqlalchemy.orm import Mapped, mapped_column

from sync_server.db import Base


class AccessToken(Base):
    """A token of any kind; only its SHA-256 is stored.

    ``subject`` is the device's id for device tokens. ``uses_left`` counts enrolment tokens down; null means no limit.
    """

    __tablename__ = "access_tokens"
    __table_args__ = (
        CheckConstraint("octet_length(digest) = 32", name="digest"),
        CheckConstraint("kind IN ('dev', 'enr', 'pub', 'ops', 'view')", name="kind"),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    kind: Mapped[str]
    digest: Mapped[bytes] = mapped_column(unique=True)
    name: Mapped[str]
    subject: Mapped[str | None] = mapped_column(index=True)
    uses_left: Mapped[int | None]
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]


class Operator(Base):
    """A person who may log in. ``role`` is ``operator`` or ``viewer``."""

    __tablename__ = "operators"
    __table_args__ = (CheckConstraint("role IN ('operator', 'viewer')", name="role"),)

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    username: Mapped[str] = mapped_column(unique=True)
    password_hash: Mapped[str]
    role: Mapped[str]
    created_at: Mapped[datetime]
    disabled_at: Mapped[datetime | None]


class LoginSession(Base):
    """A log-in; the cookie holds 256 random bits, this row their SHA-256."""

    __tablename__ = "login_sessions"

    digest: Mapped[bytes] = mapped_column(primary_key=True)
    operator_id: Mapped[int] = mapped_column(ForeignKey("operators.id", ondelete="CASCADE"), index=True)
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime] = mapped_column(index=True)


class LoginAttempt(Base):
    """A log-in that was tried and has not succeeded; kept for the rate limit only."""

    __tablename__ = "login_attempts"
    __table_args__ = (Index(None, "username_digest", "at"), Index(None, "address", "at"))

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    username_digest: Mapped[bytes]
    address: Mapped[str]
    at: Mapped[datetime] = mapped_column(index=True)


class AuditEntry(Base):
    """One thing that somebody did. The server's own role may add entries, and neither change nor delete them."""

    __tablename__ = "audit_entries"
    __table_args__ = (
        Index("ix_audit_entries_subject", "subject", "at"),
        Index("ix_audit_entries_actor", "actor", "at", "id"),
        Index("ix_audit_entries_action", "action", "at", "id"),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    at: Mapped[datetime] = mapped_column(index=True)
    actor: Mapped[str]
    action: Mapped[str]
    subject: Mapped[str]
    detail: Mapped[dict[str, Any]]

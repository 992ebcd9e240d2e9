"""Tables of webhooks: who wants to hear of what, and the outbox of what is not told yet."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import CheckConstraint, ForeignKey, Identity, Index
from sqlalchemy.orm import Mapped, mapped_column

from sync_server.db import Base


class Webhook(Base):
    """An address that is told of events. Its secret is derived from ``salt``, see :mod:`sync_server.webhooks.secret`.

    ``next_try_at`` is when the hook may be called again: in the future while a worker has it or after a failure.
    """

    __tablename__ = "webhooks"
    __table_args__ = (CheckConstraint("octet_length(salt) = 32", name="salt"),)

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    name: Mapped[str]
    url: Mapped[str]
    events: Mapped[list[str]]
    salt: Mapped[bytes]
    allow_private: Mapped[bool]
    created_at: Mapped[datetime]
    revoked_at: Mapped[datetime | None]
    disabled_at: Mapped[datetime | None]
    next_try_at: Mapped[datetime]
    failures: Mapped[int] = mapped_column(default=0, server_default="0")
    failing_since: Mapped[datetime | None]
    last_delivered_at: Mapped[datetime | None]
    last_error: Mapped[str | None]
    dropped: Mapped[int] = mapped_column(default=0, server_default="0")


class WebhookDelivery(Base):
    """One event on its way to one hook; deleted when it is delivered or given up."""

    __tablename__ = "webhook_deliveries"
    __table_args__ = (Index(None, "webhook_id", "next_try_at"),)

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    webhook_id: Mapped[int] = mapped_column(ForeignKey("webhooks.id", ondelete="CASCADE"))
    event_id: Mapped[str]
    event: Mapped[str]
    body: Mapped[bytes]
    created_at: Mapped[datetime]
    next_try_at: Mapped[datetime]
    attempts: Mapped[int] = mapped_column(default=0, server_default="0")

"""What tests of webhooks ask the database, and how they tell of events."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select

from sync_server.access.models import AuditEntry
from sync_server.db import Database
from sync_server.webhooks import service
from sync_server.webhooks.models import Webhook, WebhookDelivery


def tell(database: Database, event: str = "rollout.paused", detail: dict[str, Any] | None = None) -> int:
    with database.session() as session:
        return service.enqueue(session, event, "channel:stable", detail or {"release": 7})


def hook_now(database: Database, number: int) -> Webhook:
    with database.session() as session:
        return session.get_one(Webhook, number)


def queue(database: Database) -> list[WebhookDelivery]:
    with database.session() as session:
        return list(session.scalars(select(WebhookDelivery).order_by(WebhookDelivery.id)))


def audited(database: Database) -> list[str]:
    with database.session() as session:
        return list(session.scalars(select(AuditEntry.action).order_by(AuditEntry.id)))

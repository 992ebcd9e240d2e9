"""The audit trail: who did what to what, and when."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy.orm import Session

from sync_server.access.models import AuditEntry
from sync_server.db import utc_now


def audit(session: Session, actor: str, action: str, subject: str, detail: Mapping[str, object] | None = None) -> None:
    """Add an entry in the transaction of what it tells of, so that neither exists without the other.

    Args:
        session: The open transaction.
        actor: Who: :attr:`Actor.label`, ``device:<id>``, ``command line`` or ``server``.
        action: What, as ``noun.done``: ``rollout.started``, ``token.revoked``, ``login.failed``.
        subject: To what: ``channel:stable``, ``token:3``, ``device:<id>``.
        detail: JSON-ready details without secrets.
    """
    session.add(AuditEntry(at=utc_now(), actor=actor, action=action, subject=subject, detail=dict(detail or {})))

"""Webhooks: made, listed, revoked, and told of events in the transaction in which those happen.

Any room says what happened, in the transaction that makes it so::

    enqueue(session, "rollout.paused", "channel:stable", {"reason": "...", "release": 7})

and a worker's thread tells the hooks after the commit, see :mod:`sync_server.webhooks.delivery`. An event's name is
``noun.what_happened``; a hook asks for names, for ``noun.*``, or for ``*``.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from edge_runtime.errors import InputError
from sync_server.access.audit import audit
from sync_server.db import lock_for_transaction, utc_now
from sync_server.webhooks.addresses import parse_url
from sync_server.webhooks.metrics import DELIVERIES
from sync_server.webhooks.models import Webhook, WebhookDelivery

MOST_HOOKS = 50
MOST_QUEUED = 1_000  # a hook; what comes on top is dropped and counted
MOST_BODY_BYTES = 16 * 1024
MOST_PATTERNS = 32

_EVENT = re.compile(r"[a-z][a-z_]{0,31}(\.[a-z][a-z_]{0,31})+")
_WORD = "[a-z][a-z_]{0,31}"
PATTERN = rf"^(\*|{_WORD}(\.{_WORD})*\.\*|{_WORD}(\.{_WORD})+)$"
_PATTERN = re.compile(PATTERN)


class UnknownWebhookError(InputError):
    """There is no such hook, or it was revoked; 404 over HTTP."""


def enqueue(session: Session, event: str, subject: str, detail: Mapping[str, object] | None = None) -> int:
    """Queue an event for every hook that asks for it; it is told if and only if the transaction commits.

    A detail too large to send is left out, and a hook whose queue is full misses the event: telling others never makes
    the transaction fail.

    Args:
        session: The open transaction.
        event: ``noun.what_happened``, such as ``rollout.paused``.
        subject: To what, as in the audit trail: ``channel:stable``, ``device:<id>``, ``incident:12``.
        detail: JSON-ready details without secrets.

    Returns:
        How many hooks will be told.

    Raises:
        ValueError: The event's name breaks the rule, which is a bug of the caller.
    """
    if not _EVENT.fullmatch(event):
        raise ValueError(f"{event!r} is no event")
    hooks = session.scalars(select(Webhook).where(Webhook.revoked_at.is_(None), Webhook.disabled_at.is_(None))).all()
    return sum(_queue(session, hook, event, subject, detail) for hook in hooks if _asks_for(hook.events, event))


def enqueue_test(session: Session, webhook_id: int) -> None:
    """Queue a ``webhook.test`` for one hook, whatever it asks for.

    Raises:
        InputError: It is disabled, or there is no such hook.
    """
    hook = find(session, webhook_id)
    if hook.disabled_at is not None:
        raise InputError(f"Webhook {webhook_id} is disabled.", advice="Enable it first.")
    _queue(session, hook, "webhook.test", f"webhook:{webhook_id}", {})


def _asks_for(patterns: Sequence[str], event: str) -> bool:
    return any(p in ("*", event) or (p.endswith(".*") and event.startswith(p[:-1])) for p in patterns)


def _queue(session: Session, hook: Webhook, event: str, subject: str, detail: Mapping[str, object] | None) -> bool:
    waiting = select(WebhookDelivery.id).where(WebhookDelivery.webhook_id == hook.id).limit(MOST_QUEUED)
    if session.scalar(select(func.count()).select_from(waiting.subquery())) == MOST_QUEUED:
        session.execute(update(Webhook).where(Webhook.id == hook.id).values(dropped=Webhook.dropped + 1))
        DELIVERIES.labels("dropped").inc()
        return False
    now = utc_now()
    event_id, body = new_message(event, subject, detail)
    session.add(
        WebhookDelivery(
            webhook_id=hook.id, event_id=event_id, event=event, body=body, created_at=now, next_try_at=now, attempts=0
        )
    )
    return True


def new_message(event: str, subject: str, detail: Mapping[str, object] | None) -> tuple[str, bytes]:
    """Return a fresh event id and the JSON that tells of an event."""
    event_id = f"evt_{secrets.token_hex(16)}"
    data: dict[str, object] = {"subject": subject, "detail": dict(detail or {})}
    document: dict[str, object] = {"id": event_id, "type": event, "timestamp": utc_now().isoformat(), "data": data}
    body = msgspec.json.encode(document, enc_hook=str)
    if len(body) > MOST_BODY_BYTES:
        document["data"] = {"subject": subject[:1_000], "detail": {}, "detail_left_out": True}
        body = msgspec.json.encode(document)
    return event_id, body


def create(
    session: Session, *, name: str, url: str, events: Sequence[str], allow_private: bool = False, actor: str
) -> Webhook:
    """Make a hook; its secret is :func:`sync_server.webhooks.secret.secret_of` its salt.

    Args:
        session: The open transaction.
        name: What people call it, 1 to 100 printable characters.
        url: Where to, see :mod:`sync_server.webhooks.addresses`.
        events: What it asks for: event names, ``noun.*`` or ``*``.
        allow_private: Whether it may call private addresses, and those by http.
        actor: Who makes it, for the audit trail.

    Raises:
        InputError: A value breaks a rule, or there are too many hooks.
    """
    if not 1 <= len(name) <= 100 or not name.isprintable():
        raise InputError("A webhook's name has 1 to 100 printable characters.", advice="Name who listens.")
    if not 1 <= len(events) <= MOST_PATTERNS or not all(_PATTERN.fullmatch(pattern) for pattern in events):
        raise InputError(
            f"A webhook asks for 1 to {MOST_PATTERNS} events.", advice="Write them as rollout.paused, rollout.* or *."
        )
    target = parse_url(url, allow_private=allow_private)
    lock_for_transaction(session, "webhooks")
    if len(live(session)) >= MOST_HOOKS:
        raise InputError(f"There are {MOST_HOOKS} webhooks already.", advice="Revoke one that nobody needs.")
    now = utc_now()
    hook = Webhook(
        name=name, url=url, events=list(events), salt=secrets.token_bytes(32), allow_private=allow_private,
        created_at=now, next_try_at=now, failures=0, dropped=0,
    )  # fmt: skip
    session.add(hook)
    session.flush()
    # The host alone: many services put their secret into the path.
    audit(session, actor, "webhook.create", f"webhook:{hook.id}", {"host": target.host, "events": list(events)})
    return hook


def live(session: Session) -> Sequence[Webhook]:
    """Return the hooks that are not revoked, disabled ones included, in the order in which they were made."""
    return session.scalars(select(Webhook).where(Webhook.revoked_at.is_(None)).order_by(Webhook.id)).all()


def find(session: Session, webhook_id: int) -> Webhook:
    """Return a hook that is not revoked, locked.

    Raises:
        UnknownWebhookError: There is none.
    """
    statement = select(Webhook).where(Webhook.id == webhook_id, Webhook.revoked_at.is_(None))
    hook = session.scalars(statement.with_for_update(key_share=True)).one_or_none()
    if hook is None:
        raise UnknownWebhookError(f"There is no webhook {webhook_id}.", advice="webhook list shows the numbers.")
    return hook


def revoke(session: Session, webhook_id: int, *, actor: str) -> Webhook:
    """End a hook and forget what it was not told yet.

    Raises:
        UnknownWebhookError: There is no such hook.
    """
    hook = find(session, webhook_id)
    hook.revoked_at = utc_now()
    forget_queue(session, webhook_id)
    audit(session, actor, "webhook.revoke", f"webhook:{webhook_id}")
    return hook


def enable(session: Session, webhook_id: int, *, actor: str) -> Webhook:
    """Let a hook that was disabled for failing hear of events again; of those in between it does not.

    Raises:
        UnknownWebhookError: There is no such hook.
    """
    hook = find(session, webhook_id)
    hook.disabled_at, hook.failing_since, hook.failures, hook.next_try_at = None, None, 0, utc_now()
    audit(session, actor, "webhook.enable", f"webhook:{webhook_id}")
    return hook


def forget_queue(session: Session, webhook_id: int) -> None:
    """Delete what a hook was not told yet."""
    session.execute(delete(WebhookDelivery).where(WebhookDelivery.webhook_id == webhook_id))


def describe(session: Session, hook: Webhook) -> dict[str, Any]:
    """Return a hook for operators, without its secret."""
    waiting = select(func.count()).select_from(WebhookDelivery).where(WebhookDelivery.webhook_id == hook.id)
    return {
        "id": hook.id,
        "name": hook.name,
        "url": hook.url,
        "events": hook.events,
        "state": "disabled" if hook.disabled_at else "failing" if hook.failing_since else "live",
        "created_at": hook.created_at,
        "disabled_at": hook.disabled_at,
        "failing_since": hook.failing_since,
        "last_delivered_at": hook.last_delivered_at,
        "last_error": hook.last_error,
        "queued": session.scalar(waiting) or 0,
        "dropped": hook.dropped,
    }

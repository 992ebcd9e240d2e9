"""Telling the hooks: one thread a worker, one call a hook at a time over all workers.

A worker takes a hook by moving ``next_try_at`` past the longest call, commits, calls without a transaction open, and
writes down what came of it. A worker that dies in between leaves a hook that another takes up later: receivers may
hear of an event twice, and know it by its id. Order is not promised.

Bounds: a failure puts the hook off (30 s, doubling to an hour, half of it by chance) and its event behind the others;
an event is given up after 12 calls or three days; a hook that failed for three days on end, or answers 410 Gone, is
disabled, which the audit trail and ``webhook list`` show.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from dataclasses import dataclass
from datetime import datetime, timedelta

from flask import Flask
from sqlalchemy import delete, exists, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from edge_runtime.errors import InputError, StellaError, TransportError
from sync_server.access.audit import audit
from sync_server.db import Database, utc_now
from sync_server.webhooks import metrics
from sync_server.webhooks.addresses import parse_url
from sync_server.webhooks.models import Webhook, WebhookDelivery
from sync_server.webhooks.secret import load_or_create_key, secret_of, signed_headers
from sync_server.webhooks.sender import post
from sync_server.webhooks.service import forget_queue, new_message

log = logging.getLogger(__name__)

IDLE_SECONDS = 2.0
MOST_ATTEMPTS = 12
MOST_AGE = timedelta(days=3)
DISABLED_AFTER = timedelta(days=3)
_LEASE = timedelta(minutes=2)  # longer than the longest call and the slowest name server
_FIRST_WAIT, _LONGEST_WAIT = 30.0, 3600.0
_GONE = 410


@dataclass(frozen=True, slots=True)
class Call:
    """What a worker took upon itself: copies, since it holds no transaction meanwhile.

    Attributes:
        delivery_id: The queued event's row, None for a trial.
        webhook_id: The hook.
        url: Where to.
        allow_private: Whether private addresses may be called.
        salt: What the hook's secret derives from.
        event_id: The event's identity, which every attempt carries.
        body: The JSON to send.
    """

    delivery_id: int | None
    webhook_id: int
    url: str
    allow_private: bool
    salt: bytes
    event_id: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a call: a status, or why there was none.

    Attributes:
        status: The HTTP status, None when no answer came.
        error: A sentence for people, empty when the receiver took the event.
    """

    status: int | None
    error: str


def take(session: Session, *, now: datetime) -> Call | None:
    """Take the hook that waited longest and its next event, None when nothing is due."""
    due = (WebhookDelivery.webhook_id == Webhook.id) & (WebhookDelivery.next_try_at <= now)
    # NO KEY UPDATE: a transaction that queues an event holds its hook's key, and must not hold its deliveries up.
    free = (Webhook.revoked_at.is_(None), Webhook.disabled_at.is_(None), Webhook.next_try_at <= now)
    hook = session.scalars(
        select(Webhook)
        .where(*free, exists().where(due))
        .order_by(Webhook.next_try_at)
        .limit(1)
        .with_for_update(key_share=True, skip_locked=True)
    ).one_or_none()  # fmt: skip
    if hook is None:
        return None
    mine = WebhookDelivery.webhook_id == hook.id
    old = session.execute(delete(WebhookDelivery).where(mine, WebhookDelivery.created_at < now - MOST_AGE))
    _count_dropped(hook, old.rowcount)  # type: ignore[attr-defined]
    delivery = session.scalars(
        select(WebhookDelivery).where(mine, WebhookDelivery.next_try_at <= now)
        .order_by(WebhookDelivery.next_try_at, WebhookDelivery.id).limit(1)
    ).one_or_none()  # fmt: skip
    if delivery is None:
        return None
    hook.next_try_at = now + _LEASE
    return Call(delivery.id, hook.id, hook.url, hook.allow_private, hook.salt, delivery.event_id, delivery.body)


def trial(hook: Webhook) -> Call:
    """Return a call of a hook with a ``webhook.test`` that waits in no queue."""
    event_id, body = new_message("webhook.test", f"webhook:{hook.id}", None)
    return Call(None, hook.id, hook.url, hook.allow_private, hook.salt, event_id, body)


def call(taken: Call, key: bytes, *, now: datetime) -> Outcome:
    """Call the hook once.

    Args:
        taken: What to send where.
        key: The key that secrets derive from.
        now: The time that the signature carries.
    """
    headers = {
        "Content-Type": "application/json",
        "User-Agent": "stella-sync-server",
        **signed_headers(secret_of(key, taken.salt), taken.event_id, int(now.timestamp()), taken.body),
    }
    begun = time.monotonic()
    try:
        target = parse_url(taken.url, allow_private=taken.allow_private)
        status = post(target, taken.body, headers, allow_private=taken.allow_private)
    except (TransportError, InputError) as error:
        return Outcome(None, error.message)
    finally:
        metrics.DURATION.observe(time.monotonic() - begun)
    if 200 <= status < 300:
        return Outcome(status, "")
    redirect = " Redirects are not followed." if 300 <= status < 400 else ""
    return Outcome(status, f"The receiver answered {status}.{redirect}")


def settle(session: Session, taken: Call, outcome: Outcome, *, now: datetime) -> None:
    """Write down what came of a call. A hook that was revoked meanwhile has nothing left to write to."""
    hook = session.get(Webhook, taken.webhook_id, with_for_update={"key_share": True})
    delivery = session.get(WebhookDelivery, taken.delivery_id)
    if hook is None or delivery is None:
        return
    if not outcome.error:
        session.delete(delivery)
        hook.failures, hook.failing_since, hook.last_error = 0, None, None
        hook.next_try_at = hook.last_delivered_at = now
        metrics.DELIVERIES.labels("delivered").inc()
        return
    metrics.DELIVERIES.labels("failed").inc()
    hook.last_error, hook.failing_since = outcome.error[:500], hook.failing_since or now
    hook.failures += 1
    delivery.attempts += 1
    delivery.next_try_at = hook.next_try_at = now + _wait(hook.failures)
    if delivery.attempts >= MOST_ATTEMPTS:
        session.delete(delivery)
        _count_dropped(hook, 1)
    if outcome.status == _GONE or now - hook.failing_since >= DISABLED_AFTER:
        _disable(session, hook, now)


def _wait(failures: int) -> timedelta:
    """Doubling, half of it by chance, so that hooks that failed together do not come back together."""
    longest = min(_FIRST_WAIT * 2 ** min(failures - 1, 20), _LONGEST_WAIT)
    return timedelta(seconds=random.uniform(longest / 2, longest))  # noqa: S311 - spreads load, guards nothing


def _count_dropped(hook: Webhook, count: int) -> None:
    if count:
        hook.dropped += count
        metrics.DELIVERIES.labels("dropped").inc(count)


def _disable(session: Session, hook: Webhook, now: datetime) -> None:
    hook.disabled_at = now
    session.flush()
    forget_queue(session, hook.id)
    audit(session, "server", "webhook.disable", f"webhook:{hook.id}", {"reason": hook.last_error})
    log.warning("webhook %s is disabled: %s", hook.id, hook.last_error)


def deliver_one(database: Database, key: bytes) -> bool:
    """Take one event that is due, tell its hook, and write down what came of it.

    Returns:
        Whether there was one.
    """
    taken = database.run(lambda session: take(session, now=utc_now()))
    if taken is None:
        return False
    outcome = call(taken, key, now=utc_now())
    database.run(lambda session: settle(session, taken, outcome, now=utc_now()))
    return True


def start_deliveries(app: Flask) -> threading.Event:
    """Start the thread for a worker's app, and return the event that ends it."""
    stop = threading.Event()
    database: Database = app.extensions["database"]
    path = app.extensions["config"].webhooks_key_path

    def loop() -> None:
        while not stop.is_set():
            try:
                busy = deliver_one(database, load_or_create_key(path))
            except (StellaError, SQLAlchemyError) as error:
                log.error("webhooks wait: %s", str(error).splitlines()[0])
                busy = False
            # A fault over one event must not end this worker's deliveries for good.
            except Exception:
                log.exception("webhooks wait after a fault")
                busy = False
            if not busy:
                stop.wait(IDLE_SECONDS)

    threading.Thread(target=loop, name="webhooks", daemon=True).start()
    return stop

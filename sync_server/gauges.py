"""Figures of the whole fleet for ``/metrics``, from the database: asked once a minute a worker, however often scraped.

A database that is away makes ``database_up`` 0 and leaves the other figures out; they are never made up from the last
ones.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session

from sync_server.db import Database

KEPT_SECONDS = 60.0
_STATEMENT_MS = 5_000

# Demo devices, which live in a browser tab, are not the fleet.
_DEVICES = """
SELECT count(*) FILTER (WHERE last_seen_at > now() - interval '1 hour'),
       count(*) FILTER (WHERE last_seen_at <= now() - interval '1 hour' AND last_seen_at > now() - interval '1 day'),
       count(*) FILTER (WHERE last_seen_at <= now() - interval '1 day' AND last_seen_at > now() - interval '7 days'),
       count(*) FILTER (WHERE last_seen_at <= now() - interval '7 days')
FROM devices WHERE revoked_at IS NULL AND kind = 'edge'
"""
_AGES = ("hour", "day", "week", "older")
_INCIDENTS = "SELECT status, count(*) FROM incidents WHERE status IN ('open', 'acknowledged') GROUP BY status"
_WEBHOOKS = "SELECT count(*), extract(epoch FROM now() - min(created_at))::float8 FROM webhook_deliveries"
_DISABLED = "SELECT count(*) FROM webhooks WHERE revoked_at IS NULL AND disabled_at IS NOT NULL"
_METADATA = """
SELECT DISTINCT ON (role)
       role, extract(epoch FROM (convert_from(body, 'UTF8')::json -> 'signed' ->> 'expires')::timestamptz)::float8
FROM tuf_metadata ORDER BY role, version DESC
"""


class Collector:
    """Asks the database, or repeats what it said less than a minute ago; one a process, for all its threads.

    Args:
        database: The database.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = threading.Lock()
        self._asked = 0.0
        self._figures: list[Metric] = []

    def collect(self) -> Iterator[Metric]:
        """Return the figures, and whether the database answers."""
        up = GaugeMetricFamily("database_up", "Whether the database answered.")
        figures: Iterable[Metric] = ()
        try:
            figures = self._kept()
            up.add_metric((), 1)
        except (DBAPIError, PoolTimeout):
            up.add_metric((), 0)
        yield up
        yield from figures

    def _kept(self) -> list[Metric]:
        with self._lock:
            if not self._figures or time.monotonic() - self._asked > KEPT_SECONDS:
                self._figures = []
                with self._database.session() as session:
                    session.execute(text(f"SET LOCAL statement_timeout = {_STATEMENT_MS}"))
                    self._figures = list(_ask(session))
                self._asked = time.monotonic()
            return self._figures


def _ask(session: Session) -> Iterator[Metric]:
    devices = GaugeMetricFamily("fleet_devices", "Devices by when they were last heard of.", labels=["last_seen"])
    for age, count in zip(_AGES, session.execute(text(_DEVICES)).one(), strict=True):
        devices.add_metric((age,), count)
    yield devices
    incidents = GaugeMetricFamily("fleet_incidents", "Incidents that nobody has resolved.", labels=["status"])
    counts = {row[0]: row[1] for row in session.execute(text(_INCIDENTS))}
    for status in ("open", "acknowledged"):
        incidents.add_metric((status,), counts.get(status, 0))
    yield incidents
    queued, oldest = session.execute(text(_WEBHOOKS)).one()
    yield GaugeMetricFamily("webhook_queue_length", "Events that wait for a webhook.", value=queued)
    yield GaugeMetricFamily("webhook_queue_age_seconds", "How long the oldest of them waits.", value=oldest or 0.0)
    disabled = session.execute(text(_DISABLED)).scalar_one()
    yield GaugeMetricFamily("webhooks_disabled", "Webhooks that were disabled for failing.", value=disabled)
    expiry = GaugeMetricFamily(
        "repository_metadata_expiry_timestamp_seconds", "When signed metadata ends, Unix time.", labels=["role"]
    )
    for role, ends in session.execute(text(_METADATA)):
        expiry.add_metric((role,), ends)
    yield expiry

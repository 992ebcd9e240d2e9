"""Advice for one incident: the cached text, or the template while an endpoint writes one.

::

    text for the pattern is valid ─► it                                  hit
    nobody may ask yet            ─► the older text, or the template     stale, waiting, failed
    this request gets the claim   ─► a thread asks the endpoint; the request waits for it a moment,
                                     then shows what there is            miss, stale

A request never waits longer than ``advice_wait_ms``; the thread ends what it began, and the next request has the text.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any, cast

from flask import Flask, current_app
from sqlalchemy import text as sql
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from sync_server.advice import store, templates
from sync_server.advice.endpoint import Endpoint, EndpointError, ask
from sync_server.advice.metrics import CALL_SECONDS, CALLS, LOOKUPS
from sync_server.advice.models import AdviceText
from sync_server.advice.patterns import Finding, Pattern, find
from sync_server.config import ServerConfig
from sync_server.db import Database, utc_now
from sync_server.errors import RequestError

log = logging.getLogger(__name__)

EXTENSION = "advice"
_INCIDENT = sql("""
    SELECT i.contributions, i.peak_score, i.windows, i.ended_at_ms, b.manifest
    FROM incidents i LEFT JOIN bundles b ON b.digest = i.bundle WHERE i.id = :id
""")


@dataclass(frozen=True, slots=True)
class Advice:
    """What is shown.

    Attributes:
        text: Plain text; it holds no markup, and whoever puts it into a page escapes it all the same.
        source: ``template`` or ``endpoint``.
        state: ``hit``, ``stale``, ``miss``, ``waiting``, ``failed``, ``limited`` or ``off`` (metrics explain them).
        pattern: What it is about, None when nothing signed tells.
        written_by: The endpoint's model, None for a template.
        written_at: When, None for a template.
    """

    text: str
    source: str
    state: str
    pattern: Pattern | None
    written_by: str | None = None
    written_at: datetime | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the advice as JSON-ready fields."""
        return {
            "text": self.text,
            "source": self.source,
            "state": self.state,
            "pattern": None if self.pattern is None else self.pattern.to_dict(),
            "written_by": self.written_by,
            "written_at": self.written_at,
        }


class AdviceDesk:
    """Advice of one worker.

    Args:
        config: The settings.
        database: The database.
    """

    def __init__(self, config: ServerConfig, database: Database) -> None:
        self._database = database
        self._wait_seconds = config.advice_wait_ms / 1000
        self._valid = timedelta(days=config.advice_days)
        self._calls_per_hour = config.advice_calls_per_hour
        self._endpoint = None
        if config.advice_url and config.advice_model:
            self._endpoint = Endpoint(
                config.advice_url, config.advice_model, config.advice_key_file, config.advice_seconds
            )

    def advise(self, incident_id: int) -> Advice:
        """Return advice for an incident.

        Raises:
            RequestError: 404, there is none.
        """
        endpoint, row = self._endpoint, None
        with self._database.session() as session:
            finding = _finding(session, incident_id)
            if finding is not None and endpoint is not None:
                row = store.find_text(session, finding.pattern.key(endpoint.writer))
        if finding is None or endpoint is None:
            return _counted(Advice(_template(finding), "template", "off", None if finding is None else finding.pattern))
        if row is not None and row.not_before > utc_now():
            return _counted(_from_row(row, finding))
        return _counted(self._have_written(endpoint, finding, row))

    def _have_written(self, endpoint: Endpoint, finding: Finding, row: AdviceText | None) -> Advice:
        """Ask the endpoint if this request may, and return what there is when the wait is over."""
        pattern, key = finding.pattern, finding.pattern.key(endpoint.writer)
        claim = self._claim(key, pattern, endpoint)
        if claim.word is None:
            return _older(row, finding, claim.refused)
        future = Future[str]()
        # As many threads as there are claims in the time of a call: the bound on calls bounds them.
        work = (endpoint, pattern, key, claim.word, future)
        threading.Thread(target=self._write, args=work, name="advice", daemon=True).start()
        try:
            written = future.result(self._wait_seconds)
        except (TimeoutError, EndpointError):
            return _older(row, finding, "miss")
        return Advice(written, "endpoint", "miss", pattern, endpoint.model, utc_now())

    def _claim(self, key: str, pattern: Pattern, endpoint: Endpoint) -> store.Claim:
        # Connecting, the answer's head and its body may each take the longest time.
        lease = timedelta(seconds=3 * endpoint.seconds + 5)
        with self._database.session() as session:
            return store.claim(session, key, pattern, now=utc_now(), lease=lease, calls_per_hour=self._calls_per_hour)

    def _write(self, endpoint: Endpoint, pattern: Pattern, key: str, held: str, future: Future[str]) -> None:
        """Ask, and keep what comes of it; runs in a thread of its own."""
        started = time.monotonic()
        try:
            written = ask(endpoint, pattern)
        except EndpointError as failure:
            log.warning("the advice endpoint failed: %s", failure.reason)
            CALLS.labels(failure.reason).inc()
            self._keep(partial(store.keep_failure, key=key, held=held, failure=failure, now=utc_now()))
            future.set_exception(failure)
        else:
            CALLS.labels("written").inc()
            kept = store.Written(written, endpoint.model, self._valid)
            self._keep(partial(store.keep_text, key=key, held=held, written=kept, now=utc_now()))
            future.set_result(written)
        finally:
            CALL_SECONDS.observe(time.monotonic() - started)

    def _keep(self, work: Callable[[Session], None]) -> None:
        try:
            self._database.run(work)
        except SQLAlchemyError as error:  # the claim ends by itself, and somebody asks again
            log.warning("advice could not be kept: %s", str(error).splitlines()[0])


def _finding(session: Session, incident_id: int) -> Finding | None:
    row = session.execute(_INCIDENT, {"id": incident_id}).mappings().one_or_none()
    if row is None:
        raise RequestError(
            404, "incident_not_found", f"There is no incident {incident_id}.", advice="Check the number."
        )
    return find(dict(row), row["manifest"])


def _template(finding: Finding | None) -> str:
    return templates.UNKNOWN if finding is None else templates.write(finding)


def _from_row(row: AdviceText, finding: Finding) -> Advice:
    if row.state == "written" and row.text is not None:
        return Advice(row.text, "endpoint", "hit", finding.pattern, row.written_by, row.written_at)
    return _older(row, finding, "failed" if row.state == "failed" else "waiting")


def _older(row: AdviceText | None, finding: Finding, state: str) -> Advice:
    """Return the text from before, else the template."""
    if row is not None and row.text is not None:
        return Advice(row.text, "endpoint", "stale", finding.pattern, row.written_by, row.written_at)
    return Advice(templates.write(finding), "template", state, finding.pattern)


def _counted(advice: Advice) -> Advice:
    LOOKUPS.labels(advice.state).inc()
    return advice


def install(app: Flask) -> None:
    """Give an app its advice."""
    extensions: dict[str, Any] = app.extensions
    extensions[EXTENSION] = AdviceDesk(extensions["config"], extensions["database"])


def current_desk() -> AdviceDesk:
    """The current app's advice; needs an app context."""
    return cast("AdviceDesk", current_app.extensions[EXTENSION])

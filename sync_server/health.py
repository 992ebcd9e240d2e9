"""``/health`` (the process lives) and ``/health/ready`` (it can serve), for balancers and people.

A room that needs something to serve adds a check while its blueprint is set up::

    @blueprint.record
    def _ready(state: BlueprintSetupState) -> None:
        register(state.app, "scoring", model_is_warm)     # raises a StellaError when it is not

What a check found is kept for a few seconds: balancers ask often, and an object store wants to be paid for answers.
Bad news is kept for a second only: a worker whose models were just loaded should not be kept out for longer than that.
"""

from __future__ import annotations

import functools
import logging
import threading
import time
from collections.abc import Callable
from typing import cast

from flask import Blueprint, Response, current_app
from flask.sansio.app import App
from flask.sansio.blueprints import BlueprintSetupState
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from edge_runtime.errors import StellaError, StorageError, TrustError
from sync_server.app_state import get_blobs, get_config
from sync_server.db import session_scope
from sync_server.http import json_response, problem_response
from sync_server.migrations import head
from sync_server.repository import metadata
from sync_server.repository.online_key import check_root_names, load

log = logging.getLogger(__name__)
blueprint = Blueprint("health", __name__)

KEPT_SECONDS = 5.0
KEPT_SECONDS_WHEN_NOT_READY = 1.0
Check = Callable[[], None]


class _Checks:
    """The checks of one app, and what they found last."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.all: dict[str, Check] = {}
        self._clock = clock
        self._lock = threading.Lock()
        self._found: dict[str, str] = {}
        self._until = float("-inf")

    def found(self) -> dict[str, str]:
        """Return ``ok`` or a sentence for each check; threads that ask meanwhile wait for the same answer."""
        with self._lock:
            if self._clock() > self._until:
                self._found = {name: _run(name, check) for name, check in self.all.items()}
                self._until = self._clock() + _kept_seconds(self._found)
            return self._found


def _kept_seconds(found: dict[str, str]) -> float:
    return KEPT_SECONDS if all(text == "ok" for text in found.values()) else KEPT_SECONDS_WHEN_NOT_READY


def _run(name: str, check: Check) -> str:
    try:
        check()
    except StellaError as error:
        log.warning("not ready: %s: %s", name, error)
        return error.message
    except (DBAPIError, PoolTimeout) as error:
        log.warning("not ready: %s: %s", name, str(error).splitlines()[0])
        return "The database does not answer."
    return "ok"


def register(app: App, name: str, check: Check) -> None:
    """Add a check to ``/health/ready``.

    Args:
        app: The application.
        name: What it is of, such as ``scoring``.
        check: Called in an app context; raises a StellaError whose message strangers may read when it is not ready.
    """
    cast("_Checks", app.extensions.setdefault("readiness", _Checks())).all[name] = check


def _database() -> None:
    """The schema is at least this program's: a newer one is a newer server's, which only adds."""
    with session_scope() as session:
        version = session.execute(text("SELECT version_num FROM alembic_version")).scalar()
    if version is None or version < _head():
        raise StorageError("The database's schema is older than this program.", advice="Run: sync-server migrate")


@functools.cache
def _head() -> str:
    return head()


def _blobs() -> None:
    get_blobs().check()


def _online_key() -> None:
    """The key is there and is, once something was published, the one in root."""
    try:
        key = load(get_config().online_key_path)
        with session_scope() as session:
            if metadata.latest(session, "root") is not None:
                check_root_names(metadata.current_root(session), key)
    except (StorageError, TrustError) as error:
        log.warning("%s", error)
        raise StorageError("The online key cannot be used; the server's log says why.") from error


@blueprint.record
def _own_checks(state: BlueprintSetupState) -> None:
    for name, check in (("database", _database), ("blobs", _blobs), ("online_key", _online_key)):
        register(state.app, name, check)


@blueprint.get("/health")
def health() -> Response:
    """Answer 200 as long as the process serves; needs no database."""
    return json_response({"status": "ok"})


@blueprint.get("/health/ready")
def ready() -> Response:
    """Answer 200 when everything that requests need is there, else 503; both say what was found."""
    checks = cast("_Checks", current_app.extensions["readiness"]).found()
    if all(found == "ok" for found in checks.values()):
        return json_response({"status": "ready", "checks": checks})
    return problem_response(
        503, "not_ready", "The server cannot serve yet: see checks.", retry_after_seconds=5, checks=checks
    )

"""The fleet's state, counted anew for each request while that is quick, and kept for moments where it is not.

It takes one pass over the devices: milliseconds for ten thousand, half a second for a million. What took long is kept
ten times as long as it took, so that many viewers cost a worker at most a tenth of one core; ``counted_at`` says how
old it is. Meanwhile one request counts and the others wait for it. A small fleet is never shown a number that is old.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, cast

from flask import current_app
from flask.sansio.blueprints import BlueprintSetupState
from sqlalchemy.orm import Session

from sync_server.dashboard.figures import stats
from sync_server.db import utc_now

QUICK_SECONDS = 0.25
KEPT_TIMES = 10
_NAME = "fleet_state"


class KeptState:
    """One worker's copy of what was counted.

    Args:
        clock: Seconds that only grow.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._value: dict[str, Any] | None = None
        self._until = 0.0

    def get(self, count: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Return what was kept, or count and keep it for as long as it deserves."""
        with self._lock:
            if self._value is None or self._clock() >= self._until:
                began = self._clock()
                self._value = count()
                took = self._clock() - began
                self._until = began + took + (KEPT_TIMES * took if took > QUICK_SECONDS else 0.0)
            return self._value


def install(setup: BlueprintSetupState) -> None:
    """Give the app of a blueprint, and so each worker, a copy of its own."""
    setup.app.extensions[_NAME] = KeptState()


def fleet_state(session: Session) -> dict[str, Any]:
    """Return :func:`~sync_server.dashboard.figures.stats` with ``counted_at``, at most moments old."""

    def count() -> dict[str, Any]:
        now = utc_now()
        return {**stats(session, now=now), "counted_at": now}

    return cast("KeptState", current_app.extensions[_NAME]).get(count)

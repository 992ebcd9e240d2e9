"""The agent's errands: sync, upload and status, each when its time has come, whatever the network does.

Runs in a thread of its own beside scoring, so that a silent server never holds a reading up.

Example::

    rounds = Rounds(device, config, stop=event, on_activated=feed.turn)
    rounds.start()
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable

from edge_runtime.backoff import jittered, retry_delay
from edge_runtime.config import Config
from edge_runtime.device import EnrolledDevice
from edge_runtime.device_status import report_status
from edge_runtime.edge_db import EdgeDatabase
from edge_runtime.errors import StellaError, TransportError
from edge_runtime.outbox import Outbox
from edge_runtime.sync import synchronise
from edge_runtime.upload import upload_all

log = logging.getLogger(__name__)

# Summaries close by themselves after their hour; the current hour is sent this often, not with every upload.
SUMMARY_SECONDS = 900.0


class Errand:
    """One thing that is done at intervals, and sooner or later after a failure.

    Args:
        interval_seconds: Time between two successes.
        clock: Monotonic seconds.
        draw: Uniform numbers in [0, 1).
    """

    def __init__(self, interval_seconds: float, clock: Callable[[], float], draw: Callable[[], float]) -> None:
        self._interval = interval_seconds
        self._clock = clock
        self._draw = draw
        self._failures = 0
        self.due_at = clock()

    def succeeded(self) -> None:
        """Plan the next regular time."""
        self._failures = 0
        self.due_at = self._clock() + jittered(self._interval, self._draw())

    def failed(self, error: StellaError) -> float:
        """Plan the next attempt; returns the seconds until then."""
        self._failures += 1
        asked = error.retry_after_seconds if isinstance(error, TransportError) else None
        delay = retry_delay(self._failures, asked, self._draw())
        self.due_at = self._clock() + delay
        return delay

    def is_due(self) -> bool:
        """Say whether its time has come."""
        return self._clock() >= self.due_at


class Rounds(threading.Thread):
    """Sync, upload and status in a loop until stopped.

    Args:
        device: The opened device.
        config: Intervals and batch size.
        stop: Set from outside to end the loop.
        on_activated: Called when another bundle has become active.
        on_end: Called when the loop ends, however it ends.
    """

    def __init__(
        self,
        device: EnrolledDevice,
        config: Config,
        *,
        stop: threading.Event,
        on_activated: Callable[[], None],
        on_end: Callable[[], None],
    ) -> None:
        super().__init__(name="rounds", daemon=True)
        self.bug: BaseException | None = None
        self.failures = 0
        self._device = device
        self._config = config
        self._stop_event = stop
        self._on_activated = on_activated
        self._on_end = on_end
        self._sync = Errand(config.sync_interval_seconds, time.monotonic, random.random)
        self._upload = Errand(config.upload_interval_seconds, time.monotonic, random.random)
        self._summaries_at = time.monotonic() + SUMMARY_SECONDS

    def run(self) -> None:
        """Do the rounds; an error that is none of ours ends them and is kept for the main thread."""
        try:
            with EdgeDatabase(self._device.home.database) as database:
                while not self._stop_event.is_set():
                    self.round(database)
                    next_at = min(self._sync.due_at, self._upload.due_at)
                    self._stop_event.wait(max(0.0, next_at - time.monotonic()))
        except BaseException as error:  # noqa: BLE001 - raised again by the main thread: a thread must not die unseen
            self.bug = error
        finally:
            self._on_end()

    def round(self, database: EdgeDatabase) -> None:
        """Do what is due."""
        if self._sync.is_due():
            self._do_sync(database)
        if self._upload.is_due() and not self._stop_event.is_set():
            self._do_upload(database)

    def last_upload(self) -> None:
        """Send what the end of the input left; the caller has stopped the loop."""
        with EdgeDatabase(self._device.home.database) as database:
            self._summaries_at = 0.0
            self._do_upload(database)

    def _do_sync(self, database: EdgeDatabase) -> None:
        try:
            report = synchronise(self._device, Outbox(database))
        except StellaError as error:
            self._failed("sync", self._sync, error)
            return
        if report.error is not None:
            self._failed("sync", self._sync, report.error)
            return
        self._sync.succeeded()
        if report.outcome.outcome == "activated":
            log.info("%s", report.outcome.message)
            self._on_activated()

    def _do_upload(self, database: EdgeDatabase) -> None:
        close_summaries = time.monotonic() >= self._summaries_at
        try:
            report = upload_all(
                self._device, database, batch_records=self._config.batch_records, close_summaries=close_summaries
            )
            report_status(self._device, database)
        except StellaError as error:
            self._failed("upload", self._upload, error)
            return
        if close_summaries:
            self._summaries_at = time.monotonic() + SUMMARY_SECONDS
        self._upload.succeeded()
        if report.requests:
            log.info("%d records are on the server, %d were refused", report.acknowledged, report.refused)

    def _failed(self, what: str, errand: Errand, error: StellaError) -> None:
        self.failures += 1
        log.warning("%s: %s Next attempt in %.0f s.", what, error, errand.failed(error))

"""The agent: scores what comes in, while its rounds sync and upload beside it, until it is told to stop.

A server that is away, lies or answers nonsense changes nothing here; a full disk makes scoring wait and try again.
Signals that a later release asks for and the readings lack are missing values and an event. A model that cannot
score, columns that are missing at the very first start, or a bug end the agent with an error, for a supervisor to see.

Example::

    with open_device(config) as device, device.home.lock("run"):
        report = Agent(device, config).run()
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from types import FrameType
from typing import BinaryIO

from edge_runtime.bundle_store import ActiveBundle
from edge_runtime.config import Config
from edge_runtime.contract.result import DetailValue, Event
from edge_runtime.device import EnrolledDevice, now_ms
from edge_runtime.device_scoring import bundle_to_score_with
from edge_runtime.edge_db import EdgeDatabase
from edge_runtime.errors import InputError, ScoringError, StorageError
from edge_runtime.feed import Feed
from edge_runtime.freshness import Freshness
from edge_runtime.outbox import Outbox
from edge_runtime.reading_scorer import ReadingScorer
from edge_runtime.readings import ReadingGroup
from edge_runtime.rounds import Rounds
from edge_runtime.scoring_status import scoring_status
from edge_runtime.stopping import signals_to
from edge_runtime.telemetry import Telemetry

log = logging.getLogger(__name__)

# How long a stopped agent waits for a request that is under way; everything it could cut short survives a kill.
STOP_SECONDS = 5.0
# How often a device without a bundle, or with a full disk, looks again.
RETRY_SECONDS = 2.0
# What the contract lets a text in an event's detail have.
MAX_DETAIL_CHARACTERS = 512


@dataclass(frozen=True, slots=True)
class AgentReport:
    """What a run did.

    Attributes:
        outcomes: Readings by what became of them (``scored``, ``warming_up``, ``late``, ...).
        anomalies: Verdicts that were anomalies.
        failures: Syncs and uploads that failed and were planned again.
    """

    outcomes: dict[str, int]
    anomalies: int
    failures: int


class Agent:
    """One device at work.

    Args:
        device: The opened device; the caller holds its home's lock.
        config: Intervals, batch size, the file of readings.
    """

    def __init__(self, device: EnrolledDevice, config: Config) -> None:
        self._device = device
        self._stop = threading.Event()
        self._feed = Feed(config.readings)
        self._outcomes: Counter[str] = Counter()
        self._anomalies = 0
        self._freshness = Freshness(device.home.trust)
        self._noted: tuple[str, tuple[str, ...]] | None = None
        self._activated = threading.Event()
        self._rounds = Rounds(device, config, stop=self._stop, on_activated=self._on_activated, on_end=self._feed.stop)

    def stop(self, _signal: int = 0, _frame: FrameType | None = None) -> None:
        """End the run: what has been read is scored, then the agent leaves. Safe as a signal handler."""
        self._stop.set()
        self._activated.set()
        self._feed.stop()

    def run(self) -> AgentReport:
        """Work until the input ends or somebody says stop.

        Returns:
            What was done.

        Raises:
            InputError: The readings cannot be read, or lack columns of the bundle.
            ScoringError: The active model cannot be loaded or fails.
            StorageError: The device's database cannot be opened.
        """
        with self._feed, EdgeDatabase(self._device.home.database) as database, signals_to(self.stop):
            self._rounds.start()
            try:
                while (stream := self._feed.next_stream()) is not None:
                    with stream:
                        self._score_stream(stream, database)
            finally:
                told_to_stop = self._stop.is_set()
                self.stop()
                self._rounds.join(STOP_SECONDS)
        if self._rounds.bug is not None:
            raise self._rounds.bug
        if not told_to_stop and not self._rounds.is_alive():
            self._rounds.last_upload()  # standard input has ended: what it gave belongs on the server
        return AgentReport(dict(self._outcomes), self._anomalies, self._rounds.failures)

    def _on_activated(self) -> None:
        self._activated.set()
        self._feed.turn()

    def _score_stream(self, stream: BinaryIO, database: EdgeDatabase) -> None:
        bundle = self._wait_for_bundle()
        if bundle is None:
            return
        scorer = ReadingScorer(database, bundle, is_stale=self._freshness.is_stale)
        telemetry = Telemetry(
            stream,
            [signal.name for signal in bundle.manifest.signals],
            name=self._feed.name,
            # A release that adds signals must not end the work of a device that cannot give them: nobody is there
            # to read the refusal. A device that never scored anything has a person in front of it.
            allow_missing_signals=scoring_status(database)["newest_reading_ms"] is not None,
        )
        try:
            for group, aside in telemetry.groups():
                self._note_missing(telemetry.report.missing_signals, bundle.digest, database)
                self._score_group(scorer, group, aside)
        except InputError as error:
            # A file without one reading is refused; a stretch of a stream without one is silence, or lines that were
            # set aside and counted. Columns that are missing stay an error.
            if not {"empty", "set_aside"} & error.fields.keys():
                raise
            log.info("%s", error.message)

    def _note_missing(self, missing: tuple[str, ...], digest: str, database: EdgeDatabase) -> None:
        if not missing or (digest, missing) == self._noted:
            return
        self._noted = (digest, missing)
        log.warning("%s lacks signals of the active bundle, scored as missing: %s", self._feed.name, ", ".join(missing))
        detail: dict[str, DetailValue] = {"signals": ", ".join(missing)[:MAX_DETAIL_CHARACTERS], "count": len(missing)}
        with contextlib.suppress(StorageError):  # a full disk: the readings wait for room, and this note is for once
            Outbox(database).append([Event(0, digest, now_ms(), "signals_missing", detail)])

    def _wait_for_bundle(self) -> ActiveBundle | None:
        told = ""
        while True:
            self._activated.clear()
            news = "no bundle to score with yet; readings wait until a sync has brought one"
            try:
                bundle = bundle_to_score_with(self._device.home, self._device.store)
            except (StorageError, ScoringError) as error:
                bundle, news = None, f"{error} Readings wait."
            if bundle is not None or self._stop.is_set():
                return bundle
            if news != told:
                log.warning("%s", news)
                told = news
            self._activated.wait(RETRY_SECONDS)

    def _score_group(self, scorer: ReadingScorer, group: ReadingGroup, aside: Mapping[str, int]) -> None:
        while True:
            try:
                verdicts = scorer.score(group, aside)
            except StorageError as error:
                if self._stop.is_set():
                    raise
                log.warning("%s The readings wait; next attempt in %.0f s.", error, RETRY_SECONDS)
                self._stop.wait(RETRY_SECONDS)
                continue
            break
        self._outcomes.update(verdict.outcome for verdict in verdicts)
        anomalies = sum(bool(verdict.is_anomaly) for verdict in verdicts)
        self._anomalies += anomalies
        if anomalies:
            log.info("%d of %d readings are anomalous", anomalies, len(verdicts))

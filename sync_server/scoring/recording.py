"""The challenger: scores beside the champion, after the answer, and both verdicts are kept.

A request's windows go into a short queue that one thread of the worker empties. What does not fit is dropped and
counted: the answer waits for nothing of it, and a challenger that is slow, broken or missing costs samples and never
an answer. What waits in the queue when a worker ends is lost, which for samples is nothing.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import msgspec
from sqlalchemy import insert
from sqlalchemy.exc import SQLAlchemyError

from edge_runtime.errors import ScoringError
from edge_runtime.scoring import Verdicts
from sync_server.db import Database, utc_now
from sync_server.errors import RequestError
from sync_server.scoring.cutting import Cut, cut
from sync_server.scoring.inference import Judged, judge
from sync_server.scoring.metrics import COMPARED
from sync_server.scoring.models import ScoredWindow
from sync_server.scoring.requests import ScoreRequest

if TYPE_CHECKING:
    from sync_server.scoring.listing import Choice
    from sync_server.scoring.loading import LoadedModel

log = logging.getLogger(__name__)

# Requests that wait, each with at most MAX_KEPT windows.
MAX_WAITING = 64
# Values that they hold together: 128 MB where all are readings as they came (8 bytes a place and 24 a float).
MAX_WAITING_CELLS = 4 * 1024 * 1024
# Windows of one request that are kept, the newest ones.
MAX_KEPT = 32
# A larger window is scored twice and compared, but not kept.
MAX_WINDOW_BYTES = 64 * 1024

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Job:
    """A request whose windows are kept, and scored by a challenger where there is one.

    Attributes:
        asked: The request: a challenger may cut its windows by another rule. Without its values once it waits and
            there is no challenger.
        channel: The channel.
        device_id: The device that asked, None for an operator.
        cohort: Whose bundle was asked for.
        champion: The model that answered.
        cut: Its windows.
        judged: Its verdicts.
        challenger: The bundle that scores as well, None to keep the windows only.
    """

    asked: ScoreRequest
    channel: str
    device_id: str | None
    cohort: str | None
    champion: LoadedModel
    cut: Cut
    judged: Judged
    challenger: Choice | None


class Recorder:
    """One worker's queue and the thread that empties it, which starts with the first job.

    Args:
        database: Where rows go.
        load: Returns the model of a bundle; raises RequestError when it cannot be used.
    """

    def __init__(self, database: Database, load: Callable[[Choice], LoadedModel]) -> None:
        self._database = database
        self._load = load
        self._waiting: queue.Queue[Job] = queue.Queue(MAX_WAITING)
        self._cells = 0
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def offer(self, job: Job) -> None:
        """Take a job with at least one verdict unless too much waits; returns at once."""
        job = trimmed(job)
        with self._lock:
            if not self._take(job):
                COMPARED.labels("dropped").inc(len(job.judged.rows))
            if self._thread is None or not self._thread.is_alive():  # a bug may have ended it
                self._thread = threading.Thread(target=self._work, name="challenger", daemon=True)
                self._thread.start()

    def _take(self, job: Job) -> bool:
        """Queue a job where its values fit beside those of the others; alone, any job fits."""
        cells = cells_of(job)
        if self._cells and self._cells + cells > MAX_WAITING_CELLS:
            return False
        try:
            self._waiting.put_nowait(job)
        except queue.Full:
            return False
        self._cells += cells
        return True

    def wait(self) -> None:
        """Wait until nothing waits any more."""
        self._waiting.join()

    def _work(self) -> None:
        while True:
            job = self._waiting.get()
            try:
                self._keep(rows_of(job, self._load))
            finally:
                with self._lock:
                    self._cells -= cells_of(job)
                self._waiting.task_done()

    def _keep(self, rows: Sequence[Row]) -> None:
        if not rows:
            return
        try:
            with self._database.session() as session:
                session.execute(insert(ScoredWindow), rows)
        except SQLAlchemyError as error:
            log.warning("%d scored windows could not be kept: %s", len(rows), str(error).splitlines()[0])
            COMPARED.labels("not_stored").inc(len(rows))


def trimmed(job: Job) -> Job:
    """Return copies of what a job needs: the newest windows with a verdict, and of the request what cuts those anew.

    Readings stay whole beside a challenger: how far back it looks is known when it is loaded. Without one nothing is
    cut anew.

    Args:
        job: A job with at least one verdict.
    """
    judged, windows = job.judged, job.cut
    first = max(0, len(judged.rows) - MAX_KEPT)
    start, verdicts = judged.rows[first], judged.verdicts
    asked = msgspec.structs.replace(
        job.asked,
        windows=None if job.challenger is None or job.asked.windows is None else job.asked.windows[start:],
        readings=None if job.challenger is None else job.asked.readings,
        last=len(windows.windows) - start,
    )
    rows = tuple(row - start for row in judged.rows[first:])
    newest = Verdicts(
        verdicts.anomaly_score[first:].copy(), verdicts.raw_score[first:].copy(), verdicts.is_anomaly[first:].copy()
    )
    seconds = judged.seconds * len(rows) / len(judged.rows)
    kept = replace(
        windows, windows=windows.windows[start:].copy(), filled=windows.filled[start:].copy(),
        observed_at_ms=windows.observed_at_ms[start:],
    )  # fmt: skip
    return replace(job, asked=asked, cut=kept, judged=Judged(rows, newest, seconds))


def cells_of(job: Job) -> int:
    """Return how many values a job holds on to: its windows, and those of its request."""
    cells = job.cut.windows.size
    if job.asked.readings is not None:
        columns = job.asked.readings.signals.values()
        return cells + len(job.asked.readings.observed_at_ms) + sum(map(len, columns))
    return cells if job.asked.windows is None else 2 * cells


def rows_of(job: Job, load: Callable[[Choice], LoadedModel]) -> list[Row]:
    """Return the rows of a trimmed job's windows, scored by the challenger where there is one."""
    judged = job.judged
    share_us = round(judged.seconds * 1e6 / max(1, len(judged.rows)))
    rows = [_champion_row(job, place, share_us) for place in range(len(judged.rows))]
    if job.challenger is None:
        return rows
    for row, columns in zip(rows, _challenge(job, job.challenger, load, judged.rows), strict=True):
        COMPARED.labels("failed" if "challenger_error" in columns else "compared").inc()
        row |= {"challenger": job.challenger.digest, **columns}
    return rows


def _champion_row(job: Job, place: int, share_us: int) -> Row:
    number, verdicts = job.judged.rows[place], job.judged.verdicts
    window = job.cut.windows[number]
    return {
        "scored_at": utc_now(),
        "channel": job.channel,
        "device_id": job.device_id,
        "cohort": job.cohort,
        "observed_at_ms": job.cut.observed_at_ms[number],
        "champion": job.champion.digest,
        "champion_score": float(verdicts.anomaly_score[place]),
        "champion_raw": float(verdicts.raw_score[place]),
        "champion_anomaly": bool(verdicts.is_anomaly[place]),
        "champion_us": share_us,
        "challenger": None,
        "challenger_score": None,
        "challenger_raw": None,
        "challenger_anomaly": None,
        "challenger_us": None,
        "challenger_error": None,
        "cells": window.astype("<f4").tobytes() if window.nbytes <= MAX_WINDOW_BYTES else None,
    }


def _challenge(job: Job, choice: Choice, load: Callable[[Choice], LoadedModel], numbers: Sequence[int]) -> list[Row]:
    """Return the challenger's columns for some windows of the request: its verdict, or why it has none."""
    try:
        model = load(choice)
        if job.asked.windows is not None and not _same_windows(job.champion, model):
            return [{"challenger_error": "other_windows"} for _ in numbers]
        again = cut(job.asked, model.manifest)
        judged = judge(model, again)
    except RequestError as error:
        return [{"challenger_error": error.code} for _ in numbers]
    except ScoringError as error:
        return [{"challenger_error": error.reason} for _ in numbers]
    share_us = round(judged.seconds * 1e6 / max(1, len(judged.rows)))
    places = {row: place for place, row in enumerate(judged.rows)}
    return [
        _verdict(judged, places[number], share_us) if number in places else {"challenger_error": "warming_up"}
        for number in numbers
    ]


def _verdict(judged: Judged, place: int, share_us: int) -> Row:
    return {
        "challenger_score": float(judged.verdicts.anomaly_score[place]),
        "challenger_raw": float(judged.verdicts.raw_score[place]),
        "challenger_anomaly": bool(judged.verdicts.is_anomaly[place]),
        "challenger_us": share_us,
    }


def _same_windows(one: LoadedModel, other: LoadedModel) -> bool:
    """Whether windows of one bundle mean the same under another: the same signals, slots and intervals."""
    one_rule, other_rule = one.manifest.window, other.manifest.window
    return (one.manifest.signals, one_rule.slots, one_rule.interval_ms) == (
        other.manifest.signals, other_rule.slots, other_rule.interval_ms,
    )  # fmt: skip

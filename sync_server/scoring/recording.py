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
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import insert
from sqlalchemy.exc import SQLAlchemyError

from edge_runtime.errors import ScoringError
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
# Windows of one request that are kept, the newest ones.
MAX_KEPT = 32
# A larger window is scored twice and compared, but not kept.
MAX_WINDOW_BYTES = 64 * 1024

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Job:
    """A request whose windows are kept, and scored by a challenger where there is one.

    Attributes:
        asked: The request: a challenger may cut its windows by another rule.
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
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def offer(self, job: Job) -> None:
        """Take a job unless too many wait; returns at once."""
        try:
            self._waiting.put_nowait(job)
        except queue.Full:
            COMPARED.labels("dropped").inc(len(job.judged.rows))
            return
        with self._lock:
            if self._thread is None or not self._thread.is_alive():  # a bug may have ended it
                self._thread = threading.Thread(target=self._work, name="challenger", daemon=True)
                self._thread.start()

    def wait(self) -> None:
        """Wait until nothing waits any more."""
        self._waiting.join()

    def _work(self) -> None:
        while True:
            job = self._waiting.get()
            try:
                self._keep(rows_of(job, self._load))
            finally:
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


def rows_of(job: Job, load: Callable[[Choice], LoadedModel]) -> list[Row]:
    """Return the rows of a job's newest windows, scored by the challenger where there is one."""
    judged = job.judged
    first = max(0, len(judged.rows) - MAX_KEPT)
    share_us = round(judged.seconds * 1e6 / max(1, len(judged.rows)))
    rows = [_champion_row(job, place, share_us) for place in range(first, len(judged.rows))]
    if job.challenger is None:
        return rows
    for row, columns in zip(rows, _challenge(job, job.challenger, load, judged.rows[first:]), strict=True):
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

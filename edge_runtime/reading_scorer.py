"""Readings in groups under one bundle: judged, windowed, scored in one batch, and written in one transaction.

Verdicts are returned after the commit. A process that is killed at any moment has written whole groups with all that
they caused, and feeding the whole input again gives each result exactly once: what was written is late or duplicate.
Several processes may score into one database; each notices by the state's revision that another one has been there.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Literal

import numpy as np

from edge_runtime.bundle_store import ActiveBundle
from edge_runtime.contract.bundle import MODEL_NAME, REFERENCES_NAME
from edge_runtime.contract.result import Anomaly, AnyRecord, Event
from edge_runtime.contract.window import clock_stepped, judge_reading
from edge_runtime.edge_db import EdgeDatabase, count
from edge_runtime.explanation import Explainer
from edge_runtime.incidents import ended_event, observe
from edge_runtime.outbox import DEFAULT_LIMITS, OutboxLimits, append_records
from edge_runtime.readings import ReadingGroup
from edge_runtime.scoring import Float32s, Scorer, Verdicts
from edge_runtime.scoring_state import ScoringState, kept_readings, load_state, save_state, with_bundle
from edge_runtime.summaries import hour_of
from edge_runtime.verdict import Outcome, Verdict
from edge_runtime.windows import filled, gather, window_indices

Explain = Literal["stored", "all", "none"]


def system_clock_ms() -> int:
    """Return the device's clock, UTC epoch milliseconds."""
    return time.time_ns() // 1_000_000


class ReadingScorer:
    """Scores readings of one device under one bundle.

    Args:
        database: The device's database; this object is its only scorer, other processes may be too.
        bundle: The active bundle.
        is_stale: Says of a clock whether the device's metadata has expired; anomalies are then marked so.
        explain: Which anomalies get contributions: those that become records, all, or none.
        clock_ms: The device's clock.
        limits: Bounds of the outbox.

    Raises:
        ScoringError: The model cannot be loaded.
    """

    def __init__(
        self,
        database: EdgeDatabase,
        bundle: ActiveBundle,
        *,
        is_stale: Callable[[int], bool] = lambda _: False,
        explain: Explain = "stored",
        clock_ms: Callable[[], int] = system_clock_ms,
        limits: OutboxLimits = DEFAULT_LIMITS,
    ) -> None:
        self.bundle = bundle
        self.stale = False
        self._is_stale = is_stale
        self._database = database
        self._explain = explain
        self._clock_ms = clock_ms
        self._limits = limits
        self._scorer = Scorer(bundle.files[MODEL_NAME])
        self._explainer: Explainer | None = None
        self._state: ScoringState | None = None

    def score(self, readings: ReadingGroup, set_aside: Mapping[str, int] | None = None) -> list[Verdict]:
        """Judge, score and store one group of readings.

        Args:
            readings: At most 200 readings, in the order they came; columns as in the bundle's manifest.
            set_aside: Lines that came with them and could not be used, counted by reason.

        Returns:
            One verdict for each reading, in their order, after the commit.

        Raises:
            StorageError: Nothing could be written; nothing was.
            ScoringError: The model failed; nothing was written.
        """
        clock_ms = self._clock_ms()
        self.stale = self._is_stale(clock_ms)
        with self._database.transaction() as sql:
            before = load_state(sql, self._state)
            turn = _Turn(self, before, clock_ms)
            verdicts = turn.take(readings)
            save_state(sql, before, turn.state)
            append_records(sql, turn.records, self._limits)
            count(sql, {f"readings_{name}": amount for name, amount in turn.outcomes.items()})
            count(sql, {f"set_aside_{reason}": amount for reason, amount in (set_aside or {}).items()})
        self._state = turn.state
        return verdicts

    def judge_windows(self, windows: Float32s) -> Verdicts:
        """Run the model: (n, W, S) float32 in, n verdicts out.

        Raises:
            ScoringError: The model failed.
        """
        return self._scorer.score(windows)

    def explain(self, window: Float32s, raw_score: float, *, stored: bool) -> tuple[tuple[str, float], ...]:
        """Return the contributions of an anomalous window, or nothing when it is not to be explained.

        Raises:
            ScoringError: The model or the references failed.
        """
        if self._explain == "none" or (self._explain == "stored" and not stored):
            return ()
        if self._explainer is None:  # healthy devices never pay for it
            self._explainer = Explainer(self._scorer, self.bundle.manifest, self.bundle.files[REFERENCES_NAME])
        return self._explainer.contributions(window, raw_score)


class _Turn:
    """One group on its way through: what it changes is collected here and written by the caller."""

    def __init__(self, scorer: ReadingScorer, before: ScoringState, clock_ms: int) -> None:
        self._scorer = scorer
        self._manifest = scorer.bundle.manifest
        self._digest = scorer.bundle.digest
        self._clock_ms = clock_ms
        self.records: list[AnyRecord] = []
        self.outcomes: Counter[str] = Counter()
        # The readings' arrays are never changed in place, so that sharing them with `before` is safe.
        self.state = replace(before, summaries=dict(before.summaries))
        if before.bundle != self._digest:
            self._change_bundle()
        self._watch_clock()

    def take(self, readings: ReadingGroup) -> list[Verdict]:
        """Return the verdicts of a group."""
        fates = self._judge(readings)
        accepted = np.flatnonzero([fate == "accepted" for fate in fates])
        verdicts: list[Verdict | None] = [
            None if fate == "accepted" else Verdict(int(at_ms), fate)
            for at_ms, fate in zip(readings.times_ms, fates, strict=True)
        ]
        for index, verdict in zip(accepted, self._score(readings.select(accepted)), strict=True):
            verdicts[index] = verdict
        result = [verdict for verdict in verdicts if verdict is not None]
        self.outcomes.update(verdict.outcome for verdict in result)
        return result

    def _change_bundle(self) -> None:
        state = self.state
        self.records += state.close_summaries()
        if state.incident is not None:
            self.records.append(ended_event(state.incident, state.highest_timestamp_ms or self._clock_ms))
            state.incident = None
        self.state = with_bundle(state, self._digest, self._manifest)

    def _watch_clock(self) -> None:
        state, clock = self.state, self._clock_ms
        if clock_stepped(clock, state.highest_clock_ms):
            self.records += state.close_summaries()
            if state.incident is not None:
                self.records.append(ended_event(state.incident, clock))
                state.incident = None
            detail = {"from_ms": state.highest_clock_ms or 0, "to_ms": clock}
            self.records.append(Event(0, self._digest, clock, "clock_stepped", detail))
            if state.highest_timestamp_ms is not None:
                state.highest_timestamp_ms = min(state.highest_timestamp_ms, clock)
            state.forget_readings()
            state.highest_clock_ms = clock
        state.highest_clock_ms = max(clock, state.highest_clock_ms or 0)

    def _judge(self, readings: ReadingGroup) -> list[Literal["accepted"] | Outcome]:
        state = self.state
        known = set(state.times.tolist())
        fates: list[Literal["accepted"] | Outcome] = []
        for at_ms in readings.times_ms.tolist():
            fate: Literal["accepted"] | Outcome = judge_reading(at_ms, state.highest_timestamp_ms, self._clock_ms)
            if fate == "accepted":
                state.highest_timestamp_ms = at_ms
                known.add(at_ms)
            elif fate == "late" and at_ms in known:
                fate = "duplicate"
            fates.append(fate)
            if fate == "late" and state.highest_timestamp_ms is not None:
                # In the newest hour, not the reading's own: a year fed again would make a summary for every hour.
                state.summary(self._digest, state.highest_timestamp_ms).late += 1
        return fates

    def _score(self, new: ReadingGroup) -> list[Verdict]:
        if not len(new.times_ms):
            return []
        state, rule = self.state, self._manifest.window
        times = np.concatenate([state.times, new.times_ms])
        cells = np.concatenate([state.cells, new.cells])
        indices = window_indices(times, rule)[len(state.times) :]
        ready = np.flatnonzero(filled(indices) >= rule.minimum_readings)
        windows = gather(cells, indices[ready])
        started = time.perf_counter_ns()
        scores = self._scorer.judge_windows(windows) if len(ready) else None
        # A group's time is shared evenly: what an owner asks is how long one verdict costs.
        latency_us = round((time.perf_counter_ns() - started) / 1000 / max(1, len(ready)))
        keep = kept_readings(times, rule)
        state.times, state.cells = times[keep], cells[keep]
        place = {int(row): position for position, row in enumerate(ready)}
        missing = np.isnan(new.cells).sum(axis=1)
        verdicts = []
        for row, at_ms in enumerate(new.times_ms.tolist()):
            self.records += state.close_summaries(keep=(self._digest, hour_of(at_ms)))
            state.summary(self._digest, at_ms).add_cells(new.cells.shape[1], int(missing[row]))
            if scores is None or row not in place:
                state.summary(self._digest, at_ms).warming_up += 1
                verdicts.append(Verdict(at_ms, "warming_up"))
            else:
                position = place[row]
                verdicts.append(self._verdict(at_ms, windows[position], scores, position, latency_us))
        return verdicts

    def _verdict(self, at_ms: int, window: Float32s, scores: Verdicts, position: int, latency_us: int) -> Verdict:
        # str() gives the shortest digits that read back as the same float32: half the bytes on the wire.
        anomaly_score = float(str(scores.anomaly_score[position]))
        raw_score = float(str(scores.raw_score[position]))
        is_anomaly = bool(scores.is_anomaly[position])
        self.state.summary(self._digest, at_ms).add_window(anomaly_score, is_anomaly=is_anomaly, latency_us=latency_us)
        step = observe(
            self.state.incident,
            bundle=self._digest,
            timestamp_ms=at_ms,
            anomaly_score=anomaly_score,
            is_anomaly=is_anomaly,
            gap=self._manifest.incident_gap,
        )
        self.state.incident = step.incident
        if step.ended is not None:
            self.records.append(ended_event(step.ended, at_ms))
        if step.incident is None or not is_anomaly:
            return Verdict(at_ms, "scored", anomaly_score, raw_score, is_anomaly)
        started_at_ms = step.incident.started_at_ms
        parts = self._scorer.explain(window, float(scores.raw_score[position]), stored=step.stored)
        if step.stored:
            windows = step.incident.windows
            self.records.append(
                Anomaly(
                    0,
                    self._digest,
                    at_ms,
                    started_at_ms,
                    anomaly_score,
                    raw_score,
                    windows,
                    parts,
                    stale=self._scorer.stale,
                )
            )
        return Verdict(at_ms, "scored", anomaly_score, raw_score, is_anomaly, started_at_ms, step.stored, parts)

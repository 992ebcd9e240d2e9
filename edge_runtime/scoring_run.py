"""One input scored from its first line to its last: what ``edge-runtime score`` does, without a command line."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from edge_runtime.reading_scorer import ReadingScorer
from edge_runtime.telemetry import Telemetry
from edge_runtime.verdict import Verdict


@dataclass(slots=True)
class ScoringSummary:
    """What scoring an input came to.

    Attributes:
        bundle: SHA-256 of the bundle that scored, hex.
        release: Its release number.
        stale: The device's metadata had expired: anomalies are marked so.
        outcomes: Readings by outcome: ``scored``, ``warming_up``, ``late``, ``duplicate``, ``future``.
        anomalous: Scored windows that were anomalous.
        stored: Of those, the ones that became anomaly records.
        incidents: Incidents that began.
        seconds: Wall clock.
    """

    bundle: str
    release: int
    stale: bool
    outcomes: Counter[str] = field(default_factory=Counter)
    anomalous: int = 0
    stored: int = 0
    incidents: int = 0
    seconds: float = 0.0

    def add(self, verdicts: Sequence[Verdict]) -> None:
        """Count the verdicts of a group."""
        self.outcomes.update(verdict.outcome for verdict in verdicts)
        self.anomalous += sum(verdict.is_anomaly is True for verdict in verdicts)
        self.stored += sum(verdict.stored for verdict in verdicts)
        self.incidents += sum(v.incident_started_at_ms == v.timestamp_ms for v in verdicts)


def score_input(
    scorer: ReadingScorer,
    source: Telemetry,
    *,
    deliver: Callable[[Sequence[Verdict]], None],
    progress: Callable[[ScoringSummary], None] | None = None,
) -> ScoringSummary:
    """Score an input to its end, group by group.

    Args:
        scorer: The device's scorer.
        source: The input, bound to the same bundle's signals.
        deliver: Gets the verdicts of each group once they are stored.
        progress: Is told after each group.

    Returns:
        The counts; what was set aside is in ``source.report``.

    Raises:
        InputError: The input is refused.
        StorageError: A group could not be stored; those before it are.
        ScoringError: The model failed.
    """
    started = time.monotonic()
    summary = ScoringSummary(scorer.bundle.digest, scorer.bundle.manifest.release_number, scorer.stale)
    for group, set_aside in source.groups():
        verdicts = scorer.score(group, set_aside)
        summary.add(verdicts)
        deliver(verdicts)
        if progress is not None:
            progress(summary)
    summary.stale = scorer.stale
    summary.seconds = round(time.monotonic() - started, 3)
    return summary


def summary_fields(summary: ScoringSummary, source: Telemetry) -> dict[str, Any]:
    """Return the summary as the one JSON object of ``--json``."""
    report = source.report
    return {
        "bundle": summary.bundle,
        "release": summary.release,
        "stale": summary.stale,
        "format": report.format,
        "readings": report.readings,
        **{name: summary.outcomes[name] for name in ("scored", "warming_up", "late", "duplicate", "future")},
        "anomalous": summary.anomalous,
        "anomaly_records": summary.stored,
        "incidents": summary.incidents,
        "set_aside": dict(report.set_aside),
        "ignored_columns": list(report.ignored_columns),
        "missing_signals": list(report.missing_signals),
        "seconds": summary.seconds,
    }


def summary_text(summary: ScoringSummary, source: Telemetry) -> str:
    """Return the summary as lines for a person: what happened, then what is worth a look."""
    report, outcomes = source.report, summary.outcomes
    lines = [
        f"{_count(report.readings, 'reading')}: {outcomes['scored']:,} scored, {summary.anomalous:,} anomalous in"
        f" {_count(summary.incidents, 'new incident')} ({summary.stored:,} stored);"
        f" {outcomes['warming_up']:,} warming up."
    ]
    known = outcomes["late"] + outcomes["duplicate"]
    if known:
        what = _count(known, "reading")
        lines.append(f"Not scored again, as not newer than what this device has scored already: {what}.")
    if outcomes["future"]:
        what = _count(outcomes["future"], "reading")
        lines.append(f"Refused, as more than a day ahead of this device's clock: {what}.")
    if report.set_aside:
        reasons = ", ".join(f"{reason} {times:,}" for reason, times in sorted(report.set_aside.items()))
        lines.append(f"Set aside: {_count(report.set_aside.total(), 'line')} ({reasons}); the first: {report.example}")
    if report.missing_signals:
        lines.append(f"Missing in every reading, as allowed: {_some(report.missing_signals)}.")
    if report.ignored_columns:
        lines.append(f"Columns that the model does not use: {_some(report.ignored_columns)}.")
    if summary.stale:
        lines.append(
            "The metadata of this device has expired or is missing: anomalies are marked stale until it syncs."
        )
    return "\n".join(lines)


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _some(names: Sequence[str], most: int = 8) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more

"""Summaries: every scored window counts in its hour's summary, anomalous or not. Pure.

An open summary is a running count in ``edge.db``; closing it makes a record, a delta that is never edited. Later
windows of the same hour open another, and the server adds them up.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, fields

from edge_runtime.contract.histogram import BINS, bin_of
from edge_runtime.contract.result import Summary

HOUR_MS = 3_600_000
DAY_MS = 86_400_000


@dataclass(slots=True)
class OpenSummary:
    """Counts of one hour and bundle since its last closed summary.

    Attributes:
        newest_reading_ms: Time of the newest reading it knows of, UTC epoch milliseconds.
        windows: Windows scored, anomalous or not.
        anomalous: Those that were anomalous.
        warming_up: Readings accepted before a verdict was possible.
        late: Readings that came at or below the mark while this hour was the newest.
        values: Cells of the accepted readings.
        missing: Those that were missing.
        histogram: Counts of anomaly scores over the contract's edges.
        latency_count: Windows timed.
        latency_sum_us: Sum of their scoring times in microseconds.
        latency_max_us: The longest, in microseconds.
    """

    newest_reading_ms: int
    windows: int = 0
    anomalous: int = 0
    warming_up: int = 0
    late: int = 0
    values: int = 0
    missing: int = 0
    histogram: list[int] = field(default_factory=lambda: [0] * BINS)
    latency_count: int = 0
    latency_sum_us: int = 0
    latency_max_us: int = 0

    def add_window(self, anomaly_score: float, *, is_anomaly: bool, latency_us: int) -> None:
        """Count a scored window.

        Args:
            anomaly_score: In [0, 1].
            is_anomaly: The verdict.
            latency_us: Scoring time of this window in microseconds (its share of a group's).

        Raises:
            ValueError: The score is outside [0, 1] or NaN.
        """
        self.histogram[bin_of(anomaly_score)] += 1
        self.windows += 1
        self.anomalous += is_anomaly
        self.latency_count += 1
        self.latency_sum_us += latency_us
        self.latency_max_us = max(self.latency_max_us, latency_us)

    def add_cells(self, values: int, missing: int) -> None:
        """Count an accepted reading's cells: all of them, and those that are missing."""
        self.values += values
        self.missing += missing

    def closed(self, bundle: str, period_start_ms: int) -> Summary:
        """Return the record, still without a number.

        Args:
            bundle: SHA-256 of the bundle that scored, hex.
            period_start_ms: Start of the UTC hour.
        """
        return Summary(0, bundle, period_start_ms, "hour", histogram=tuple(self.histogram), **self._counts())

    def to_json(self) -> str:
        """Return the counts as ``edge.db`` keeps them."""
        return json.dumps({**self._counts(), "histogram": self.histogram}, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> OpenSummary:
        """Read the counts as ``edge.db`` keeps them."""
        return cls(**json.loads(text))

    def _counts(self) -> dict[str, int]:
        # Not dataclasses.asdict: its deep copy took a third of the time of scoring a file.
        return {item.name: getattr(self, item.name) for item in fields(self) if item.name != "histogram"}


def hour_of(timestamp_ms: int) -> int:
    """Return the start of the UTC hour that a time falls into, in epoch milliseconds."""
    return timestamp_ms - timestamp_ms % HOUR_MS


def merge_to_day(summaries: Sequence[Summary]) -> Summary:
    """Add summaries of one bundle and UTC day up into one daily summary, still without a number.

    Args:
        summaries: At least one, hourly or daily, all of the same bundle and day.

    Raises:
        ValueError: None at all, or of different bundles or days.
    """
    keys = {(summary.bundle, summary.period_start_ms // DAY_MS) for summary in summaries}
    if len(keys) != 1:
        raise ValueError(f"summaries of {len(keys)} bundles and days cannot become one")
    [(bundle, day)] = keys
    added = ("windows", "anomalous", "warming_up", "late", "values", "missing", "latency_count", "latency_sum_us")
    return Summary(
        0,
        bundle,
        day * DAY_MS,
        "day",
        newest_reading_ms=max(summary.newest_reading_ms for summary in summaries),
        histogram=tuple(sum(counts) for counts in zip(*(s.histogram for s in summaries), strict=True)),
        latency_max_us=max(summary.latency_max_us for summary in summaries),
        **{name: sum(getattr(summary, name) for summary in summaries) for name in added},
    )

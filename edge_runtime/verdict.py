"""What a reading gets back, as the Python API returns it and as ``edge-runtime score`` prints it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

Outcome = Literal["scored", "warming_up", "late", "duplicate", "future"]
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Verdict:
    """The verdict on one reading.

    Attributes:
        timestamp_ms: The reading's own time.
        outcome: ``scored``; ``warming_up`` (stored, window still too short); ``late`` or ``duplicate`` (at or below
            the highest accepted time, not scored); ``future`` (more than a day ahead of the clock, refused).
        anomaly_score: In [0, 1], higher is more anomalous; None unless scored.
        raw_score: The detector's own figure; None unless scored.
        is_anomaly: Whether the score reaches the threshold; None unless scored.
        incident_started_at_ms: Start of the incident that this anomalous window belongs to, else None.
        stored: This window became an anomaly record.
        contributions: (signal, share of the raw score that goes away without it) of stored anomalies.
    """

    timestamp_ms: int
    outcome: Outcome
    anomaly_score: float | None = None
    raw_score: float | None = None
    is_anomaly: bool | None = None
    incident_started_at_ms: int | None = None
    stored: bool = False
    contributions: tuple[tuple[str, float], ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the verdict as one line of ``edge-runtime score``; what does not apply is left out."""
        line: dict[str, Any] = {"timestamp": iso(self.timestamp_ms), "outcome": self.outcome}
        if self.outcome != "scored":
            return line
        line.update(anomaly_score=self.anomaly_score, raw_score=self.raw_score, is_anomaly=self.is_anomaly)
        if self.incident_started_at_ms is not None:
            line["incident_started_at"] = iso(self.incident_started_at_ms)
        if self.stored:
            contributions: Mapping[str, float] = dict(self.contributions)
            line.update(stored=True, contributions=contributions)
        return line


def iso(timestamp_ms: int) -> str:
    """Return a time as ISO 8601 in UTC, with milliseconds only where there are any."""
    moment = _EPOCH + timedelta(milliseconds=timestamp_ms)
    spec = "milliseconds" if timestamp_ms % 1000 else "seconds"
    return moment.replace(tzinfo=None).isoformat(timespec=spec) + "Z"

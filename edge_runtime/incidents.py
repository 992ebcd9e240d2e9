"""Incidents: a run of anomalous windows of one device and bundle, and which of them are stored. Pure.

Stored are the first window, each new maximum, and otherwise one an hour; the rest are counted. ``incident_gap``
healthy windows in a row end it; a reading that gets no verdict neither feeds nor ends an incident::

    step = observe(incident, timestamp_ms=t, anomaly_score=.9997, is_anomaly=True, bundle=digest, gap=3)
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from edge_runtime.contract.result import Event

# "Then one an hour" (contract, Results), counted in the readings' own time.
STORE_EVERY_MS = 3_600_000


@dataclass(frozen=True, slots=True)
class OpenIncident:
    """An incident that has not ended.

    Attributes:
        bundle: SHA-256 of the bundle that scores it, hex.
        started_at_ms: Time of its first anomalous window.
        windows: Its anomalous windows so far.
        highest_anomaly_score: Their maximum.
        healthy_run: Healthy windows since the last anomalous one.
        last_stored_ms: Time of the last window that was stored.
    """

    bundle: str
    started_at_ms: int
    windows: int
    highest_anomaly_score: float
    healthy_run: int
    last_stored_ms: int


@dataclass(frozen=True, slots=True)
class Step:
    """What one window does to the incident.

    Attributes:
        incident: The open incident afterwards, or None.
        stored: The window becomes an anomaly record.
        ended: The incident that this window ended, or None.
    """

    incident: OpenIncident | None
    stored: bool = False
    ended: OpenIncident | None = None


def observe(
    incident: OpenIncident | None, *, bundle: str, timestamp_ms: int, anomaly_score: float, is_anomaly: bool, gap: int
) -> Step:
    """Take the next scored window.

    Args:
        incident: The open incident, of the same bundle, or None.
        bundle: SHA-256 of the bundle that scored the window.
        timestamp_ms: The window's newest reading.
        anomaly_score: In [0, 1].
        is_anomaly: The verdict.
        gap: Healthy windows in a row that end an incident, at least 1.

    Returns:
        The incident afterwards, and what to record.
    """
    if incident is None:
        if not is_anomaly:
            return Step(None)
        return Step(OpenIncident(bundle, timestamp_ms, 1, anomaly_score, 0, timestamp_ms), stored=True)
    if not is_anomaly:
        run = incident.healthy_run + 1
        return Step(None, ended=incident) if run >= gap else Step(replace(incident, healthy_run=run))
    rises = anomaly_score > incident.highest_anomaly_score
    stored = rises or timestamp_ms - incident.last_stored_ms >= STORE_EVERY_MS
    return Step(
        replace(
            incident,
            windows=incident.windows + 1,
            highest_anomaly_score=max(anomaly_score, incident.highest_anomaly_score),
            healthy_run=0,
            last_stored_ms=timestamp_ms if stored else incident.last_stored_ms,
        ),
        stored=stored,
    )


def ended_event(incident: OpenIncident, observed_at_ms: int) -> Event:
    """Return the record of an incident's end, still without a number.

    Args:
        incident: The incident.
        observed_at_ms: Time of the reading, or of the change, that ended it.
    """
    return Event(
        0,
        incident.bundle,
        observed_at_ms,
        "incident_ended",
        {
            "incident_started_at_ms": incident.started_at_ms,
            "windows": incident.windows,
            "highest_anomaly_score": incident.highest_anomaly_score,
        },
    )

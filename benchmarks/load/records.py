"""Plausible results of a device: an hourly summary, and incidents as rare as a model's alarm rate makes them."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from edge_runtime.contract.histogram import BINS
from edge_runtime.contract.result import Anomaly, AnyRecord, Event, Summary

HOUR_MS = 3_600_000
READINGS_AN_HOUR = 60
SIGNALS = ("battery_drain", "temperature", "rtt_ms", "packet_loss", "signal_strength", "retransmissions")
# A calibrated score says which share of healthy windows scores lower, so its bins are as wide as the histogram's.
_SHARES = (0.1,) * 9 + (0.05, 0.04, 0.005, 0.004, 0.0009, 0.0001)


@dataclass(slots=True)
class Outbox:
    """Numbers records of one device's stream.

    Attributes:
        next_sequence: The number of the next record.
    """

    next_sequence: int = 1

    def take(self) -> int:
        """Return the next number."""
        self.next_sequence += 1
        return self.next_sequence - 1


def hour_records(
    outbox: Outbox, bundle: str, hour_ms: int, until_ms: int, *, incident_share: float, draw: random.Random
) -> Iterator[AnyRecord]:
    """Yield what a device found in one hour.

    Args:
        outbox: Gives the numbers.
        bundle: SHA-256 of the bundle it runs.
        hour_ms: Start of the hour.
        until_ms: Newest reading of it; the summary of an hour that is not over is a delta.
        incident_share: Chance of an incident in an hour.
        draw: Random numbers.
    """
    windows = max(1, READINGS_AN_HOUR * (until_ms - hour_ms) // HOUR_MS)
    anomalous = 0
    if draw.random() < incident_share:
        anomalous = min(draw.randint(1, 12), windows)
        yield from _incident(outbox, bundle, until_ms, anomalous, draw)
    counts = [0] * BINS
    for place in draw.choices(range(BINS - 1), _SHARES[:-1], k=windows - anomalous):
        counts[place] += 1
    counts[-1] += anomalous
    spent = windows * 90
    yield Summary(
        outbox.take(), bundle, hour_ms, "hour", until_ms, windows, anomalous, 0, 0, windows * len(SIGNALS),
        draw.randint(0, 3), tuple(counts), windows, spent + draw.randint(0, spent), 90 + draw.randint(0, 900),
    )  # fmt: skip


def _incident(
    outbox: Outbox, bundle: str, until_ms: int, windows: int, draw: random.Random
) -> Iterator[Anomaly | Event]:
    step = HOUR_MS // READINGS_AN_HOUR
    started = until_ms - (windows - 1) * step
    score = 0.9990 + draw.random() * 0.0008
    for k in range(min(windows, draw.randint(1, 3))):  # the first window, and each new maximum
        score += draw.random() * 0.00005
        signals = draw.sample(SIGNALS, 3)
        contributions = tuple((name, round(0.2 / (place + 1), 4)) for place, name in enumerate(signals))
        yield Anomaly(outbox.take(), bundle, started + k * step, started, score, 0.6 + score / 100, k + 1,
                      contributions, False)  # fmt: skip
    detail = {"incident_started_at_ms": started, "windows": windows}
    yield Event(outbox.take(), bundle, until_ms, "incident_ended", detail)

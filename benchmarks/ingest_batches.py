"""Batches of results as devices make them, different in every row, for load and for raw inserts alike.

A batch of 50: six incidents of six stored windows each, their ends, and the summaries of eight hours. All of them look
back from the present, so that roll-up rows of the same few hours are shared by the whole fleet, as in life.
"""

from __future__ import annotations

import gzip
import random
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from edge_runtime.contract.batch import encode_batch
from edge_runtime.contract.histogram import BINS
from edge_runtime.contract.result import Anomaly, AnyRecord, Event, Summary

BATCH_RECORDS = 50
BUNDLE = "b1" * 32
SIGNALS = ("temperature", "pressure", "rpm", "torque", "vibration")
HOUR_MS = 3_600_000

_INCIDENTS, _WINDOWS_STORED, _HOURS = 6, 6, 8
_CONTRIBUTION_DIGITS = 6  # as edge_runtime.explanation rounds them


@dataclass(slots=True)
class LoadDevice:
    """One simulated device: who it is, and how far it has numbered its records.

    Attributes:
        id: Its id on the server.
        token: Its bearer token.
        stream: Its stream, 32 hex digits.
        next_sequence: The first number of its next batch.
        random: Where its values come from.
    """

    id: str
    token: str
    stream: str
    next_sequence: int = 1
    random: random.Random = field(default_factory=random.Random)


@dataclass(frozen=True, slots=True)
class MadeBatch:
    """One batch, ready to be sent or inserted.

    Attributes:
        device: Whose it is.
        records: Its records.
        body: The same as gzip.
    """

    device: LoadDevice
    records: tuple[AnyRecord, ...]
    body: bytes


def make_batch(device: LoadDevice, now_ms: int) -> MadeBatch:
    """Return the device's next batch of :data:`BATCH_RECORDS` records."""
    records = tuple(_records(device, now_ms))
    device.next_sequence += len(records)
    body = gzip.compress(encode_batch(device.stream, now_ms, records), 6, mtime=0)
    return MadeBatch(device, records, body)


def _as_sent(score: float) -> float:
    """Return a score as devices send it: the shortest decimal that reads back as the same float32."""
    return float(str(np.float32(score)))


def _records(device: LoadDevice, now_ms: int) -> Iterator[AnyRecord]:
    draw, sequence = device.random, device.next_sequence
    for _ in range(_INCIDENTS):
        started = now_ms - draw.randrange(14_400) * 1000 - sequence % 1000  # no two incidents of a device start as one
        for step in range(_WINDOWS_STORED):
            contributions = tuple((signal, float(f"{draw.random():.{_CONTRIBUTION_DIGITS}g}")) for signal in SIGNALS)
            score, raw_score = _as_sent(0.999 + draw.random() / 1000), _as_sent(3 * draw.random())
            yield Anomaly(
                sequence,
                BUNDLE,
                started + 1000 * step,
                started,
                score,
                raw_score,
                step + 1,
                contributions,
                False,
            )
            sequence += 1
        detail = {"incident_started_at_ms": started, "windows": _WINDOWS_STORED}
        yield Event(sequence, BUNDLE, started + 60_000, "incident_ended", detail)
        sequence += 1
    for hour in range(_HOURS):
        start = now_ms - now_ms % HOUR_MS - hour * HOUR_MS
        histogram = tuple(draw.randrange(5) for _ in range(BINS))
        windows = sum(histogram)
        yield Summary(
            sequence, BUNDLE, start, "hour", start + draw.randrange(HOUR_MS), windows, histogram[-1], 0, 1, 5 * windows,
            draw.randrange(3), histogram, windows, 90 * windows, 200 + draw.randrange(100),
        )  # fmt: skip
        sequence += 1

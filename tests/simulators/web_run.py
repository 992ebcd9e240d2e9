"""A day of readings with every mishap, scored by the Python device: what the browser's library must make of them too."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edge_runtime.bundle_store import ActiveBundle
from edge_runtime.contract.bundle import Bundle
from edge_runtime.edge_db import EdgeDatabase
from edge_runtime.outbox import Outbox
from edge_runtime.reading_scorer import ReadingScorer
from edge_runtime.readings import ReadingGroup, ReadingParser

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
# The group from which on the second bundle scores; the one before ends in a fault.
SECOND_FROM = 3
START_MS = 1_700_000_000_000 // HOUR_MS * HOUR_MS


def scored_run(bundles: Sequence[Bundle], folder: Path) -> list[dict[str, Any]]:
    """Return groups of readings with the clock they came at, Python's verdicts, and in the end the records stored.

    Args:
        bundles: Two bundles of the charging fleet, with hourly windows; the second takes over in the midst of a fault.
        folder: Where the device's database may lie.
    """
    folder.mkdir()
    steps: list[dict[str, Any]] = []
    clock = [START_MS]
    parser = ReadingParser([signal.name for signal in bundles[0].manifest.signals])
    with EdgeDatabase(folder / "edge.db") as database:
        scorers = [
            ReadingScorer(database, ActiveBundle(b.digest, b.manifest, b.files), clock_ms=lambda: clock[0])
            for b in bundles
        ]
        for number, (at_ms, readings) in enumerate(_groups()):
            clock[0] = at_ms
            which = int(number >= SECOND_FROM)
            group = ReadingGroup.of([parser.row(reading) for reading in readings], parser.width)
            verdicts = [verdict.to_dict() for verdict in scorers[which].score(group)]
            steps.append({"clock_ms": at_ms, "bundle": which, "readings": readings, "verdicts": verdicts})
        records = [{"table": record.table, "record": record.to_dict()} for record in Outbox(database).lease().records]
    return [*steps, {"records": records}]


def _groups() -> Iterator[tuple[int, list[dict[str, Any]]]]:
    rng = np.random.default_rng(4)
    for start, hours in ((0, 30), (20, 20), (48, 20), (58, 40), (130, 6)):
        first = START_MS + start * HOUR_MS
        rows = [_reading(first + step * HOUR_MS // 2, fault=50 < start + step < 80, rng=rng) for step in range(hours)]
        yield first + hours * HOUR_MS, [*rows, rows[1]]
    # Fed again, out of order, and from a clock that was far ahead.
    late, future = (_reading(START_MS + hours * HOUR_MS, fault=False, rng=rng) for hours in (1, 400))
    yield START_MS + 140 * HOUR_MS, [rows[-1], late, rows[-2], future]
    back = START_MS + 60 * HOUR_MS
    yield back, [_reading(back + step * HOUR_MS, fault=False, rng=rng) for step in range(8)]


def _reading(at_ms: int, *, fault: bool, rng: np.random.Generator) -> dict[str, Any]:
    charging = float(rng.random() < 0.4)
    values = {
        "current": 5 + 20 * charging + rng.normal() + (30 if fault else 0),
        "heat": 30 + 8 * charging + rng.normal() + (12 if fault else 0),
        "free": math.nan if rng.random() < 0.1 else float(rng.lognormal(3, 1)),
        "fixed": 41.7,
        "charging": charging if rng.random() > 0.05 else None,
    }
    shown = {name: None if value is None or math.isnan(value) else float(value) for name, value in values.items()}
    return {"timestamp": at_ms / 1000, **shown}

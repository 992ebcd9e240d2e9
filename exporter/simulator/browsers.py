"""A fleet of browsers that never existed: what a page can measure of itself, once a second, with four faults.

It is what the device in the browser runs a model of. The signals are those that ``web_demo`` reads; browsers differ
widely in which of them they offer, so most browsers lack some, for good. Levels and spreads are plausible for what
browsers of 2026 report; nobody measured them.

Example::

    written = simulate_browsers(BrowserOptions(browsers=20, minutes=10), Path("browsers"))
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from edge_runtime.errors import InputError
from exporter.simulator.faults import LABEL_FROM
from exporter.simulator.fleet import START_MS, Floats
from exporter.simulator.writer import FILES, WrittenFleet, writing

UNITS = {
    "battery_level": "%",
    "battery_charging": "0/1",
    "network_round_trip": "ms",
    "network_downlink": "Mbit/s",
    "storage_used": "%",
    "memory_used": "MB",
    "event_loop_delay": "ms",
    "event_loop_worst": "ms",
    "frame_rate": "1/s",
    "motion": "m/s2",
}
KINDS = ("busy_page", "memory_leak", "slow_network", "storage_filling")
COHORT = "browser"
INTERVAL_MS = 1_000
# Which share of browsers offers a group of signals at all: Chromium's families, phones, and everybody.
_OFFERED = {
    "battery": (0.6, ("battery_level", "battery_charging")),
    "network": (0.65, ("network_round_trip", "network_downlink")),
    "memory": (0.65, ("memory_used",)),
    "storage": (0.95, ("storage_used",)),
    "motion": (0.3, ("motion",)),
}


@dataclass(frozen=True, slots=True)
class BrowserOptions:
    """What to simulate.

    Args:
        browsers: Number of browsers, at least 1.
        minutes: How long each page is open, at least 1.
        seed: Seed of everything random; equal options give equal files.
        fault_share: Share of the browsers that develop a fault, 0 to 1.

    Raises:
        InputError: An option lies outside its range.
    """

    browsers: int = 80
    minutes: int = 20
    seed: int = 0
    fault_share: float = 0.25

    def __post_init__(self) -> None:
        if self.browsers < 1 or self.minutes < 1 or not 0.0 <= self.fault_share <= 1.0:
            raise InputError(
                f"{self.browsers} browsers, {self.minutes} minutes, fault share {self.fault_share}: that is no fleet.",
                advice="Use at least 1 browser and 1 minute, and a share between 0 and 1.",
            )

    @property
    def steps(self) -> int:
        """Readings that a page would make without gaps."""
        return self.minutes * 60_000 // INTERVAL_MS


@dataclass(frozen=True, slots=True)
class _Page:
    """One browser's record: times (n,), signals of (n,) each, severity (n,) of its fault, and the fault or None."""

    times_ms: np.ndarray[tuple[int], np.dtype[np.int64]]
    signals: dict[str, Floats]
    severity: Floats
    fault: str | None


def simulate_browsers(
    options: BrowserOptions,
    folder: Path,
    *,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> WrittenFleet:
    """Simulate browsers and write ``readings.parquet``, ``labels.parquet`` and ``failures.csv``.

    Args:
        options: What to simulate.
        folder: Where to write; made when missing.
        overwrite: Replace files of an earlier run instead of refusing.
        progress: Called with browsers done and browsers in all, after each.

    Returns:
        What was written.

    Raises:
        InputError: The folder holds a fleet already and ``overwrite`` is false.
        StorageError: The files cannot be written.
    """
    with writing(folder, overwrite=overwrite):
        pages = []
        for number in range(options.browsers):
            pages.append(_open_page(np.random.default_rng([options.seed, number]), number, options))
            if progress is not None:
                progress(number + 1, options.browsers)
        readings = _write(pages, folder)
    faulty = sum(page.fault is not None for page in pages)
    return WrittenFleet(folder, len(pages), readings, faulty, faulty, {COHORT: len(pages)})


def _open_page(rng: np.random.Generator, number: int, options: BrowserOptions) -> _Page:
    """Simulate one browser: who it is, what it meets, what it lacks."""
    steps = options.steps
    faulty = rng.random() < options.fault_share
    fault = KINDS[number % len(KINDS)] if faulty else None
    onset = rng.uniform(0.3, 0.6) * steps
    grown = np.clip((np.arange(steps) - onset) / (0.15 * steps), 0.0, 1.0)
    severity = grown if faulty else np.zeros(steps)
    signals = _measure(rng, steps, fault, severity)
    for share, names in _OFFERED.values():
        if rng.random() >= share:
            for name in names:
                signals[name][:] = np.nan
    _hide(signals, rng)
    times = START_MS + number * 3_600_000 + np.arange(steps, dtype=np.int64) * INTERVAL_MS
    times += rng.integers(0, INTERVAL_MS // 5, steps)
    keep = rng.random(steps) >= 0.01
    return _Page(times[keep], {name: values[keep] for name, values in signals.items()}, severity[keep], fault)


def _measure(rng: np.random.Generator, steps: int, fault: str | None, severity: Floats) -> dict[str, Floats]:
    """Return every signal of one page, as if its browser offered all of them."""
    busy, leak, slow, filling = (severity if fault == kind else np.zeros(steps) for kind in KINDS)
    minutes = np.arange(steps) / 60.0
    charging = float(rng.random() < 0.5)
    level = rng.uniform(10.0, 100.0) + (0.4 if charging else -0.2) * minutes
    # Chromium rounds the round trip to 25 ms, and caps the downlink at 10 Mbit/s.
    trip = rng.choice([0.0, 25.0, 50.0, 75.0, 100.0, 150.0, 200.0]) + 25.0 * rng.integers(-1, 2, steps) + 900.0 * slow
    downlink = rng.uniform(1.2, 12.0) * np.exp(_wander(rng, steps, 0.1)) * (1.0 - 0.95 * slow)
    heap = np.exp(rng.normal(np.log(28.0), 0.7))
    sawtooth = 0.25 * heap * ((np.arange(steps) / rng.uniform(8.0, 40.0)) % 1.0)
    delay = np.exp(rng.normal(np.log(1.6), 0.8) + rng.normal(0.0, 0.35, steps))
    worst = delay * np.exp(rng.normal(np.log(4.0), 0.5, steps))
    bursts = rng.random(steps) < 0.015  # collecting garbage, laying out, another program
    worst += bursts * rng.uniform(20.0, 120.0, steps)
    delay += bursts * rng.uniform(1.0, 8.0, steps) + busy * rng.uniform(40.0, 160.0, steps)
    worst += busy * rng.uniform(180.0, 500.0, steps)
    rate = rng.choice([30.0, 60.0, 60.0, 60.0, 90.0, 120.0, 144.0]) * (1.0 - 0.05 * bursts - 0.7 * busy)
    still = rng.random() < 0.6
    shaken = np.abs(rng.normal(0.0, 0.05 if still else 0.8, steps))
    return {
        "battery_level": np.clip(np.round(level), 1.0, 100.0),
        "battery_charging": np.full(steps, charging),
        "network_round_trip": np.clip(trip, 0.0, 3000.0),
        "network_downlink": np.clip(np.round(downlink * 20.0) / 20.0, 0.05, 10.0),
        "storage_used": np.clip(np.exp(rng.normal(-3.5, 1.8)) + 45.0 * filling, 0.0, 100.0) + np.zeros(steps),
        "memory_used": heap + sawtooth + 420.0 * leak,
        "event_loop_delay": delay,
        "event_loop_worst": worst,
        "frame_rate": np.clip(rate + rng.normal(0.0, 0.8, steps), 1.0, 240.0),
        "motion": shaken,
    }


def _wander(rng: np.random.Generator, steps: int, spread: float) -> Floats:
    """Return slow noise: a random walk that is pulled back, with that overall spread."""
    noise = rng.normal(0.0, spread * 0.2, steps)
    for i in range(1, steps):
        noise[i] += 0.98 * noise[i - 1]
    return noise


def _hide(signals: dict[str, Floats], rng: np.random.Generator) -> None:
    """Put the page into the background now and then, where timers and frames say nothing."""
    steps = len(signals["motion"])
    for _ in range(rng.integers(0, 3)):
        begin, length = rng.integers(0, steps), rng.integers(10, 90)
        for name in ("event_loop_delay", "event_loop_worst", "frame_rate"):
            signals[name][begin : begin + length] = np.nan


def _write(pages: list[_Page], folder: Path) -> int:
    """Write all pages and return how many readings they made."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    counts = [len(page.times_ms) for page in pages]
    names = [f"browser-{number:05d}" for number in range(1, len(pages) + 1)]
    ids = pa.array(np.repeat(np.array(names), counts))
    times = pa.array(np.concatenate([page.times_ms for page in pages]) * 1000, type=pa.timestamp("us", tz="UTC"))
    columns = {
        name: pa.array(np.concatenate([page.signals[name] for page in pages]).astype(np.float32)) for name in UNITS
    }
    fields = [pa.field(name, pa.float32(), metadata={"unit": unit}) for name, unit in UNITS.items()]
    table = pa.table({"device_id": ids, "timestamp": times, **columns})
    severity = np.concatenate([page.severity for page in pages])
    labels = np.where(severity >= LABEL_FROM, 1, np.where(severity > 0, -1, 0)).astype(np.int8)
    pq.write_table(table.cast(pa.schema([*list(table.schema)[:2], *fields])), folder / FILES[0], compression="zstd")
    label_table = pa.table({"device_id": ids, "timestamp": times, "label": pa.array(labels)})
    pq.write_table(label_table, folder / FILES[1], compression="zstd")
    failures = [
        (name, str(datetime.fromtimestamp(int(page.times_ms[-1]) // 1000, UTC)), COHORT, page.fault)
        for name, page in zip(names, pages, strict=True)
        if page.fault is not None
    ]
    with (folder / FILES[2]).open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream, lineterminator="\n").writerows([("device_id", "timestamp", "cohort", "kind"), *failures])
    return len(ids)

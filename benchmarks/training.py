"""From the telemetry of a fleet to features and a trained model: beside pandas and polars, and from end to end."""

from __future__ import annotations

import importlib.util
import os
import statistics
import sys
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import psutil

from benchmarks.harness import Report
from benchmarks.process_tree import Finished, run_watched
from benchmarks.timing import Timing

QUESTION = "A fleet's history to features and a model: beside pandas and polars, and 10,000 devices from end to end."
DAYS = 90
# Free memory that the sides need: polars had 7.6 GB at most with 10,000 devices, pandas 4.8, ours 2.0.
BYTES_NEEDED = {1_000: 2 << 30, 10_000: 9 << 30}
# The system that this one replaces, 10,000 devices x 90 days: minutes by phase.
OLD_MINUTES = {"loading": 7, "features": 15, "forest": 22, "cohorts": 5, "calibration": 3}
# Sums that roll on carry the rounding of what has left the window; the graph sums each window anew.
TOLERANCE = 1e-3
# What a trained forest needs; the features of all windows are what scoring a fleet's history needs.
_TO_A_MODEL = ("read", "features of the sample", "forest")


@dataclass(slots=True)
class _Side:
    name: str
    program: str
    threads: int
    runs: list[Finished] = field(default_factory=list)

    def phase(self, name: str, which: int = 0) -> list[float]:
        """Return wall (0) or processor (1) seconds of a phase, one for each run."""
        return [run.answer["phases"][name][which] for run in self.runs]

    def median(self, name: str) -> float:
        return statistics.median(self.phase(name))


def run(report: Report, *, quick: bool) -> None:
    """Measure features and training on two sizes of fleets, then the whole build on the larger one."""
    if importlib.util.find_spec("polars") is None:
        report.note("polars is not installed (pip install polars), so that side was left out.")
    with TemporaryDirectory() as folder:
        for devices, repeats in ((20, 1),) if quick else ((1_000, 3), (10_000, 1)):
            fleet = Path(folder) / f"fleet-{devices}"
            _simulate(report, fleet, devices, days=20 if quick else DAYS)
            _features(report, fleet, devices, repeats)
            _build(report, fleet, devices)


def _simulate(report: Report, folder: Path, devices: int, *, days: int) -> None:
    done = _child([
        *_EXPORTER, "simulate", "--out", str(folder), "--devices", str(devices), "--days", str(days),
        "--interval-minutes", "60", "--json",
    ])  # fmt: skip
    if done is None:
        raise RuntimeError("the fleet could not be simulated")
    report.figure(f"simulating {devices:,} devices", done.seconds, "s")
    report.figure(f"simulating {devices:,} devices, peak memory", done.peak_bytes / 1e9, "GB")


def _features(report: Report, fleet: Path, devices: int, repeats: int) -> None:
    """Let the sides take turns on one fleet."""
    if devices in BYTES_NEEDED and psutil.virtual_memory().available < BYTES_NEEDED[devices]:
        report.note(f"Too little memory is free to let pandas and polars work on {devices:,} devices.")
        return
    sides = [_Side("ours, 2 threads", "ours", 2), _Side("ours, 1 thread", "ours", 1), _Side("pandas", "pandas", 1)]
    if importlib.util.find_spec("polars") is not None:
        sides += [_Side("polars, 2 threads", "polars", 2), _Side("polars, 1 thread", "polars", 1)]
    samples = {}
    for repeat in range(repeats):
        for side in sides if repeat % 2 == 0 else reversed(sides):
            sample = fleet / f"{side.program}-{side.threads}.npy"
            done = _child([sys.executable, "-m", "benchmarks.training_sides", side.program,
                           str(fleet / "readings.parquet"), str(sample)], threads=side.threads)  # fmt: skip
            if done is None:
                report.note(f"{side.name} failed on {devices:,} devices.")
                continue
            report.progress(f"{devices:,} devices, {side.name}: {done.answer['phases']}")
            side.runs.append(done)
            samples[side.name] = np.load(sample)
    if not sides[0].runs:
        raise RuntimeError("our own side failed")
    _show(report, devices, [side for side in sides if side.runs], samples)


def _show(report: Report, devices: int, sides: list[_Side], samples: dict[str, np.ndarray]) -> None:
    rows = sides[0].runs[0].answer["rows"]
    report.table(
        f"{rows:,} readings of {devices:,} devices, 5 signals: seconds, and the most memory",
        ("side", "all features", "the same, processor", "readings/s", *_TO_A_MODEL, "to a model", "peak GB"),
        [
            [side.name, side.median("features"), statistics.median(side.phase("features", 1)),
             rows / side.median("features"), *(side.median(name) for name in _TO_A_MODEL), _total(side),
             max(run.peak_bytes for run in side.runs) / 1e9]
            for side in sides
        ],
    )  # fmt: skip
    for side in sides:
        wall, cpu = tuple(side.phase("features")), tuple(side.phase("features", 1))
        report.timings([Timing(f"features of {devices:,} devices, {side.name}", rows, 1, wall, cpu)])
    least = None if report.quick else 1
    ours, others = sides[0], [side for side in sides if side.program != "ours"]
    if others:
        best = min(side.median("features") for side in others)
        report.figure(f"features of {devices:,} devices, times faster than the better one",
                      best / ours.median("features"), "x", at_least=least)  # fmt: skip
        report.figure(f"{devices:,} devices to a trained forest, times faster than the better one",
                      min(map(_total, others)) / _total(ours), "x", at_least=least)  # fmt: skip
    differences = [_difference(samples[ours.name], samples[side.name]) for side in sides]
    report.figure(f"features of {devices:,} devices, largest difference", max(differences), "", at_most=TOLERANCE)


def _total(side: _Side) -> float:
    return sum(side.median(name) for name in _TO_A_MODEL)


def _difference(a: np.ndarray, b: np.ndarray) -> float:
    """Return the largest difference against the size of the column; infinite where only one has no value."""
    if a.shape != b.shape or (np.isnan(a) != np.isnan(b)).any():
        return float("inf")
    return float(np.nanmax(np.abs(a - b) / np.nanmax(np.abs(a), axis=0)))


def _build(report: Report, fleet: Path, devices: int) -> None:
    """Run the whole build, as ``exporter build`` does before it packs, and show where the time goes."""
    done = _child([sys.executable, "-m", "benchmarks.training_build", str(fleet)], threads=os.cpu_count() or 1)
    if done is None:
        raise RuntimeError("the build failed")
    answer = done.answer
    report.table(
        f"Building {answer['models']} models of {devices:,} devices, {answer['readings']:,} readings of 25 signals",
        ("phase", "seconds"),
        [[name, seconds] for name, seconds in answer["timings"].items()],
    )
    report.figure(f"building the models of {devices:,} devices", done.seconds / 60, "min",
                  at_most=sum(OLD_MINUTES.values()) if devices == 10_000 else None)  # fmt: skip
    report.figure(f"building the models of {devices:,} devices, peak memory", done.peak_bytes / 1e9, "GB",
                  at_most=6 if devices == 10_000 else None)  # fmt: skip
    if devices == 10_000:
        phases = ", ".join(f"{minutes} {name}" for name, minutes in OLD_MINUTES.items())
        report.note(f"The system that this one replaces took {sum(OLD_MINUTES.values())} minutes: {phases}.")


_EXPORTER = (sys.executable, "-c", "from exporter.cli import main; main()")


def _child(command: list[str] | tuple[str, ...], *, threads: int = 1) -> Finished | None:
    return run_watched(command, os.environ | {"POLARS_MAX_THREADS": str(threads), "SIDE_THREADS": str(threads)})

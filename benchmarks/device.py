"""The device's process as it is: how soon, how small, how fast; beside pandas and scikit-learn in a process."""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import psutil  # type: ignore[import-untyped]

from benchmarks.harness import Report
from benchmarks.machine import REPOSITORY
from benchmarks.timing import Side, Timing, take_turns

QUESTION = (
    "A device's process with the model of 24 x 25 readings: time to the first verdict, memory after 10,000 verdicts,"
    " readings per second; beside a process of pandas and scikit-learn."
)
STEP_SECONDS = 1800
VERDICTS = 10_000
# The service of pandas and scikit-learn needs 10 ms a verdict and its memory stands after a few.
RIVAL_VERDICTS = 300
EDGE_RUNTIME = Path(sys.executable).with_name("edge-runtime")


@dataclass(frozen=True, slots=True)
class Desk:
    """Everything a run needs, in one folder.

    Attributes:
        home: A device's home with the active bundle and no readings yet.
        warm_home: The same with a full window behind it.
        header: First line of the readings, as CSV.
        lines: Readings as CSV lines, one step apart; the warm home has seen the first ``slots`` of them.
        slots: W.
        forest: scikit-learn's forest on the same features, pickled.
    """

    home: Path
    warm_home: Path
    header: str
    lines: list[str]
    slots: int
    forest: Path


def run(report: Report, *, quick: bool) -> None:
    """Measure processes, then the same work inside this one."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        report.progress("building the model from a simulated fleet")
        desk = _desk(folder, quick)
        _first_verdict(report, desk, folder, repeats=2 if quick else 11)
        _memory(report, desk, folder, *((VERDICTS // 10, 20) if quick else (VERDICTS, RIVAL_VERDICTS)))
        _throughput(report, desk, folder, repeats=1 if quick else 3)
        _in_process(report, desk, folder, repeats=50 if quick else 400)
    if quick:
        report.note(f"Quick: {VERDICTS // 10} verdicts instead of {VERDICTS}.")


def _desk(folder: Path, quick: bool) -> Desk:
    import joblib
    from sklearn.ensemble import IsolationForest

    from benchmarks.models import SLOTS, TREES, build_phones, windows_of
    from edge_runtime.bundle_store import BundleStore
    from edge_runtime.contract.bundle import open_bundle
    from edge_runtime.device_scoring import Device

    phones = build_phones(folder, devices=20 if quick else 40, days=4 if quick else 7)
    home, warm_home = folder / "home", folder / "warm"
    home.mkdir()
    BundleStore(home).install(open_bundle(phones.packed.data))
    shutil.copytree(home, warm_home)
    # One device's life, made of the readings of all phones one after the other, with times of its own.
    values = np.concatenate([device.values for device in phones.fleet.devices])
    values = np.tile(values, (VERDICTS * 2 // len(values) + 1, 1))[: VERDICTS + 1000]
    names = [signal.name for signal in phones.built.signals]
    newest = int(time.time()) // STEP_SECONDS * STEP_SECONDS
    times = newest - STEP_SECONDS * np.arange(len(values))[::-1]
    lines = [
        ",".join([str(at), *("" if np.isnan(cell) else repr(float(cell)) for cell in row)])
        for at, row in zip(times.tolist(), values, strict=True)
    ]
    with Device.open(warm_home) as device:
        device.score(
            {"timestamp": at, **dict(zip(names, map(float, row), strict=True))}
            for at, row in zip(times[:SLOTS].tolist(), values[:SLOTS], strict=True)
        )
    windows = windows_of(phones.fleet, phones.built)
    rows = windows.windows()
    with np.errstate(all="ignore"):
        features = np.concatenate([rows[:, -1], np.nan_to_num(np.nanmean(rows, axis=1))], axis=1)
    forest = folder / "forest.joblib"
    joblib.dump(IsolationForest(n_estimators=TREES, random_state=0).fit(features), forest)
    return Desk(home, warm_home, ",".join(["timestamp", *names]), lines, SLOTS, forest)


def _copy(home: Path, folder: Path) -> Path:
    """Return a fresh copy of a home."""
    target = Path(tempfile.mkdtemp(dir=folder)) / "home"
    shutil.copytree(home, target)
    return target


def _edge(home: Path, *options: str) -> list[str]:
    return [str(EDGE_RUNTIME), "score", "--home", str(home), *options]


def _rival(desk: Desk) -> list[str]:
    return [sys.executable, "-m", "benchmarks.rival_service", str(desk.forest), str(desk.slots)]


def _start(command: Sequence[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, stderr=subprocess.DEVNULL
    )


def _pipes(process: subprocess.Popen[str]) -> tuple[IO[str], IO[str]]:
    assert process.stdin is not None
    assert process.stdout is not None
    return process.stdin, process.stdout


def _seconds_to_verdict(command: Sequence[str], lines: Sequence[str]) -> tuple[float, float]:
    """Return wall-clock and processor seconds from a process's start to its first scored line, its input left open."""
    started = time.perf_counter()
    process = _start(command)
    source, sink = _pipes(process)
    with process:
        source.write("\n".join(lines) + "\n")
        source.flush()
        for line in sink:
            if '"scored"' in line:
                taken = time.perf_counter() - started
                cpu = psutil.Process(process.pid).cpu_times()
                break
        else:
            raise RuntimeError(f"{command[0]} ended without a verdict")
        process.kill()  # nothing more is asked of it, and its home is a copy
    return taken, cpu.user + cpu.system


def _first_verdict(report: Report, desk: Desk, folder: Path, *, repeats: int) -> None:
    """Time processes from start to first verdict, in turn."""
    first = [desk.header, *desk.lines[: desk.slots]]
    following = [desk.header, desk.lines[desk.slots]]
    sides: dict[str, Callable[[], tuple[float, float]]] = {
        "edge-runtime, new device": lambda: _seconds_to_verdict(_edge(_copy(desk.home, folder)), first),
        "edge-runtime, next reading": lambda: _seconds_to_verdict(_edge(_copy(desk.warm_home, folder)), following),
        "pandas and scikit-learn": lambda: _seconds_to_verdict(_rival(desk), first),
    }
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    for repeat in range(-1, repeats):  # the first round fills the page cache and is not counted
        for name, side in sides.items():
            taken = side()
            if repeat >= 0:
                seconds[name].append(taken)
        report.progress(f"first verdict, round {repeat + 1} of {repeats}")
    for name, pairs in seconds.items():
        timing = Timing(f"process start to first verdict, {name}", 1, 1, *zip(*pairs, strict=True))
        report.timings([timing])
        limit = 0.6 if name.startswith("edge") else None
        report.figure(f"first verdict, {name}", timing.median, "s", at_most=limit)
        report.figure(f"first verdict, {name}, processor time", statistics.median(timing.cpu_seconds), "s")


def _memory(report: Report, desk: Desk, folder: Path, verdicts: int, rival_verdicts: int) -> None:
    """Read the resident memory of both processes after many verdicts, input left open."""
    sides = {
        "edge-runtime": (_edge(_copy(desk.home, folder)), desk.lines[: verdicts + desk.slots], verdicts),
        "pandas and scikit-learn": (_rival(desk), desk.lines[:rival_verdicts], rival_verdicts),
    }
    for name, (command, lines, wanted) in sides.items():
        started = time.perf_counter()
        memory = _resident(command, [desk.header, *lines], wanted)
        report.progress(f"{name}: {wanted} verdicts in {time.perf_counter() - started:.1f} s")
        limit = 100 if name == "edge-runtime" else None
        report.figure(f"resident after {wanted:,} verdicts, {name}", memory.rss / 1e6, "MB", at_most=limit)


def _resident(command: Sequence[str], lines: Sequence[str], wanted: int) -> Any:
    process = _start(command)
    source, sink = _pipes(process)
    with process:
        # A thread writes while this one reads: pipes hold 64 KB only.
        import threading

        writer = threading.Thread(target=_write, args=(source, lines), daemon=True)
        writer.start()
        seen = 0
        for line in sink:
            seen += '"scored"' in line
            if seen >= wanted:
                break
        memory = psutil.Process(process.pid).memory_info()
        writer.join()
        source.close()
        sink.read()
    if seen < wanted:
        raise RuntimeError(f"{command[0]} gave {seen} of {wanted} verdicts")
    return memory


def _write(source: IO[str], lines: Sequence[str]) -> None:
    source.write("\n".join(lines) + "\n")
    source.flush()


def _throughput(report: Report, desk: Desk, folder: Path, *, repeats: int) -> None:
    """Score a file from its first line to its last, everything stored."""
    path = folder / "readings.csv"
    path.write_text("\n".join([desk.header, *desk.lines]) + "\n", "utf-8")
    taken, inside, anomalous = [], [], 0
    for _ in range(repeats):
        command = _edge(_copy(desk.home, folder), "--input", str(path), "--json")
        started = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        taken.append(time.perf_counter() - started)
        summary = json.loads(done.stdout)
        inside.append(float(summary["seconds"]))
        anomalous = int(summary["anomalous"])
    count = len(desk.lines)
    report.timings([Timing("edge-runtime score, file", count, 1, tuple(taken))])
    report.figure("edge-runtime score, process start included", count / statistics.median(taken), "readings a second")
    report.figure("edge-runtime score, scoring and storing", count / statistics.median(inside), "readings a second")
    report.note(
        f"The file has {count:,} readings in groups of 200, each group one transaction on disk; {anomalous:,} windows"
        " were anomalous."
    )


def _in_process(report: Report, desk: Desk, folder: Path, *, repeats: int) -> None:
    """Time single readings through the Python API, stored before the verdict is returned."""
    from edge_runtime.device_scoring import Device
    from edge_runtime.edge_db import EdgeDatabase

    names = desk.header.split(",")
    readings = [dict(zip(names, _cells(line), strict=True)) for line in desk.lines[desk.slots :]]
    with Device.open(_copy(desk.warm_home, folder)) as device:
        latencies = []
        for reading in readings[:repeats]:
            started = time.perf_counter()
            device.score([reading])
            latencies.append(time.perf_counter() - started)
        block = readings[repeats : repeats + 2000]
        started = time.perf_counter()
        device.score(block)
        together = (time.perf_counter() - started) / len(block)
    with EdgeDatabase(_copy(desk.warm_home, folder) / "edge.db") as database:
        commit = take_turns([Side("commit", lambda n: _commit(database, n))], repeats=min(repeats, 100))["commit"]
    report.timings([Timing("one reading, stored and judged, in process", 1, 1, tuple(latencies)), commit])
    report.figure("one reading in process, median", statistics.median(latencies) * 1e3, "ms")
    report.figure("one reading in process, 95 %", float(np.quantile(latencies, 0.95)) * 1e3, "ms")
    report.figure("of that an empty transaction on this disk", commit.median * 1e3, "ms")
    report.figure("2,000 readings in one call", together * 1e6, "us a reading")


def _cells(line: str) -> list[float | None]:
    return [float(cell) if cell else None for cell in line.split(",")]


def _commit(database: Any, number: int) -> None:
    from edge_runtime.edge_db import count

    with database.transaction() as sql:
        count(sql, {"benchmark": number + 1})

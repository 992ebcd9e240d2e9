"""Ten minutes of a fleet's real mix at the rate that the paper promises: answers, records, memory.

``python -m benchmarks soak`` runs it whole; ``python -m benchmarks.soak --minutes 2`` a shorter one, whose result is
shown and not kept.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from benchmarks.bench_server import CHANNEL, MODEL, BenchServer, cpu_seconds_of, resident_bytes_of
from benchmarks.harness import Report, readable, write_result
from benchmarks.load.fleet import MOST_DEVICES
from benchmarks.machine import REPOSITORY

QUESTION = (
    "How many devices that poll, upload and report hourly this machine carries, by the processor time of a visit,"
    " and whether it does so for ten minutes: no 5xx, no record lost or twice, memory flat."
)
MINUTES, QUICK_MINUTES = 10.0, 0.5
HOUR_SECONDS = 3600
# Half of the machine: the other half is for people, upkeep, bursts, and here for the load generator itself.
USE = 0.5
LOOK_SECONDS = 5.0
CALIBRATION_VISITS_A_SECOND = 25
# Memory is flat when the last fifth of the run holds at most this much more than its second fifth (the first one fills
# caches and opens connections), means of what was seen each five seconds.
MOST_GROWTH_PERCENT = 5.0
# A rollout in the middle: this share of the devices fetches another bundle.
ROLLOUT_SHARE = 1_000


@dataclass(frozen=True, slots=True)
class Load:
    """One run of the load generator beside the server.

    Attributes:
        result: What the generator says.
        cpu_seconds: Processor seconds of ``server`` and ``postgres`` meanwhile.
        seconds: Wall-clock seconds.
        memory: Seconds since the start, bytes of the server, bytes of Postgres.
    """

    result: dict[str, Any]
    cpu_seconds: dict[str, float]
    seconds: float
    memory: list[tuple[float, int, int]]

    @property
    def visits(self) -> int:
        """Whole visits."""
        return int(self.result["events"].get("visits", 0))

    @property
    def cpu_a_visit(self) -> float:
        """Processor seconds of server and database that a visit took."""
        return sum(self.cpu_seconds.values()) / max(1, self.visits)


def run(report: Report, *, quick: bool) -> None:
    """Calibrate, compute, verify."""
    soak(report, QUICK_MINUTES if quick else MINUTES)


def soak(report: Report, minutes: float) -> None:
    """Measure what a visit costs, compute how many devices that carries, and run that load.

    Args:
        report: Gets the figures.
        minutes: How long the load lasts.
    """
    cores = os.cpu_count() or 1
    with tempfile.TemporaryDirectory() as name, BenchServer(Path(name), workers=cores) as server:
        report.progress("publishing two releases")
        server.publish(releases=2)
        every = 60.0
        warm = _load(report, server, int(CALIBRATION_VISITS_A_SECOND * every), every, min(60.0, 30 * minutes))
        devices = min(MOST_DEVICES, int(cores * USE * HOUR_SECONDS / warm.cpu_a_visit) // 1000 * 1000)
        report.figure("processor time of a visit: poll, upload, status", 1e3 * warm.cpu_a_visit, "ms")
        report.figure(f"devices that visit hourly, {USE:.0%} of {cores} cores (on paper)", devices, "devices")
        done = _load(report, server, devices, HOUR_SECONDS, 60 * minutes, rollout=True)
    _tell(report, done, cores, minutes)
    if minutes < MINUTES:
        report.note(f"Shortened: {minutes:g} minutes instead of {MINUTES:g}.")


def _tell(report: Report, done: Load, cores: int, minutes: float) -> None:
    result, stored = done.result, done.result["stored"]
    report.figure(f"visits a second, {minutes:g} minutes long", done.visits / (60 * minutes), "visits/s")
    report.figure("answers of 5xx", result["server_errors"], "", at_most=0)
    report.figure("exchanges without an answer", sum(result["errors"].values()), "", at_most=0)
    report.figure("records acknowledged", stored["acknowledged"], "records")
    wrong = stored["lost"] + stored["twice"] + stored["surplus"]
    report.figure("records lost, or there twice", wrong, "", at_most=0)
    used = sum(done.cpu_seconds.values()) / done.seconds / cores
    report.figure("share of all cores that server and database used", 100 * used, "%")
    for kind, place in (("server", 1), ("postgres", 2)):
        held = [(row[0], row[place]) for row in done.memory]
        report.figure(
            f"growth of memory, {kind}", growth_percent(held), "%",
            at_most=MOST_GROWTH_PERCENT if kind == "server" and minutes >= MINUTES else None,
        )  # fmt: skip
    report.figure("visits later than planned by, p99", result["lag_ms"]["p99"], "ms")
    rows = [[what, *times.values()] for what, times in result["latency_ms"].items()]
    report.table("Latency by request, ms", ("request", "p50", "p95", "p99", "longest"), rows)
    counts = [
        [what, ", ".join(f"{count:,} x {status}" for status, count in answers.items())]
        for what, answers in result["answers"].items()
    ]
    report.table("Answers", ("request", "answers"), counts)
    step = max(1, len(done.memory) // 10)
    memory = [[f"{at:.0f} s", one / 1e6, other / 1e6] for at, one, other in done.memory[::step]]
    report.table("Memory", ("after", "server, MB", "Postgres' own, MB"), memory)
    events = ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in sorted(result["events"].items()))
    report.note(f"What the devices did: {events}; {result['repeated']:,} records were sent again.")
    report.note(
        f"Flat memory: the mean of the last fifth of the run is at most {MOST_GROWTH_PERCENT:g} % above that of the "
        "second fifth. The server's figure is the resident sets of all its processes, Postgres' what each of its "
        "processes has for itself."
    )


def growth_percent(held: Sequence[tuple[float, float]]) -> float:
    """Return by how many per cent the last fifth of a series lies above its second fifth; NaN for a short one.

    Args:
        held: Times, and what was held then.
    """
    fifth = len(held) // 5
    if fifth < 1:
        return float("nan")
    values = [value for _, value in held]
    before, after = statistics.fmean(values[fifth : 2 * fifth]), statistics.fmean(values[-fifth:])
    return 100 * (after / before - 1)


def _load(
    report: Report, server: BenchServer, devices: int, every: float, seconds: float, *, rollout: bool = False
) -> Load:
    """Run the load generator in a process of its own and watch the server meanwhile.

    Args:
        report: Gets progress.
        server: The server.
        devices: How many.
        every: Seconds between a device's visits.
        seconds: How long.
        rollout: Whether another release is rolled out to some devices after a third of the time.
    """
    from exporter.channels import start_rollout

    report.progress(f"{devices:,} devices, {devices / every:.1f} visits a second, {seconds:.0f} s")
    words = ["--url", server.url, "--data-dir", str(server.data_dir), "--devices", str(devices), "--json"]
    words += ["--poll-every", str(every), "--seconds", str(seconds), "--model", MODEL, "--channel", CHANNEL]
    command = [sys.executable, "-m", "benchmarks.load", *words]
    with tempfile.TemporaryFile("w+") as said, tempfile.TemporaryFile("w+") as told:
        child = subprocess.Popen(command, cwd=REPOSITORY, stdout=said, stderr=told)
        while child.poll() is None and not told.seek(0) and "enrolled" not in told.read():
            time.sleep(0.2)
        began, before, memory = time.monotonic(), cpu_seconds_of(server.pid), []
        while child.poll() is None:
            elapsed = time.monotonic() - began
            if elapsed < seconds:
                held = resident_bytes_of(server.pid)
                memory.append((elapsed, held["server"], held["postgres"]))
            if rollout and elapsed > seconds / 3:
                start_rollout(server.publisher, CHANNEL, MODEL, 2, ROLLOUT_SHARE)
                rollout = False
            time.sleep(min(LOOK_SECONDS, max(0.5, seconds / 20)))
        took, after = time.monotonic() - began, cpu_seconds_of(server.pid)
        said.seek(0)
        lines = said.read().splitlines()
        if not lines:
            told.seek(0)
            raise RuntimeError(f"the load generator left without a result: {told.read()[-2000:]}")
    return Load(json.loads(lines[-1]), {kind: after[kind] - before[kind] for kind in after}, took, memory)


@click.command()
@click.option("--minutes", type=click.FloatRange(0.2, 60), default=MINUTES, show_default=True, help="How long.")
def main(minutes: float) -> None:
    """Run the soak alone, as short as wanted; a whole one is kept as a result."""
    report = Report("soak", QUESTION, quick=minutes < MINUTES)
    soak(report, minutes)
    result = report.to_dict() | {"command": f"python -m benchmarks.soak --minutes {minutes:g}"}
    click.echo(readable(result))
    click.echo(f"written to {write_result(result)}", err=True)


if __name__ == "__main__":
    main()

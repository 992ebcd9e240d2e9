"""Whole polls: how much processor time of the server one costs, beside the least that gunicorn can do."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from benchmarks.bench_server import BenchServer, cpu_seconds_of
from benchmarks.harness import Report
from benchmarks.load.connection import Answer, connect
from benchmarks.load.requests import Requests
from benchmarks.machine import REPOSITORY

QUESTION = "Whole polls (a root that is not there yet, then timestamp.json): processor time of server and database."
GOAL_A_SECOND = 800
CLIENTS = 16
HOUR_SECONDS = 3600
OURS, RAW = "ours", "raw limit"
# Name, whether polls carry If-None-Match, whether connections stay open.
FORMS = (
    ("as edge_runtime", False, False),
    ("with ETag", True, False),
    ("with ETag, connection kept", True, True),
)
_TIMEOUT_SECONDS = 30.0


@dataclass(slots=True)
class Measured:
    """What the rounds of one form and server brought: polls, server and database CPU seconds, wall, latencies."""

    cpu_seconds: list[float] = field(default_factory=list)
    a_second: list[float] = field(default_factory=list)
    milliseconds: list[float] = field(default_factory=list)

    @property
    def microseconds(self) -> float:
        """Processor time of a poll, median of the rounds."""
        return 1e6 * statistics.median(self.cpu_seconds)

    @property
    def per_core(self) -> list[float]:
        """Polls that a second of one core does, a figure a round."""
        return [1 / seconds for seconds in self.cpu_seconds]


def run(report: Report, *, quick: bool) -> None:
    """Measure every form on both servers, in turns."""
    seconds, rounds = (1.0, 1) if quick else (6.0, 5)
    with tempfile.TemporaryDirectory() as name, BenchServer(Path(name)) as server:
        report.progress("publishing a release")
        server.publish()
        host, port = server.place
        with _raw_server(Path(name), *asyncio.run(_answers(host, port))) as (raw_port, raw_pid):
            sides = {OURS: (port, server.pid), RAW: (raw_port, raw_pid)}
            measured = {(side, form): Measured() for side in sides for form, _, _ in FORMS}
            for number in range(-1, rounds):  # the first warms up
                for side, (its_port, pid) in sides.items() if number % 2 else reversed(sides.items()):
                    for form, etag, kept in FORMS:
                        into = measured[side, form] if number >= 0 else Measured()
                        asyncio.run(_round(host, its_port, pid, seconds, etag, kept, into))
    _tell(report, measured)
    report.note(
        "Polls a second per core are counted in processor time, not in wall time: all polls of a round, divided by the "
        "processor seconds that the server's and the database's processes took meanwhile. The clients are not counted."
    )
    if quick:
        report.note("Quick: one round of a second.")


def _tell(report: Report, measured: dict[tuple[str, str], Measured]) -> None:
    for form, _, _ in FORMS:
        ours, raw = measured[OURS, form], measured[RAW, form]
        rates = ours.per_core
        report.figure(
            f"whole polls a second per core, {form}", statistics.median(rates), "polls/s", at_least=GOAL_A_SECOND,
            repeats=rates,
        )  # fmt: skip
        report.figure(f"share of the raw limit, {form}", raw.microseconds / ours.microseconds, "x")
    slowest = measured[OURS, FORMS[0][0]]
    report.figure("processor time of a whole poll, as edge_runtime", slowest.microseconds, "us")
    report.figure(
        "devices that poll hourly and do nothing else, a core in use by half",
        HOUR_SECONDS / 2 * statistics.median(slowest.per_core), "devices",
    )  # fmt: skip
    rows = []
    for (side, form), one in measured.items():
        ordered = sorted(one.milliseconds)
        p50, p99 = ordered[len(ordered) // 2], ordered[len(ordered) * 99 // 100]
        rows.append([f"{side}, {form}", one.microseconds, statistics.median(one.a_second), p50, p99])
    columns = ("server and form", "processor us a poll", "polls/s here", "p50 ms", "p99 ms")
    report.table(f"Whole polls, {CLIENTS} clients at once", columns, rows)


async def _round(host: str, port: int, pid: int, seconds: float, etag: bool, kept: bool, into: Measured) -> None:
    """Poll with all clients for some seconds."""
    requests = Requests(f"{host}:{port}")
    tag = (await _one(host, port, requests.timestamp())).header("etag") if etag else ""
    root, timestamp, expected = requests.root(2), requests.timestamp(tag), 304 if etag else 200
    ends, times = time.perf_counter() + seconds, []

    async def client() -> None:
        connection = None
        while (began := time.perf_counter()) < ends:
            if connection is None:
                connection = await connect(host, port, _TIMEOUT_SECONDS)
            first = await connection.exchange(root, _TIMEOUT_SECONDS)
            second = await connection.exchange(timestamp, _TIMEOUT_SECONDS)
            if (first.status, second.status) != (404, expected):
                raise RuntimeError(f"a poll was answered with {first.status} and {second.status}")
            if not kept:
                connection.close()
                connection = None
            times.append(1e3 * (time.perf_counter() - began))
        if connection is not None:
            connection.close()

    before, began = sum(cpu_seconds_of(pid).values()), time.perf_counter()
    await asyncio.gather(*(client() for _ in range(CLIENTS)))
    took = time.perf_counter() - began
    into.cpu_seconds.append((sum(cpu_seconds_of(pid).values()) - before) / len(times))
    into.a_second.append(len(times) / took)
    into.milliseconds += times


async def _one(host: str, port: int, request: bytes) -> Answer:
    connection = await connect(host, port, _TIMEOUT_SECONDS)
    try:
        return await connection.exchange(request, _TIMEOUT_SECONDS)
    finally:
        connection.close()


async def _answers(host: str, port: int) -> tuple[Answer, Answer]:
    requests = Requests(f"{host}:{port}")
    return await _one(host, port, requests.root(2)), await _one(host, port, requests.timestamp())


@contextmanager
def _raw_server(folder: Path, root: Answer, timestamp: Answer) -> Iterator[tuple[int, int]]:
    """Run gunicorn with the same threads and an app that only says these answers; yields port and process id."""
    given = {}
    for path, answer in (("2.root.json", root), ("timestamp.json", timestamp)):
        status, *lines = answer.head.decode("latin-1").split("\r\n")
        headers = [line.partition(": ")[::2] for line in lines]
        kept = [header for header in headers if header[0].lower() not in ("date", "server", "connection")]
        given[f"/repository/metadata/{path}"] = (status.partition(" ")[2], kept, answer.body.decode())
    file = folder / "raw.json"
    file.write_text(json.dumps(given), "utf-8")
    with socket.create_server(("127.0.0.1", 0), backlog=2048) as listener:
        port = listener.getsockname()[1]
    command = [sys.executable, "-m", "gunicorn", "--worker-class", "gthread", "--threads", "16", "--keep-alive", "5"]
    command += [
        "--bind",
        f"127.0.0.1:{port}",
        "--no-control-socket",
        "--log-level",
        "warning",
        "benchmarks.raw_polls:app",
    ]
    process = subprocess.Popen(command, cwd=REPOSITORY, env=os.environ | {"RAW_POLLS": str(file)})
    try:
        _wait_for(port, process)
        yield port, process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    ends = time.monotonic() + _TIMEOUT_SECONDS
    while time.monotonic() < ends and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.1)
        else:
            if psutil.Process(process.pid).children():
                return
    raise RuntimeError("gunicorn with the smallest app did not start")

"""Scoring through the real server: ``POST /api/anomalies/score`` at a steady rate, other windows in each request.

The load is open: request k is due at k / rate seconds whatever became of those before, and its latency counts from
then, so that a server that falls behind shows it. Server, Postgres and load share the machine.
"""

from __future__ import annotations

import http.client
import json
import queue
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.bench_server import BenchServer, cpu_seconds_of, packed_phones
from benchmarks.harness import Report
from benchmarks.models import SLOTS, build_phones, windows_of

QUESTION = (
    "One window of 24 x 25 readings through POST /api/anomalies/score at 100 requests a second, beside Postgres and the"
    " load on the same machine."
)
RATE = 100.0
# Enough that no request waits for a connection, as many as the server has threads.
CONNECTIONS = 16
GOAL_MS = 15.0


@dataclass(frozen=True, slots=True)
class Desk:
    """A running server with a release on all devices of its one channel.

    Attributes:
        server: The server.
        token: An operator's token.
        windows: (n, W, S) float32 of the fleet.
        flags: (n,) which of them are anomalous.
        signals: Names of the columns.
    """

    server: BenchServer
    token: str
    windows: npt.NDArray[np.float32]
    flags: npt.NDArray[np.bool_]
    signals: list[str]


@dataclass(slots=True)
class Taken:
    """What a load brought: milliseconds from when a request was due to its answer, and how many failed."""

    milliseconds: list[float] = field(default_factory=list)
    failed: int = 0
    cpu_ms: float = 0.0


def run(report: Report, *, quick: bool) -> None:
    """Measure the loads one after the other on one server."""
    seconds = 4.0 if quick else 60.0
    with tempfile.TemporaryDirectory() as name, _desk(Path(name), report, quick) as desk:
        rows = []
        for title, bodies in _loads(desk):
            challenged = title.endswith("beside it")
            if challenged:
                _call(desk, "PUT", "/api/channels/stable/challenger", {"release": 2, "share": 10_000})
            _drive(desk, bodies, 2.0)
            taken = _drive(desk, bodies, seconds)
            rows.append(_row(report, title, taken))
            if title == "one window":
                p95 = float(np.percentile(taken.milliseconds, 95))
                report.figure("one window at 100 requests a second, p95", p95, "ms", at_most=None if quick else GOAL_MS)
        report.table(
            "Milliseconds from when a request was due to its answer, at 100 requests a second",
            ("load", "requests", "p50", "p95", "p99", "worst", "failed", "server CPU ms a request"),
            rows,
        )
        report.note("The system that this one replaces took 180 ms for one window.")
        if quick:
            report.note(f"Quick: {seconds:g} s of each load instead of 60.")


def _loads(desk: Desk) -> Iterator[tuple[str, list[bytes]]]:
    healthy, anomalous = np.flatnonzero(~desk.flags), np.flatnonzero(desk.flags)
    windows = desk.windows
    ordinary = [_body(windows=_cells(windows[row : row + 1])) for row in healthy[:2_000]]
    yield "one window", ordinary
    yield "24 readings", [_readings(desk, row) for row in healthy[:2_000]]
    if len(anomalous):
        yield "one anomalous window, explained", [_body(windows=_cells(windows[[row]])) for row in anomalous[:500]]
    yield "10 windows", [_body(windows=_cells(windows[row : row + 10])) for row in range(0, 2_000, 10)]
    yield "one window, a challenger beside it", ordinary


def _body(**fields: Any) -> bytes:
    return json.dumps({"channel": "stable", **fields}).encode()


def _cells(windows: npt.NDArray[np.float32]) -> list[Any]:
    return [[[None if np.isnan(v) else round(float(v), 4) for v in row] for row in one] for one in windows]


def _readings(desk: Desk, row: int) -> bytes:
    window = desk.windows[row]
    there = ~np.isnan(window).all(axis=1)
    times = (1_760_000_000_000 + 1_800_000 * np.arange(SLOTS))[there].tolist()
    columns = np.array(_cells(window[there][None])[0], dtype=object).T.tolist()
    return _body(readings={"observed_at_ms": times, "signals": dict(zip(desk.signals, columns, strict=True))})


def _drive(desk: Desk, bodies: Sequence[bytes], seconds: float) -> Taken:
    """Send other bodies in turn at the rate for some seconds, on connections that are kept."""
    due: queue.Queue[tuple[float, bytes] | None] = queue.Queue()
    taken, lock = Taken(), threading.Lock()
    workers = [threading.Thread(target=_send, args=(desk, due, taken, lock), daemon=True) for _ in range(CONNECTIONS)]
    before = _cpu_seconds(desk)
    for worker in workers:
        worker.start()
    begun, count = time.perf_counter(), int(seconds * RATE)
    for number in range(count):
        moment = begun + number / RATE
        time.sleep(max(0.0, moment - time.perf_counter()))
        due.put((moment, bodies[number % len(bodies)]))
    for _ in workers:
        due.put(None)
    for worker in workers:
        worker.join()
    taken.cpu_ms = (_cpu_seconds(desk) - before) * 1e3 / count
    return taken


def _send(desk: Desk, due: queue.Queue[tuple[float, bytes] | None], taken: Taken, lock: threading.Lock) -> None:
    connection = http.client.HTTPConnection(*desk.server.place, timeout=30)
    headers = {"Authorization": f"Bearer {desk.token}", "Content-Type": "application/json"}
    while (item := due.get()) is not None:
        moment, body = item
        try:
            connection.request("POST", "/api/anomalies/score", body, headers)
            answer = connection.getresponse()
            content = answer.read()
            good = answer.status == 200 and b'"scored"' in content
        except (OSError, http.client.HTTPException):
            connection.close()
            good = False
        elapsed = (time.perf_counter() - moment) * 1e3
        with lock:
            taken.milliseconds.append(elapsed)
            taken.failed += not good
    connection.close()


def _row(report: Report, title: str, taken: Taken) -> list[str | int | float]:
    p50, p95, p99, worst = (float(value) for value in np.percentile(taken.milliseconds, (50, 95, 99, 100)))
    report.progress(f"{title}: p50 {p50:.2f}, p95 {p95:.2f}, p99 {p99:.2f} ms, {taken.failed} failed")
    return [title, len(taken.milliseconds), p50, p95, p99, worst, taken.failed, taken.cpu_ms]


def _cpu_seconds(desk: Desk) -> float:
    return sum(cpu_seconds_of(desk.server.pid).values())


@contextmanager
def _desk(folder: Path, report: Report, quick: bool) -> Iterator[Desk]:
    """Build the model, start a server, publish two releases and roll the first one out."""
    report.progress("building the model from a simulated fleet")
    model = folder / "model"
    model.mkdir()
    phones = build_phones(model, devices=20 if quick else 40, days=4 if quick else 7)
    windows = windows_of(phones.fleet, phones.built).sample(6_000, 0).windows()
    from edge_runtime.scoring import Scorer

    flags = Scorer(phones.built.model_onnx).score(windows).is_anomaly
    with BenchServer(folder) as server:
        server.publish(releases=2, pack=lambda key, releases: packed_phones(phones.built, key, releases))
        signals = [signal.name for signal in phones.built.signals]
        desk = Desk(server, server.token("operator"), windows, flags, signals)
        _wait_until_ready(desk)
        yield desk


def _call(desk: Desk, method: str, path: str, body: Any = None) -> Any:
    request = urllib.request.Request(
        f"{desk.server.url}{path}", None if body is None else json.dumps(body).encode(),
        {"Authorization": f"Bearer {desk.token}", "Content-Type": "application/json"}, method=method,
    )  # fmt: skip
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def _wait_until_ready(desk: Desk) -> None:
    deadline = time.monotonic() + 60
    while not _is_ready(desk):
        if time.monotonic() > deadline:
            raise TimeoutError("the server was not ready within a minute")
        time.sleep(0.1)


def _is_ready(desk: Desk) -> bool:
    """Whether the server says so; a load's first seconds, which are not counted, load the model if need be."""
    try:
        loaded = _call(desk, "GET", "/health/ready")["status"] == "ready"
    except urllib.error.HTTPError:
        return False
    return bool(loaded)

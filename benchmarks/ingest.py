"""Results into the server: through HTTP in batches of 50, and with psycopg alone into the same tables, in turn."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, LiteralString

import psycopg

from benchmarks.bench_server import BenchServer, cpu_seconds_of, libpq_url
from benchmarks.harness import Cell, Report
from benchmarks.ingest_batches import BATCH_RECORDS
from benchmarks.ingest_raw import FIRST_STREAM, WAYS
from benchmarks.load.fleet import Fleet
from benchmarks.machine import REPOSITORY

QUESTION = (
    "Ingest of results through HTTP in batches of 50, server, Postgres and load on this machine, against psycopg alone"
    " with the same batches into the same tables; 5 % of the batches are sent twice."
)
REPEAT_SHARE = 0.05
# Two workers for two cores, and enough batches on their way that none of them waits.
WORKERS, THREADS, CONNECTIONS, RAW_CONNECTIONS = 2, 8, 8, 2
HTTP = "HTTP"

_STORED: LiteralString = f"""
SELECT (SELECT count(*) FROM anomalies WHERE stream_id < {FIRST_STREAM}),
       (SELECT count(*) FROM summaries WHERE stream_id < {FIRST_STREAM}),
       (SELECT count(*) FROM events WHERE stream_id < {FIRST_STREAM}),
       (SELECT coalesce(sum(windows), 0) FROM hourly_rollups)::bigint,
       (SELECT coalesce(sum(incidents), 0) FROM hourly_rollups)::bigint,
       (SELECT count(*) FROM incidents)
"""


class LoadProcess:
    """The load in a process of its own; see :mod:`benchmarks.ingest_load`."""

    def __enter__(self) -> LoadProcess:
        command = [sys.executable, "-m", "benchmarks.ingest_load"]
        self._process = subprocess.Popen(
            command, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def take_over(self, fleet: Fleet) -> None:
        """Let it be the devices of a fleet."""
        devices = [[fleet.device_id(k), fleet.token(k), fleet.stream(k)] for k in range(fleet.devices)]
        self.ask("devices", devices=devices)

    def ask(self, do: str, **options: object) -> dict[str, Any]:
        """Give a command and return its answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"do": do, **options}) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer


@dataclass(slots=True)
class Side:
    """What the rounds of one side came to.

    Attributes:
        rates: Records a second, one figure a round.
        cpu_ms: Processor milliseconds a batch by process, one figure a round.
    """

    rates: list[float] = field(default_factory=list)
    cpu_ms: dict[str, list[float]] = field(default_factory=dict)

    def add(self, answer: dict[str, Any], cpu_seconds: dict[str, float], batches: int) -> None:
        """Add a round."""
        self.rates.append(answer["stored"] / answer["seconds"])
        for process, seconds in {**cpu_seconds, "load": answer["cpu_seconds"]}.items():
            self.cpu_ms.setdefault(process, []).append(seconds / batches * 1000)


@dataclass(slots=True)
class Sent:
    """What went through HTTP in all, warm-up included.

    Attributes:
        made: Records, anomalies, incidents and windows that were made.
        statuses: Answers by status.
        wrong: Answers that said something else than what the batch was.
        latencies: Seconds of each answered request of the timed rounds.
    """

    made: dict[str, int] = field(default_factory=dict)
    statuses: dict[str, int] = field(default_factory=dict)
    wrong: int = 0
    latencies: list[float] = field(default_factory=list)


class Rounds:
    """Makes batches and lets one side have them."""

    def __init__(self, server: BenchServer, load: LoadProcess, batches: int) -> None:
        self.sides = {name: Side() for name in (HTTP, *WAYS)}
        self.sent = Sent()
        self._server, self._load, self._batches = server, load, batches

    def run(self, name: str, *, timed: bool = True) -> None:
        """Give one side a round of batches that nobody has seen."""
        made = self._load.ask("make", batches=self._batches)
        before = cpu_seconds_of(self._server.pid)
        if name == HTTP:
            answer = self._load.ask(
                "http", port=self._server.place[1], connections=CONNECTIONS, repeat_share=REPEAT_SHARE
            )
            self._note(made, answer, timed=timed)
        else:
            answer = self._load.ask(
                "raw", url=libpq_url(self._server.database_url), connections=RAW_CONNECTIONS, way=name
            )
        after = cpu_seconds_of(self._server.pid)
        if timed:
            used = {process: after[process] - before[process] for process in after}
            self.sides[name].add(answer, used, self._batches)

    def _note(self, made: dict[str, int], answer: dict[str, Any], *, timed: bool) -> None:
        for key, count in made.items():
            self.sent.made[key] = self.sent.made.get(key, 0) + count
        for status, count in answer["statuses"].items():
            self.sent.statuses[status] = self.sent.statuses.get(status, 0) + count
        self.sent.wrong += answer["wrong"]
        if timed:
            self.sent.latencies += answer["latencies"]


def run(report: Report, *, quick: bool) -> None:
    """Start a server, let the sides take turns, and check what is stored."""
    with (
        tempfile.TemporaryDirectory() as folder,
        BenchServer(Path(folder), workers=WORKERS, settings={"threads": THREADS}) as server,
        LoadProcess() as load,
    ):
        server.publish()
        load.take_over(server.enrol(200 if quick else 2_000))
        rounds = Rounds(server, load, 200 if quick else 3_000)
        for name in rounds.sides:
            rounds.run(name, timed=False)
        for turn in range(2 if quick else 5):
            for name in rounds.sides if turn % 2 == 0 else reversed(rounds.sides):
                rounds.run(name)
                report.progress(f"{name}: {rounds.sides[name].rates[-1]:,.0f} records a second")
        _report_speed(report, rounds)
        _report_truth(report, rounds.sent, _stored(server.database_url))


def _report_speed(report: Report, rounds: Rounds) -> None:
    rates = {name: side.rates for name, side in rounds.sides.items()}
    medians = {name: statistics.median(values) for name, values in rates.items()}
    fastest = max(WAYS, key=lambda way: medians[way])
    shares = [through / raw for through, raw in zip(rates[HTTP], rates[fastest], strict=True)]
    report.figure("results a second through HTTP", medians[HTTP], "/s", at_least=15_000, repeats=rates[HTTP])
    report.figure(f"share of psycopg alone ({fastest})", statistics.median(shares), "x", at_least=0.25, repeats=shares)
    for way in WAYS:
        report.figure(f"psycopg alone, {way}", medians[way], "/s", repeats=rates[way])
    latencies = sorted(rounds.sent.latencies)
    for name, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99)):
        report.figure(f"{name} of a batch", 1000 * latencies[int(share * (len(latencies) - 1))], "ms")
    rows: list[list[Cell]] = [
        [name, *(round(statistics.median(side.cpu_ms[process]), 3) for process in ("server", "postgres", "load"))]
        for name, side in rounds.sides.items()
    ]
    report.table("Processor milliseconds a batch of 50", ("side", "server", "Postgres", "load"), rows)
    report.note(
        f"{WORKERS} workers of {THREADS} threads, {CONNECTIONS} connections; psycopg alone on {RAW_CONNECTIONS}"
        f" connections, a transaction a batch. A batch of {BATCH_RECORDS}: 36 anomalies of 6 incidents, their ends, 8"
        " hourly summaries. Through HTTP the server also checks the token and every field, folds incidents and the"
        " roll-up, and keeps what makes a retry safe."
    )


def _stored(database_url: str) -> tuple[Any, ...]:
    with psycopg.connect(libpq_url(database_url)) as connection:
        row = connection.execute(_STORED).fetchone()
    assert row is not None
    return row


def _report_truth(report: Report, sent: Sent, stored: tuple[Any, ...]) -> None:
    anomalies, summaries, events, windows, counted_incidents, incidents = stored
    differences = (
        abs(anomalies + summaries + events - sent.made["records"])
        + abs(anomalies - sent.made["anomalies"])
        + abs(windows - sent.made["windows"])
        + abs(incidents - sent.made["incidents"])
        + abs(counted_incidents - sent.made["incidents"])
    )
    others = sum(count for status, count in sent.statuses.items() if status != "200")
    report.figure("records stored through HTTP", anomalies + summaries + events, "")
    report.figure("answers other than 200", others, "", at_most=0)
    report.figure("wrong answers", sent.wrong, "", at_most=0)
    report.figure("records, windows and incidents too many or too few", differences, "", at_most=0)

"""Does the server answer operators quickly when 10 million results are stored, whatever they ask for?

The past is written by :mod:`benchmarks.seeding` into ``build/seeded/ANOMALIES`` and used again while it is there;
delete the folder to make it anew. The server is a real one with one worker, asked over HTTP with a bearer token by
clients that each keep one connection; client, server and Postgres share the machine.
"""

from __future__ import annotations

import http.client
import json
import random
import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks import plans
from benchmarks.bench_server import BenchServer
from benchmarks.harness import Report
from benchmarks.machine import REPOSITORY
from benchmarks.read_requests import Request, lists, others
from benchmarks.seeding import Fleet, seed
from edge_runtime.contract import routes
from sync_server.access.tokens import issue_token
from sync_server.db import Database, utc_now
from sync_server.embedded_postgres import EmbeddedPostgres
from sync_server.migrations import migrate
from sync_server.postgres_folder import APP

QUESTION = "The read endpoints with 10 million results and 10,000 devices stored: any filter, any page, over HTTP."
SEEDED = REPOSITORY / "build" / "seeded"
PLANS = REPOSITORY / "docs" / "query-plans.md"
# Goals in milliseconds, at the 95th percentile, of one client.
GOALS = {
    f"{routes.ANOMALIES} incidents": 50.0,
    f"{routes.ANOMALIES} windows": 50.0,
    f"{routes.DEVICES}/<id>": 50.0,
    routes.STATS: 50.0,
    routes.TRENDS: 60.0,
}
TRENDS_BYTES = 50_000
_SLOWEST = 12


@dataclass(frozen=True, slots=True)
class Answered:
    """What came of one request.

    Attributes:
        request: The request.
        milliseconds: From sending it to having its whole answer.
        size: Bytes of the body.
    """

    request: Request
    milliseconds: float
    size: int


def run(report: Report, *, quick: bool) -> None:
    """Seed if need be, ask, and keep the plans of the statements that were run."""
    fleet = Fleet(devices=200, anomalies=100_000) if quick else Fleet()
    folder = SEEDED / str(fleet.anomalies)
    token = prepare(report, folder, fleet)
    now_ms = int(utc_now().timestamp() * 1000)
    rng = random.Random(1)
    with BenchServer(folder, data_dir=folder) as server:
        address = server.url.removeprefix("http://")
        warm_up = list(others(fleet, rng, 5))
        ask(address, token, warm_up)
        requests = [*lists(fleet, now_ms, rng), *others(fleet, rng, 20 if quick else 100)]
        rng.shuffle(requests)
        answered = ask(address, token, requests)
        report_endpoints(report, answered, "1 client", goals=not quick)
        report_filters(report, answered)
        for clients in (2, 4):
            report_endpoints(report, at_once(address, token, requests, clients), f"{clients} clients", goals=False)
    with EmbeddedPostgres(folder / "postgres") as postgres:
        database = Database(postgres.app_url, pool_size=1)
        text = plans.page(database, fleet, now_ms)
        database.dispose()
    if not quick:
        PLANS.write_text(text, "utf-8")


def prepare(report: Report, folder: Path, fleet: Fleet) -> str:
    """Seed the folder's database unless it is, and return a fresh token that may read."""
    with EmbeddedPostgres(folder / "postgres") as postgres:
        migrate(postgres.owner_url, app_role=APP)
        done = folder / "seeded.json"
        if not done.exists():
            rows = seed(postgres.owner_url, fleet, now=utc_now())
            done.write_text(json.dumps(rows), "utf-8")
        rows = json.loads(done.read_text("utf-8"))
        report.table("Rows stored", ("table", "rows"), rows.items())
        database = Database(postgres.app_url, pool_size=1)
        with database.session() as session:
            token = issue_token(session, "view", name="benchmark").token
        database.dispose()
    return token


def ask(address: str, token: str, requests: Sequence[Request]) -> list[Answered]:
    """Send requests one after the other over one connection.

    Raises:
        RuntimeError: An answer other than 200, or 404 for a device that does not exist.
    """
    connection = http.client.HTTPConnection(address, timeout=60)
    answered = []
    for request in requests:
        began = time.perf_counter()
        connection.request("GET", request.path, headers={"Authorization": f"Bearer {token}"})
        response = connection.getresponse()
        body = response.read()
        milliseconds = (time.perf_counter() - began) * 1000
        if response.status != 200:
            raise RuntimeError(f"{request.path}: {response.status} {body[:300]!r}")
        answered.append(Answered(request, milliseconds, len(body)))
    connection.close()
    return answered


def at_once(address: str, token: str, requests: Sequence[Request], clients: int) -> list[Answered]:
    """Share the requests among clients that ask at the same time."""
    parts: list[list[Answered]] = [[] for _ in range(clients)]

    def one(place: int) -> None:
        parts[place] = ask(address, token, requests[place::clients])

    threads = [threading.Thread(target=one, args=(place,)) for place in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if sum(map(len, parts)) != len(requests):
        raise RuntimeError("a client failed; its message is above")
    return [answer for part in parts for answer in part]


def report_endpoints(report: Report, answered: Sequence[Answered], who: str, *, goals: bool) -> None:
    """Add a figure and a table row an endpoint."""
    grouped: dict[str, list[Answered]] = defaultdict(list)
    for answer in answered:
        grouped[answer.request.endpoint].append(answer)
    rows = []
    for endpoint, answers in sorted(grouped.items()):
        times = [answer.milliseconds for answer in answers]
        p50, p95, p99 = (float(value) for value in np.percentile(times, (50, 95, 99)))
        size = max(answer.size for answer in answers)
        rows.append((endpoint, len(answers), p50, p95, p99, max(times), size))
        report.figure(f"{endpoint}, {who}, p95", p95, "ms", at_most=GOALS.get(endpoint) if goals else None)
        if goals and endpoint == routes.TRENDS:
            report.figure("trends of 30 days, largest answer", size, "bytes", at_most=TRENDS_BYTES)
    columns = ("endpoint", "requests", "p50 ms", "p95 ms", "p99 ms", "slowest ms", "largest answer, bytes")
    report.table(f"By endpoint, {who}", columns, rows)


def report_filters(report: Report, answered: Sequence[Answered]) -> None:
    """Add tables of the filters: kinds of filters together, then the slowest single requests."""
    grouped: dict[tuple[str, str], list[float]] = defaultdict(list)
    for answer in answered:
        if answer.request.endpoint.startswith(routes.ANOMALIES):
            for part in answer.request.filters.split(" and "):
                grouped[answer.request.endpoint, part].append(answer.milliseconds)
    rows = [
        (f"{endpoint}: {part}", len(times), float(np.median(times)), float(np.percentile(times, 95)), max(times))
        for (endpoint, part), times in sorted(grouped.items())
    ]
    title = "By filter, alone and with each other filter, first and deep pages, 1 client"
    report.table(title, ("filter", "requests", "p50 ms", "p95 ms", "slowest ms"), rows)
    slowest = sorted(answered, key=lambda answer: -answer.milliseconds)[:_SLOWEST]
    report.table(
        "Slowest requests, 1 client",
        ("request", "ms", "bytes"),
        [(f"{a.request.endpoint}: {a.request.filters}", a.milliseconds, a.size) for a in slowest],
    )

"""The load generator: requests as the device makes them, records as the contract wants them, counts that add up."""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from simulators.bundles import SmallBundle

from benchmarks import capacity, server_rows
from benchmarks.bench_server import CHANNEL, MODEL, BenchServer
from benchmarks.harness import Report
from benchmarks.known import Known
from benchmarks.load.__main__ import database_of, load, main, place_of
from benchmarks.load.connection import BrokenAnswerError, connect
from benchmarks.load.device import Habits
from benchmarks.load.fleet import Fleet, new_secret
from benchmarks.load.records import HOUR_MS, Outbox, hour_records
from benchmarks.load.requests import Requests, status_fields
from benchmarks.load.run import Plan
from benchmarks.load.stored import Stored
from benchmarks.load.tally import Tally
from benchmarks.soak import growth_percent
from edge_runtime import device_status, upload
from edge_runtime.contract.batch import decode_batch, encode_batch
from edge_runtime.contract.result import AnyRecord
from edge_runtime.contract.routes import DEVICE_STATUS, METADATA, RESULTS, TARGETS
from edge_runtime.errors import InputError
from edge_runtime.home import Home
from edge_runtime.http_transport import HttpTransport, TransportOptions
from edge_runtime.identity import Identity
from edge_runtime.transport import Request, bearer

FLEET = Fleet(b"\x07" * 32, 1000)
BUNDLE = "b" * 64


class Listener:
    """Accepts one connection, answers each request with the same bytes, and keeps what it was sent."""

    def __init__(self, *answers: bytes) -> None:
        self.heard: list[bytes] = []
        self._answers = answers
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.place = ("127.0.0.1", int(self._socket.getsockname()[1]))
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        client, _ = self._socket.accept()
        with client:
            for answer in self._answers:
                heard = client.recv(65_536)
                head, _, body = heard.partition(b"\r\n\r\n")
                length = re.search(rb"Content-Length: (\d+)", head)
                while length and len(body) < int(length[1]):
                    body += client.recv(65_536)
                self.heard.append(head + b"\r\n\r\n" + body)
                client.sendall(answer)

    def close(self) -> None:
        self._thread.join(10)
        self._socket.close()


NOT_FOUND = b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\n{}"


def test_requests_are_byte_for_byte_those_of_the_device() -> None:
    listener = Listener(*[NOT_FOUND] * 6)
    ours = Requests(f"127.0.0.1:{listener.place[1]}")
    token, records = "t" * 40, _records(3)
    as_json = {**bearer(token), "Content-Type": "application/json"}
    batch = ours.results(token, "a" * 32, 1_700_000_000_000, records)
    status = ours.status(token, {"active": None})
    pairs = [
        (ours.root(2), Request("GET", f"{METADATA}2.root.json")),
        (ours.timestamp(), Request("GET", f"{METADATA}timestamp.json")),
        (ours.metadata(7, "snapshot"), Request("GET", f"{METADATA}7.snapshot.json")),
        (ours.target("a/b/c.bundle"), Request("GET", f"{TARGETS}a/b/c.bundle")),
        (batch, Request("POST", RESULTS, {**as_json, "Content-Encoding": "gzip"}, batch.partition(b"\r\n\r\n")[2])),
        (status, Request("POST", DEVICE_STATUS, as_json, status.partition(b"\r\n\r\n")[2])),
    ]
    with HttpTransport(f"http://127.0.0.1:{listener.place[1]}", TransportOptions()) as transport:
        for _, request in pairs:
            with transport.exchange(request) as answer:
                assert b"".join(answer.chunks) == b"{}"
    listener.close()
    assert [request for request, _ in pairs] == listener.heard
    assert upload.gzip.decompress(pairs[4][1].body or b"") == encode_batch("a" * 32, 1_700_000_000_000, records)


def test_a_status_has_the_fields_of_the_device(tmp_path: Path) -> None:
    identity = Identity("d" * 32, "i" * 32, "http://x", MODEL, CHANNEL, "c", None, "0" * 64, 1, False)
    real = device_status.status_fields(Home(tmp_path), identity, None)
    made = status_fields(bundle=BUNDLE, release=1, version="1", cohort="c", records=0, at_ms=1, readings=60)
    assert made.keys() == real.keys()
    assert made["outbox"].keys() == real["outbox"].keys()
    assert made["runtime"] == real["runtime"]


def _records(seed: int, share: float = 0.5) -> list[AnyRecord]:
    draw, outbox, start = random.Random(seed), Outbox(), 1_700_000_000_000 // HOUR_MS * HOUR_MS
    made: list[AnyRecord] = []
    for hour in range(draw.randint(1, 72)):
        begin = start + hour * HOUR_MS
        until = begin + draw.randrange(HOUR_MS)
        made += hour_records(outbox, BUNDLE, begin, until, incident_share=share, draw=draw)
    return made


@pytest.mark.parametrize("seed", range(20))
def test_records_are_what_the_contract_wants(seed: int) -> None:
    records = _records(seed)
    batch = decode_batch(encode_batch("a" * 32, 1_700_000_000_000, records))
    assert batch.refused == ()
    assert [record.sequence for record in batch.records] == list(range(1, len(records) + 1))
    assert list(batch.records) == records


def test_a_fleet_is_the_same_in_every_process_and_no_two_devices_are() -> None:
    again = Fleet(FLEET.secret, FLEET.devices)
    for name in ("device_id", "installation_id", "token", "stream"):
        values = [getattr(FLEET, name)(device) for device in range(FLEET.devices)]
        assert values == [getattr(again, name)(device) for device in range(FLEET.devices)]
        assert len(set(values)) == FLEET.devices
    assert re.fullmatch(r"st_dev_[A-Za-z0-9_-]{43}", FLEET.token(1))
    assert Fleet(new_secret(), 1).token(0) != Fleet(new_secret(), 1).token(0)


@pytest.mark.parametrize("answer", [b"SSH-2.0\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Le"])
def test_what_is_no_whole_answer_is_an_error(answer: bytes) -> None:
    listener = Listener(answer)

    async def ask() -> None:
        connection = await connect(*listener.place, 5)
        await connection.exchange(b"GET / HTTP/1.1\r\n\r\n", 5)

    with pytest.raises(BrokenAnswerError):
        asyncio.run(ask())
    listener.close()


@pytest.mark.parametrize("url", ["http://192.0.2.1:8080", "https://127.0.0.1", "http://example.org", "ftp://localhost"])
def test_no_other_machine_is_visited(url: str) -> None:
    with pytest.raises(InputError, match="address of this machine"):
        place_of(url)
    assert place_of("http://127.0.0.1:81") == ("127.0.0.1", 81)
    assert place_of("http://[::1]:81") == ("::1", 81)


def test_bounds_and_exit_codes(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="more than 5,000 visits"):
        load("http://127.0.0.1:1", "", devices=10**6, habits=Habits("a", "b"), plan=Plan(1, 60), tell=print)
    with pytest.raises(InputError, match="not known"):
        database_of(tmp_path, None)
    for words, code in (
        (["--url", "http://192.0.2.1"], 3),
        (["--url", "http://127.0.0.1:9", "--data-dir", str(tmp_path)], 3),
        (["--devices", "2000000"], 2),
        (["--url", "http://127.0.0.1:9", "--seconds", "1e9"], 2),
    ):
        assert CliRunner().invoke(main, words, env={"DATABASE_URL": ""}).exit_code == code, words


@pytest.mark.parametrize(
    ("counts", "lost", "surplus", "right"),
    [
        ((10, 0, 10, 10, 0), 0, 0, True),
        ((10, 0, 9, 9, 0), 1, 0, False),
        ((10, 0, 11, 10, 1), 0, 2, False),
        ((10, 0, 10, 9, 1), 1, 1, False),
        ((10, 5, 12, 12, 0), 0, 0, True),
        ((10, 5, 16, 16, 0), 0, 1, False),
        ((10, 0, 10, 11, 0), 0, 1, False),
    ],
)
def test_what_is_stored_is_held_against_what_was_acknowledged(
    counts: tuple[int, int, int, int, int], lost: int, surplus: int, right: bool
) -> None:
    stored = Stored(*counts)
    assert (stored.lost, stored.surplus, stored.is_right) == (lost, surplus, right)


def test_a_tally_counts_and_orders() -> None:
    tally = Tally()
    for k in range(1, 101):
        tally.answered("root", 404 if k < 100 else 503, k / 1000)
    assert tally.server_errors == 1
    assert tally.to_dict()["answers"] == {"root": {"404": 99, "503": 1}}
    assert tally.latencies()["root"] == {"p50": 51.0, "p95": 96.0, "p99": 100.0, "max": 100.0}


def test_growth_is_the_last_fifth_over_the_second() -> None:
    assert growth_percent([(k, 100.0 if k < 8 else 110.0) for k in range(10)]) == pytest.approx(10)
    assert growth_percent([(0, 50.0), (1, 50.0), *[(k, 100.0) for k in range(2, 10)]]) == 0
    assert str(growth_percent([(0, 1.0)])) == "nan"


def test_pages_show_what_there_is_and_say_what_is_not_measured() -> None:
    assert "| whole visits, hourly | not measured |" in capacity.page([])
    soak, polls, reads = Report("soak", "?"), Report("polls", "?"), Report("reads", "?")
    soak.figure("processor time of a visit: poll, upload, status", 10.0, "ms")
    soak.figure("answers of 5xx", 0, "", at_most=0)
    polls.figure("processor time of a whole poll, as edge_runtime", 400.0, "us")
    reads.figure("/api/anomalies windows, 1 client, p95", 12.0, "ms")
    reads.figure("/api/anomalies windows, 8 clients, p95", 60.0, "ms")
    reads.figure("trends of 30 days, largest answer", 31_000, "bytes")
    results = [report.to_dict() for report in (soak, polls, reads)]
    page = capacity.page(results)
    assert "| whole visits, hourly | 10 ms | 180,000 | 360,000 |" in page
    assert "| only polls, hourly | 0.4 ms | 4,500,000 | 9,000,000 |" in page
    rows = "\n".join(server_rows.server_rows(Known({one["benchmark"]: one for one in results})))
    assert "windows, any filter, p95 | 450 ms | 50 ms | 12 ms |" in rows
    assert "| `/api/dashboard/trends` of 30 days, size | 2 MB | 50 kB | 31,000 bytes |" in rows
    assert "| `/api/dashboard/trends` of 30 days, p95 | 680 ms | 60 ms | not measured |" in rows
    assert "| answers of 5xx |  | at most 0 | 0 |" in rows


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BenchServer]:
    """A real server with two small releases, the first one rolled out."""

    def small(key: Any, releases: int) -> list[bytes]:
        numbers = range(1, releases + 1)
        bundles = (SmallBundle(model=MODEL, version=f"1.{n}", release_number=n, bias=0.25 + n / 100) for n in numbers)
        return [bundle.build(key.private).data for bundle in bundles]

    with BenchServer(tmp_path_factory.mktemp("load")) as running:
        running.publish(releases=2, pack=small)
        yield running


def _run(server: BenchServer, during: Callable[[], object], *, seconds: float, **habits: Any) -> dict[str, Any]:
    """Run a fleet of 40 devices, each every second, and do something a second after it began."""

    def tell(text: str) -> None:
        if "enrolled" in text:
            threading.Timer(1.0, during).start()

    made = Habits(MODEL, CHANNEL, **habits)
    return load(server.url, server.database_url, devices=40, habits=made, plan=Plan(seconds, 1.0, 0.2), tell=tell)


def test_a_fleet_visits_a_real_server_and_follows_a_rollout(server: BenchServer) -> None:
    from exporter.channels import start_rollout

    def roll_out() -> None:
        start_rollout(server.publisher, CHANNEL, MODEL, 2, 10_000)

    result = _run(server, roll_out, seconds=4, incident_share=0.5, lost_answers=0.3, batch_records=20, etag=True)
    assert result["as_it_should_be"], json.dumps(result)
    assert set(result["answers"]["root"]) == {"404"}
    assert set(result["answers"]["timestamp"]) == {"200", "304"}
    assert set(result["answers"]["status"]) == {"204"}
    assert result["events"]["activated"] == 40
    assert result["events"]["returned"] > 0
    assert result["repeated"] > 0
    assert set(result["acknowledged"]) == {"anomalies", "summaries", "events"}


def test_a_server_or_database_that_is_away_is_told(server: BenchServer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    words = ["--url", f"http://127.0.0.1:{port}", "--devices", "2", "--seconds", "1"]
    away = CliRunner().invoke(main, [*words, "--data-dir", str(server.data_dir)])
    assert (away.exit_code, "does not answer" in away.stderr) == (5, True)
    no_database = CliRunner().invoke(main, [*words, "--database-url", f"postgresql://a@127.0.0.1:{port}/b"])
    assert (no_database.exit_code, "database refuses" in no_database.stderr) == (6, True)


def test_a_database_that_is_killed_in_the_middle_loses_nothing(server: BenchServer) -> None:
    pid_file = server.data_dir / "postgres" / "cluster" / "postmaster.pid"

    def kill() -> None:
        os.kill(int(pid_file.read_text().splitlines()[0]), signal.SIGKILL)

    began = time.monotonic()
    result = _run(server, kill, seconds=4)
    assert result["stored"]["is_right"], json.dumps(result)
    assert result["stored"]["unsettled"] == 0
    assert set(result["answers"]["results"]) == {"200", "503"}
    assert set(result["answers"]["root"]) == {"404"}, "polls are answered from memory meanwhile"
    assert result["events"]["retries"] > 0
    # Devices came back when they were told to, five seconds later, and not at once.
    assert time.monotonic() - began > 6

"""Too much at once, from all devices or from one: sent away to come again, and nothing is lost."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from flask import Flask
from prometheus_client import REGISTRY
from simulators.app_transport import AppTransport
from simulators.enrolled import EnrolledDevice
from simulators.repository import RepositorySimulator
from simulators.result_tables import rows, stored
from simulators.server_devices import NOON, ServerDevice, anomaly, enrolment_token, summary
from sqlalchemy import text

from edge_runtime.contract.result import Event
from edge_runtime.edge_db import EdgeDatabase
from edge_runtime.errors import TransportError
from edge_runtime.outbox import Outbox
from edge_runtime.upload import upload
from sync_server.app import create_app
from sync_server.config import ServerConfig
from sync_server.db import Database
from sync_server.ingest import service
from sync_server.ingest.gate import RETRY_AFTER_SECONDS, Gate

JSON = {"Content-Type": "application/json"}
MOMENT = datetime.fromisoformat("2026-03-01T10:20:30+00:00")


class Clock:
    """The server's clock, moved by hand."""

    def __init__(self) -> None:
        self.now = MOMENT

    def __call__(self) -> datetime:
        return self.now

    def forward(self, **delta: float) -> None:
        self.now += timedelta(**delta)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(service, "utc_now", clock)
    return clock


def with_limits(config: ServerConfig, database: Database, **limits: int) -> Flask:
    return create_app(dataclasses.replace(config, **limits), database)  # type: ignore[arg-type]


def counted(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


@pytest.fixture
def one_place(app: Flask) -> Flask:
    """An app that stores one batch at a time."""
    app.extensions["ingest_gate"] = Gate(1, wait_seconds=0.05)
    return app


def test_a_batch_too_many_is_sent_away_while_the_rest_is_served(
    one_place: Flask, device: ServerDevice, database: Database
) -> None:
    other = ServerDevice.enrol(one_place.test_client(), enrolment_token(database))
    device.send([anomaly(1)])
    before = counted("ingest_refused_total", code="busy")
    with database.session() as session:  # while it lasts, the device's batch waits inside
        session.execute(text("SELECT FROM streams FOR UPDATE"))
        inside = threading.Thread(target=lambda: device.send([anomaly(2)]))
        inside.start()
        while (answer := other.post([anomaly(1)])).status_code == 200:
            other.stream = other.stream[::-1]  # came before the other one
        assert (answer.status_code, answer.json["code"]) == (503, "busy")
        assert RETRY_AFTER_SECONDS[0] <= int(answer.headers["Retry-After"]) <= RETRY_AFTER_SECONDS[1]
        assert other.report().status_code == 204
    inside.join()
    assert other.send([anomaly(1), anomaly(2)]).held == ((1, 2),)
    assert counted("ingest_refused_total", code="busy") > before
    assert counted("ingest_in_flight") == 0


def test_a_place_is_free_again_after_an_upload_that_was_refused(one_place: Flask, device: ServerDevice) -> None:
    for _ in range(3):
        answer = device.client.post("/api/results", data=b"{}", headers=device.headers(**JSON))
        assert answer.json["code"] == "bad_batch"
    assert device.send([anomaly(1)]).stored == 1


class SlowBody:
    """A body of which nothing comes until ``go``, as from a phone that walks into a lift."""

    def __init__(self) -> None:
        self.asked, self.go = threading.Event(), threading.Event()

    def read(self, _size: int = -1) -> bytes:
        self.asked.set()
        assert self.go.wait(30)
        return b""


def test_a_slow_client_takes_no_place(one_place: Flask, device: ServerDevice) -> None:
    body, statuses = SlowBody(), list[int]()

    def send() -> None:
        answer = one_place.test_client().post(
            "/api/results",
            environ_overrides={"wsgi.input": body, "CONTENT_LENGTH": "1000"},
            headers=device.headers(**JSON),
        )
        statuses.append(answer.status_code)

    slow = threading.Thread(target=send)
    slow.start()
    assert body.asked.wait(30)
    assert device.send([anomaly(1)]).stored == 1
    body.go.set()
    slow.join()
    assert statuses == [400], "what was cut short is refused"
    assert device.send([anomaly(2)]).stored == 1


def test_what_came_is_counted_by_outcome(device: ServerDevice) -> None:
    def now() -> dict[str, float]:
        outcomes = ("stored", "repeated", "refused")
        return {outcome: counted("ingest_records_total", outcome=outcome) for outcome in outcomes} | {
            "batches": counted("ingest_batches_total"),
            "decoded": counted("ingest_phase_seconds_count", phase="decode"),
        }

    before = now()
    device.send([anomaly(1), anomaly(2, NOON + 1)])
    device.send([anomaly(1), anomaly(2, NOON + 2), anomaly(3, NOON + 3)])
    counts = {name: value - before[name] for name, value in now().items()}
    assert counts == {"stored": 3, "repeated": 1, "refused": 1, "batches": 2, "decoded": 2}


def test_a_device_has_so_many_records_a_minute(server_config: ServerConfig, database: Database, clock: Clock) -> None:
    # Two apps on one database are two workers: the quota holds over both.
    apps = [with_limits(server_config, database, device_records_per_minute=3) for _ in range(2)]
    token = enrolment_token(database)
    device, other = (ServerDevice.enrol(apps[0].test_client(), token) for _ in range(2))
    elsewhere = ServerDevice(apps[1].test_client(), device.id, device.token, device.stream)
    device.send([anomaly(1), anomaly(2)])
    elsewhere.send([anomaly(n, NOON + n) for n in range(3, 10)])  # the last one before the limit may be large
    for each in (device, elsewhere):
        answer = each.post([anomaly(10)])
        assert (answer.status_code, answer.json["code"]) == (429, "quota_exceeded")
        assert answer.headers["Retry-After"] == "30"
    assert device.post([anomaly(1)], stream="f" * 32).status_code == 429
    assert len(stored(database)) == 9
    assert other.send([anomaly(1)]).stored == 1
    clock.forward(seconds=30)
    assert device.send([anomaly(10)]).stored == 1
    assert rows(database, "SELECT count(*) AS n FROM streams") == [{"n": 2}]


def test_a_device_has_so_many_records_and_bytes_an_hour(
    server_config: ServerConfig, database: Database, clock: Clock
) -> None:
    by_records = with_limits(server_config, database, device_records_per_hour=3)
    by_bytes = with_limits(server_config, database, device_bytes_per_hour=100)
    device = ServerDevice.enrol(by_records.test_client(), enrolment_token(database))
    device.send([anomaly(n, NOON + n) for n in range(1, 4)])
    clock.forward(minutes=10)
    answer = device.post([anomaly(4)])
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, str(29 * 60 + 30))
    clock.forward(minutes=30)
    device.client = by_bytes.test_client()
    assert device.send([anomaly(4)]).stored == 1
    assert device.post([anomaly(5)]).status_code == 429


def test_repeats_use_up_bytes_and_no_records(server_config: ServerConfig, database: Database, clock: Clock) -> None:
    app = with_limits(server_config, database, device_records_per_minute=3)
    device = ServerDevice.enrol(app.test_client(), enrolment_token(database))
    for _ in range(5):
        assert device.send([anomaly(1), summary(2)]).held == ((1, 2),)
    used = rows(database, "SELECT used_minute_records, used_hour_records, used_hour_bytes FROM devices")[0]
    assert (used["used_minute_records"], used["used_hour_records"]) == (2, 2)
    assert used["used_hour_bytes"] > 500


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    with EdgeDatabase(tmp_path / "edge.db") as database:
        yield Outbox(database)


def test_the_real_uploader_loses_nothing_to_quotas_and_full_houses(
    tmp_path: Path, outbox: Outbox, server_config: ServerConfig, database: Database, clock: Clock
) -> None:
    app = with_limits(server_config, database, device_records_per_minute=10)
    known = ServerDevice.enrol(app.test_client(), enrolment_token(database))
    enrolled = EnrolledDevice.make(tmp_path / "home", RepositorySimulator()).device
    device = dataclasses.replace(enrolled, token=known.token, transport=AppTransport(app.test_client()))
    outbox.append([Event(0, None, NOON + n, "noticed", {"number": n}) for n in range(25)])

    app.extensions["ingest_gate"] = Gate(0, wait_seconds=0)
    with pytest.raises(TransportError) as caught:
        upload(device, outbox, batch_records=5)
    assert caught.value.status == 503
    assert RETRY_AFTER_SECONDS[0] <= (caught.value.retry_after_seconds or 0) <= RETRY_AFTER_SECONDS[1]
    assert outbox.state().records == 25

    app.extensions["ingest_gate"] = Gate(1)
    for left in (15, 5):
        with pytest.raises(TransportError) as caught:
            upload(device, outbox, batch_records=5)
        assert (caught.value.status, caught.value.fields["problem"]) == (429, "quota_exceeded")
        assert outbox.state().records == left
        clock.forward(seconds=caught.value.retry_after_seconds or 0)
    assert upload(device, outbox, batch_records=5).acknowledged == 5
    assert (outbox.state().records, outbox.state().dead_letters) == (0, 0)
    numbers = [row["number"] for row in rows(database, "SELECT CAST(detail->>'number' AS int) AS number FROM events")]
    assert sorted(numbers) == list(range(25))

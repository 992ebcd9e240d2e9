"""Polls answered from memory: word for word what Flask says, never older than promised, one question at a time."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from prometheus_client import REGISTRY
from simulators.bundles import SmallBundle
from simulators.release_engineer import ReleaseEngineer, multipart
from sqlalchemy import event
from werkzeug.test import Client, TestResponse

from sync_server.app import create_app
from sync_server.app_state import get_online_key
from sync_server.config import ServerConfig
from sync_server.db import Database, utc_now
from sync_server.repository import answers, metadata, signing
from sync_server.repository.answers import (
    FRESH_SECONDS,
    KEPT_SECONDS,
    RENEW_SECONDS,
    MetadataAnswers,
    remember_metadata,
)
from sync_server.repository.online_key import load_or_create, public_pem

BUNDLE = SmallBundle().build()
TIMESTAMP = "/repository/metadata/timestamp.json"
NO_ROOT = "/repository/metadata/2.root.json"


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Fake:
    """An app behind the door that counts what it is asked, and says what a test wants."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.status, self.body, self.gate = "200 OK", b"one", threading.Event()
        self.gate.set()

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        self.asked.append(environ["PATH_INFO"])
        assert self.gate.wait(10)
        start_response(self.status, [("Content-Type", "text/plain"), ("ETag", f'"{self.body.decode()}"')])
        return [self.body]


@pytest.fixture
def engineer(app: Flask, client: FlaskClient, auth: Callable[..., dict[str, str]]) -> ReleaseEngineer:
    made = ReleaseEngineer(public_pem(load_or_create(app.extensions["config"].online_key_path)))
    parts = {**made.sign_root(), **made.sign_targets(BUNDLE)}
    assert client.post("/api/publish", data=multipart(parts), headers=auth("pub")).status_code == 201
    return made


def _said(answer: TestResponse) -> tuple[int, bytes, list[tuple[str, str]]]:
    # Whoever serves HTTP adds the date; one that Flask adds as well would be there twice.
    return answer.status_code, answer.data, sorted(h for h in answer.headers if h[0] != "Date")


@pytest.fixture
def door(engineer: ReleaseEngineer, app: Flask) -> FlaskClient:
    """The app as a server runs it."""
    remember_metadata(app)
    return app.test_client()


@pytest.mark.parametrize(("method", "scheme"), [("GET", "http"), ("HEAD", "https"), ("POST", "http")])
def test_what_is_repeated_is_what_flask_says(method: str, scheme: str, engineer: ReleaseEngineer, app: Flask) -> None:
    plain = Client(partial(Flask.wsgi_app, app))
    door = Client(MetadataAnswers(partial(Flask.wsgi_app, app)))
    first = plain.get(TIMESTAMP)
    tag, stored = first.headers["ETag"], first.headers["Last-Modified"]
    conditions = [
        {}, {"If-None-Match": tag}, {"If-None-Match": f"W/{tag}"}, {"If-None-Match": f'"a", {tag}, "b"'},
        {"If-None-Match": '"other"'}, {"If-None-Match": "*"}, {"If-None-Match": "nonsense"},
        {"If-Modified-Since": stored}, {"If-Modified-Since": stored, "If-None-Match": '"other"'},
        {"If-Match": '"other"'}, {"If-Match": tag}, {"If-Unmodified-Since": stored}, {"Range": "bytes=0-9"},
    ]  # fmt: skip
    names = ("timestamp.json", "1.root.json", "2.root.json", "1.targets.json", "9.snapshot.json", "x", "1.root.json/")
    for name in names:
        for headers in conditions:
            for _ in range(2):  # asked, then repeated
                options: dict[str, Any] = {
                    "method": method,
                    "base_url": f"{scheme}://fleet.example",
                    "query_string": "a=b",
                }
                options["headers"] = {**headers, "X-Request-Id": "the-proxys-own"}
                path = f"/repository/metadata/{name}"
                assert _said(door.open(path, **options)) == _said(plain.open(path, **options)), (name, headers)


def test_each_answer_has_an_id_of_its_own(door: FlaskClient) -> None:
    ids = set()
    for _ in range(3):
        answer = door.get(NO_ROOT)
        assert answer.json is not None
        assert answer.json["request_id"] == answer.headers["X-Request-Id"]
        ids.add(answer.headers["X-Request-Id"])
    assert len(ids) == 3
    assert door.get(NO_ROOT, headers={"X-Request-Id": "<script>"}).headers["X-Request-Id"] != "<script>"


def test_polls_ask_the_database_once(door: FlaskClient, database: Database) -> None:
    statements: list[str] = []
    event.listen(database.engine, "before_cursor_execute", lambda *given: statements.append(given[2]))
    end = time.monotonic() + RENEW_SECONDS / 2
    polls = 0
    while time.monotonic() < end:
        assert door.get(NO_ROOT).status_code == 404
        assert door.get(TIMESTAMP).status_code == 200
        polls += 1
    assert polls > 3
    assert len([s for s in statements if "tuf_metadata" in s]) == 2


def test_what_was_published_here_is_seen_at_once(
    door: FlaskClient, engineer: ReleaseEngineer, auth: Callable[..., dict[str, str]]
) -> None:
    assert (door.get(NO_ROOT).status_code, door.get(TIMESTAMP).status_code) == (404, 200)
    parts = {**engineer.sign_root(), **engineer.sign_targets()}
    assert door.post("/api/publish", data=multipart(parts), headers=auth("pub")).status_code == 201
    assert door.get(NO_ROOT).data == parts["metadata/2.root.json"]


def test_what_is_repeated_is_counted_and_logged_like_any_answer(
    engineer: ReleaseEngineer, server_config: ServerConfig, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    def counted(status: str) -> float:
        labels = {"method": "GET", "route": "/repository/metadata/<name>", "status": status}
        return REGISTRY.get_sample_value("http_requests_total", labels) or 0.0

    app = create_app(dataclasses.replace(server_config, log_requests="all"), database)
    remember_metadata(app)
    door, before = app.test_client(), [counted("2xx"), counted("4xx")]
    caplog.set_level("INFO")
    for _ in range(3):
        door.get(TIMESTAMP)
        door.get(NO_ROOT)
    # Three of each, and one of each that was asked for them.
    assert [counted("2xx"), counted("4xx")] == [before[0] + 4, before[1] + 4]
    assert caplog.text.count("GET /repository/metadata/<name> 200") == 4


def test_uploads_cost_no_new_reading() -> None:
    app = Fake()
    door = Client(MetadataAnswers(app, clock=Clock()))
    for path in ("/api/results", "/api/device-status", "/api/devices", "/api/anomalies/score"):
        door.get(TIMESTAMP)
        door.post(path)
    assert app.asked.count(TIMESTAMP) == 1


@pytest.mark.parametrize("path", ["/api/publish", "/api/channels/stable", "/rollouts/stable"])
def test_only_a_change_that_was_accepted_costs_a_new_reading(path: str) -> None:
    """A flood without rights must not make the database answer every poll."""
    app = Fake()
    door = Client(MetadataAnswers(app, clock=Clock()))
    door.get(TIMESTAMP)
    for status in ("401 UNAUTHORIZED", "403 FORBIDDEN", "404 NOT FOUND", "422 UNPROCESSABLE", "503 AWAY"):
        app.status = status
        door.post(path)
        door.put(path)
    app.status = "200 OK"
    for elsewhere in ("/login", "/nothing/here", "/device/"):
        door.post(elsewhere)
    door.get(path)
    assert (door.get(TIMESTAMP).status_code, app.asked.count(TIMESTAMP)) == (200, 1)
    for accepted, status in enumerate(("200 OK", "201 CREATED", "303 SEE OTHER"), start=2):
        app.status = status
        door.post(path)
        app.status = "200 OK"
        door.get(TIMESTAMP)
        assert app.asked.count(TIMESTAMP) == accepted


@pytest.mark.parametrize("proxies", [0, 1])
def test_behind_a_proxy_the_scheme_is_the_proxys(
    engineer: ReleaseEngineer, server_config: ServerConfig, database: Database, proxies: int
) -> None:
    app = create_app(dataclasses.replace(server_config, trusted_proxies=proxies), database)
    remember_metadata(app)
    for _ in range(2):
        answer = app.test_client().get(TIMESTAMP, headers={"X-Forwarded-Proto": "https"})
        assert ("Strict-Transport-Security" in answer.headers) == bool(proxies)


def test_a_new_timestamp_and_a_new_root_are_seen_within_a_second(
    engineer: ReleaseEngineer, app: Flask, database: Database
) -> None:
    clock = Clock()
    door = Client(MetadataAnswers(partial(Flask.wsgi_app, app), clock=clock))
    before = door.get(TIMESTAMP).data
    assert door.get(NO_ROOT).status_code == 404
    with app.app_context():
        key = get_online_key()
    with database.session() as session:
        signing.sign_timestamp(session, key, utc_now())
    assert door.get(TIMESTAMP).data == before  # a poll of the same moment
    clock.now += FRESH_SECONDS
    assert door.get(TIMESTAMP).data != before
    parts = {**engineer.sign_root(), **engineer.sign_targets()}
    with database.session() as session:
        metadata.store(session, "root", 2, parts["metadata/2.root.json"], utc_now())
    assert door.get(NO_ROOT).data == parts["metadata/2.root.json"]


def test_a_database_that_is_away_is_bridged_for_a_minute() -> None:
    app, clock = Fake(), Clock()
    door = Client(MetadataAnswers(app, clock=clock))
    assert door.get(TIMESTAMP).data == b"one"
    app.status, app.body = "503 SERVICE UNAVAILABLE", b"away"
    clock.now += KEPT_SECONDS - 0.1
    assert (door.get(TIMESTAMP).status_code, door.get(TIMESTAMP).data) == (200, b"one")
    assert len(app.asked) == 2  # and it is not asked at every poll meanwhile
    clock.now += 0.2
    assert door.get(TIMESTAMP).status_code == 503
    app.status, app.body = "200 OK", b"two"
    clock.now += 5
    assert door.get(TIMESTAMP).data == b"two"


def test_a_minute_is_what_caches_were_promised(engineer: ReleaseEngineer, client: FlaskClient) -> None:
    assert client.get(TIMESTAMP).headers["Cache-Control"] == f"public, max-age={KEPT_SECONDS:.0f}"


def test_one_asks_and_the_others_do_not_wait_while_they_may() -> None:
    app, clock = Fake(), Clock()
    door = MetadataAnswers(app, clock=clock)
    assert Client(door).get(TIMESTAMP).data == b"one"
    clock.now += (RENEW_SECONDS + FRESH_SECONDS) / 2
    app.body = b"two"
    app.gate.clear()
    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(lambda: Client(door).get(TIMESTAMP).data)
        while len(app.asked) < 2:
            time.sleep(0.001)
        assert [Client(door).get(TIMESTAMP).data for _ in range(3)] == [b"one"] * 3
        app.gate.set()
        assert asking.result(10) == b"two"
    assert len(app.asked) == 2


def test_of_many_at_once_one_asks_and_all_get_the_new_answer() -> None:
    app, clock = Fake(), Clock()
    door = MetadataAnswers(app, clock=clock)
    assert Client(door).get(TIMESTAMP).data == b"one"
    clock.now += FRESH_SECONDS
    app.body = b"two"
    app.gate.clear()
    with ThreadPoolExecutor(8) as pool:
        polls = [pool.submit(lambda: Client(door).get(TIMESTAMP).data) for _ in range(8)]
        while len(app.asked) < 2:
            time.sleep(0.001)
        app.gate.set()
        assert {poll.result(10) for poll in polls} == {b"two"}
    assert len(app.asked) == 2


def test_what_was_read_before_a_change_is_not_taken_for_what_came_after() -> None:
    app, clock = Fake(), Clock()
    door = MetadataAnswers(app, clock=clock)
    app.gate.clear()
    with ThreadPoolExecutor(2) as pool:
        early = pool.submit(lambda: Client(door).get(TIMESTAMP).data)  # reads, and is slow to say what it read
        while not app.asked:
            time.sleep(0.001)
        clock.now += 0.01
        said, app.gate = app.gate, threading.Event()
        app.gate.set()
        Client(door).put("/api/channels/stable")
        late = pool.submit(lambda: Client(door).get(TIMESTAMP).data)
        said.set()
        assert early.result(10) == b"one"
        assert late.result(10) == b"one"
    assert app.asked.count(TIMESTAMP) == 2  # the later poll asked for itself


def test_names_that_somebody_makes_up_do_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "_MOST_ANSWERS", 5)
    app, clock = Fake(), Clock()
    door = MetadataAnswers(app, clock=clock)
    client = Client(door)
    client.get(TIMESTAMP)
    for version in range(2, 20):
        client.get(f"/repository/metadata/{version}.root.json")
        client.get(TIMESTAMP)  # what everybody asks for stays
    assert app.asked.count(TIMESTAMP) == 1
    assert len(door._places) == 5
    monkeypatch.setattr(answers, "_MOST_BYTES", 10)
    app.body = b"x" * 8
    for version in range(30, 33):
        client.get(f"/repository/metadata/{version}.root.json")
    assert len(door._places) == 1


def test_an_app_that_fails_while_it_is_asked_stops_nobody() -> None:
    app, clock = Fake(), Clock()
    door = Client(MetadataAnswers(app, clock=clock))
    assert door.get(TIMESTAMP).data == b"one"
    clock.now += FRESH_SECONDS

    def broken(_environ: object, _start: object) -> Iterable[bytes]:
        raise ConnectionError("bug")

    door.application._app = broken  # type: ignore[union-attr]
    with pytest.raises(ConnectionError):
        door.get(TIMESTAMP)
    door.application._app = app  # type: ignore[union-attr]
    assert door.get(TIMESTAMP).data == b"one"

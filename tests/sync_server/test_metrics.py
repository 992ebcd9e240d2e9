"""Metrics of several workers as one, with the dead among them; logs as JSON; readiness part by part."""

from __future__ import annotations

import dataclasses
import io
import json
import logging
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient
from prometheus_client.mmap_dict import MmapedDict, mmap_key
from prometheus_client.parser import text_string_to_metric_families
from simulators.server_process import run, serving
from sqlalchemy import text

from edge_runtime.errors import StorageError
from sync_server import health, logs, metrics_folder
from sync_server.app import create_app
from sync_server.config import ServerConfig
from sync_server.db import Database
from sync_server.repository.online_key import load_or_create
from sync_server.webhooks import service


def samples(exposition: str, name: str) -> dict[tuple[str, ...], float]:
    """The values of one metric by the values of their labels, in the order of the labels' names."""
    return {
        tuple(sample.labels[label] for label in sorted(sample.labels)): sample.value
        for family in text_string_to_metric_families(exposition)
        for sample in family.samples
        if sample.name == name
    }


def fetch(url: str, token: str = "") -> str:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=10) as answer:
        return str(answer.read().decode())


def workers_of(process: subprocess.Popen[str]) -> set[int]:
    """The processes of a server's workers, which are its children apart from its database."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return {int(pid) for pid in children if b"sync_server" in Path(f"/proc/{pid}/cmdline").read_bytes()}


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_requests_count_by_route(client: FlaskClient, auth: Callable[..., dict[str, str]]) -> None:
    viewer = auth("view")
    before = samples(client.get("/metrics", headers=viewer).text, "http_requests_total")
    client.get("/api/devices/" + "a" * 32, headers=viewer)
    client.get("/api/devices/" + "b" * 32, headers=viewer)
    client.get("/no/such/<script>")
    client.open("/health", method="BREW")
    answer = client.get("/metrics", headers=viewer)
    after = samples(answer.text, "http_requests_total")
    grown = {key: value - before.get(key, 0) for key, value in after.items() if value != before.get(key, 0)}
    assert grown == {
        ("GET", "/api/devices/<device_id>", "4xx"): 2,
        ("GET", "unmatched", "4xx"): 1,
        ("other", "unmatched", "4xx"): 1,
        ("GET", "/metrics", "2xx"): 1,
    }
    counted = samples(answer.text, "http_request_duration_seconds_count")
    assert counted["GET", "/api/devices/<device_id>"] >= 2
    assert answer.headers["Cache-Control"] == "no-store"


def test_guessing_shows(client: FlaskClient, auth: Callable[..., dict[str, str]]) -> None:
    viewer = auth("view")
    name = "access_refusals_total"
    before = samples(client.get("/metrics", headers=viewer).text, name).get(("token_unknown",), 0)
    for letter in "abc":
        client.get("/api/anomalies", headers={"Authorization": f"Bearer st_ops_{letter * 43}"})
    assert samples(client.get("/metrics", headers=viewer).text, name)["token_unknown",] == before + 3


def test_the_fleet_in_figures(
    client: FlaskClient, app: Flask, auth: Callable[..., dict[str, str]], database: Database, owner_database: Database
) -> None:
    with database.session() as session:
        service.create(session, name="x", url="https://example.org/", events=["*"], actor="test")
        service.enqueue(session, "rollout.paused", "channel:stable")
    viewer = auth("view")
    shown = client.get("/metrics", headers=viewer).text
    assert samples(shown, "database_up") == {(): 1}
    assert samples(shown, "webhook_queue_length") == {(): 1}
    assert set(samples(shown, "fleet_devices")) == {("hour",), ("day",), ("week",), ("older",)}
    assert samples(shown, "fleet_incidents") == {("open",): 0, ("acknowledged",): 0}
    with database.session() as session:
        service.enqueue(session, "rollout.paused", "channel:stable")
    assert samples(client.get("/metrics", headers=viewer).text, "webhook_queue_length") == {(): 1}, (
        "asked once a minute"
    )


def test_a_scrape_of_several_workers_and_the_dead(tmp_path: Path) -> None:
    """Two workers, one killed and replaced: no count is lost, and no files pile up."""
    data = ("--data-dir", str(tmp_path))
    begun = time.time()
    with serving(tmp_path, "--workers", "2", SYNC_SERVER_LOG_FORMAT="json") as (address, process):
        token = run("token", "create", "--kind", "viewer", "--name", "prometheus", *data)[0]

        def count() -> float:
            shown = samples(fetch(f"{address}/metrics", token), "http_requests_total")
            return shown.get(("GET", "/health", "2xx"), 0)

        for _ in range(40):
            fetch(f"{address}/health")
        assert count() == 40

        def done() -> dict[tuple[str, ...], float]:
            return samples(fetch(f"{address}/metrics", token), "upkeep_last_done_timestamp_seconds")

        wait_until(lambda: {("signing",), ("scored windows",)} <= set(done()))
        # The process that starts the workers has no upkeep, and does not count with a zero.
        wait_until(lambda: min(done().values()) >= begun)
        folder = _folder_of(process)
        victim = min(pid for pid in workers_of(process) if (folder / f"counter_{pid}.db").exists())
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda: not (folder / f"counter_{victim}.db").exists())
        for _ in range(10):
            fetch(f"{address}/health")
        wait_until(lambda: count() == 50)
        assert {path.name for path in folder.glob("*_dead.db")} == {"counter_dead.db", "histogram_dead.db"}
        assert len(list(folder.glob("counter_*.db"))) <= 4  # two workers, the supervisor, the dead
    assert not folder.exists()


def _folder_of(process: subprocess.Popen[str]) -> Path:
    """Where a server's workers count: the folder that holds a file of each."""
    workers = workers_of(process)
    (folder,) = {path.parent for path in Path("/dev/shm").glob("stella-metrics-*/*.db") if _pid(path) in workers}
    return folder


def _pid(path: Path) -> int:
    number = path.stem.rpartition("_")[2]
    return int(number) if number.isdigit() else 0


def test_folders_of_killed_servers_are_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old, used, young = (tmp_path / f"stella-metrics-{name}" for name in ("old", "used", "young"))
    for folder in (old, used, young):
        folder.mkdir()
        (folder / "server").touch()
    for folder in (old, used):
        os.utime(folder, (1, 1))
    with metrics_folder._lock(used / "server"):
        metrics_folder._sweep(tmp_path)
    assert [folder.exists() for folder in (old, used, young)] == [False, True, True]


def test_counts_of_the_dead_add_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(metrics_folder.ENVIRONMENT, str(tmp_path))
    key = mmap_key("x", "x_total", ["a"], ["b"], "help")
    for pid, value in ((1, 2.0), (12, 3.0)):
        for kind in ("counter", "gauge_livesum"):
            file = MmapedDict(str(tmp_path / f"{kind}_{pid}.db"))
            file.write_value(key, value, 0.0)
            file.close()
    metrics_folder.bury(12)
    metrics_folder.bury(1)
    metrics_folder.bury(99)
    assert {path.name for path in tmp_path.glob("*.db")} == {"counter_dead.db"}
    found = MmapedDict.read_all_values_from_file(str(tmp_path / "counter_dead.db"))
    assert [(name, value) for name, value, _, _ in found] == [(key, 5.0)]


# --- logs ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def log_lines(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], list[dict[str, object]]]]:
    """Log as JSON, and return a function that reads the lines."""
    stream = io.StringIO()
    root = logging.getLogger()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(root, "handlers", list(root.handlers))
    level = root.level
    logs.configure("json")
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    root.setLevel(level)


def _client(server_config: ServerConfig, database: Database, which: str) -> FlaskClient:
    return create_app(dataclasses.replace(server_config, log_requests=which), database).test_client()


def test_a_line_for_each_answer(
    server_config: ServerConfig,
    database: Database,
    auth: Callable[..., dict[str, str]],
    log_lines: Callable[[], list[dict[str, object]]],
) -> None:
    client = _client(server_config, database, "all")
    client.get("/api/anomalies?cohort=secret", headers={**auth("view"), "X-Request-Id": "from-the-proxy"})
    (line,) = [line for line in log_lines() if line["logger"] == "sync_server.requests"]
    assert line["request_id"] == "from-the-proxy"
    assert (line["route"], line["status"], line["actor"], line["method"]) == ("/api/anomalies", 200, "view", "GET")
    assert isinstance(line["ms"], float)
    assert "secret" not in json.dumps(line)
    assert "st_view" not in json.dumps(line)


def test_only_refusals_get_a_line_by_default(
    server_config: ServerConfig, database: Database, log_lines: Callable[[], list[dict[str, object]]]
) -> None:
    client = _client(server_config, database, "errors")
    client.get("/health")
    client.get("/repository/metadata/2.root.json")  # a part of every poll
    client.get("/api/anomalies")
    assert [line["route"] for line in log_lines() if "route" in line] == ["/api/anomalies"]
    quiet = _client(server_config, database, "none")
    quiet.get("/api/anomalies")
    assert len([line for line in log_lines() if "route" in line]) == 1


def test_a_fault_is_one_line_with_the_id_that_the_client_got(
    app: Flask, log_lines: Callable[[], list[dict[str, object]]]
) -> None:
    @app.get("/fails")
    def fails() -> str:
        raise RuntimeError("of ours\nwith two lines")

    answer = app.test_client().get("/fails")
    assert answer.status_code == 500
    faults = [line for line in log_lines() if line["level"] == "error"]
    assert {line["request_id"] for line in faults} == {answer.headers["X-Request-Id"]}
    assert any("of ours" in str(line.get("error", "")) for line in faults)


def test_gunicorn_writes_into_the_same_log(tmp_path: Path) -> None:
    """A server with JSON logs writes nothing to stderr that is no JSON object, a killed worker included."""
    log = tmp_path / "log"
    with log.open("w") as stream, serving(tmp_path / "data", stderr=stream, SYNC_SERVER_LOG_FORMAT="json") as (address, process):  # fmt: skip
        fetch(f"{address}/health")
        (worker,) = workers_of(process)
        os.kill(worker, signal.SIGKILL)
        wait_until(lambda: "SIGKILL" in log.read_text())
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert any(line["logger"] == "gunicorn.error" and "SIGKILL" in line["message"] for line in lines)


# --- ready -----------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("readiness_afresh")
def test_ready_part_by_part(app: Flask, client: FlaskClient, server_config: ServerConfig) -> None:
    def found() -> dict[str, str]:
        answer = client.get("/health/ready")
        assert answer.status_code == (200 if set(answer.json["checks"].values()) == {"ok"} else 503)
        return dict(answer.json["checks"])

    assert found()["online_key"] == "The online key cannot be used; the server's log says why."
    load_or_create(server_config.online_key_path)
    assert set(found().values()) == {"ok"}
    server_config.online_key_path.chmod(0o644)
    assert found()["online_key"] != "ok"
    server_config.online_key_path.chmod(0o600)
    blobs = server_config.data_dir / "blobs"
    blobs.rename(blobs.with_name("elsewhere"))
    assert found()["blobs"] == "The blob store is not ready; the server's log says why."
    blobs.with_name("elsewhere").rename(blobs)

    def cold() -> None:
        raise StorageError("The model is not loaded yet.")

    health.register(app, "scoring", cold)
    assert found()["scoring"] == "The model is not loaded yet."
    assert client.get("/health").status_code == 200, "it lives nevertheless"


def test_bad_news_is_kept_for_a_second_and_good_news_for_five() -> None:
    """A balancer would otherwise keep a worker out for seconds after its models were loaded."""
    now, well, asked = 0.0, False, 0

    def check() -> None:
        nonlocal asked
        asked += 1
        if not well:
            raise StorageError("The model is not loaded yet.")

    checks = health._Checks(clock=lambda: now)
    checks.all["scoring"] = check
    assert checks.found() == {"scoring": "The model is not loaded yet."}
    well, now = True, 0.9
    assert checks.found()["scoring"] != "ok"
    now = 1.1
    assert checks.found() == {"scoring": "ok"}
    well, now = False, 6.0
    assert (checks.found()["scoring"], asked) == ("ok", 2)
    now = 6.2
    assert (checks.found()["scoring"] == "ok", asked) == (False, 3)


@pytest.mark.usefixtures("readiness_afresh")
def test_ready_only_with_this_programs_schema(client: FlaskClient, owner_database: Database) -> None:
    def at(version: str) -> str:
        with owner_database.session() as session:
            session.execute(text("UPDATE alembic_version SET version_num = :version"), {"version": version})
        return str(client.get("/health/ready").json["checks"]["database"])

    head = health._head()
    try:
        assert at("0001") == "The database's schema is older than this program."
        assert at("9999") == "ok", "a newer server migrated it while this one still runs"
    finally:
        assert at(head) == "ok"

"""What goes wrong around a running server: two publishers at once, an online key that is away, texts that are code."""

from __future__ import annotations

import copy
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from simulators.bundles import SmallBundle
from simulators.release_engineer import Parts, ReleaseEngineer, multipart
from sqlalchemy import select, text
from tuf.api.metadata import Metadata, Snapshot, Targets, Timestamp

from sync_server import health
from sync_server.access.models import AuditEntry
from sync_server.access.tokens import issue_token
from sync_server.app import create_app
from sync_server.config import ServerConfig
from sync_server.db import Database, utc_now
from sync_server.repository.models import TufMetadata
from sync_server.repository.online_key import load_or_create, public_pem
from sync_server.upkeep import run_once

HOSTILE = [
    "'; DROP TABLE devices; --",
    "\"><script>alert(1)</script><img src=x onerror=alert(1)>",
    "{{ 7*7 }}${7*7}<%= 7*7 %>",
    "%s %(a)s :name \\' \\x00",
]  # fmt: skip


@pytest.fixture
def engineer(server_config: ServerConfig) -> ReleaseEngineer:
    return ReleaseEngineer(public_pem(load_or_create(server_config.online_key_path)))


def bundle(number: int, **changes: Any) -> Any:
    return SmallBundle(version=f"v{number}", release_number=number, **changes).build()


def send(app: Flask, parts: Parts, headers: dict[str, str]) -> tuple[int, str]:
    answer = app.test_client().post("/api/publish", data=multipart(parts), headers=headers)
    return answer.status_code, answer.json.get("code", "")


def test_two_publishers_at_once(
    engineer: ReleaseEngineer, app: Flask, auth: Callable[..., dict[str, str]], database: Database
) -> None:
    """Both build on version 1; one gets version 2, the other is told to start from it, and nothing of it is listed."""
    headers = auth("pub")
    assert send(app, {**engineer.sign_root(), **engineer.sign_targets(bundle(1))}, headers)[0] == 201
    twins = [copy.deepcopy(engineer.targets) for _ in range(6)]
    offers = []
    for number, targets in enumerate(twins, start=2):
        engineer.targets = targets
        offers.append(engineer.sign_targets(bundle(number)))
    with ThreadPoolExecutor(len(offers)) as pool:
        answers = list(pool.map(lambda parts: send(app, parts, headers), offers))
    assert sorted(status for status, _ in answers) == [201, 409, 409, 409, 409, 409]
    won = offers[[status for status, _ in answers].index(201)]
    with database.session() as session:
        rows = {
            role: session.scalars(
                select(TufMetadata).where(TufMetadata.role == role).order_by(TufMetadata.version.desc())
            ).first()
            for role in ("targets", "snapshot", "timestamp")
        }
        trail = session.scalars(select(AuditEntry.id).where(AuditEntry.action == "repository.publish")).all()
    assert rows["targets"] is not None
    assert rows["snapshot"] is not None
    assert rows["timestamp"] is not None
    assert rows["targets"].body == won["metadata/2.targets.json"]
    assert len(Metadata[Targets].from_bytes(rows["targets"].body).signed.targets) == 2
    assert Metadata[Snapshot].from_bytes(rows["snapshot"].body).signed.meta["targets.json"].version == 2
    timestamp = Metadata[Timestamp].from_bytes(rows["timestamp"].body).signed
    assert timestamp.snapshot_meta.version == rows["snapshot"].version
    assert len(trail) == 2


@pytest.mark.parametrize("defect", ["missing", "open to others", "garbage", "another"])
def test_an_online_key_that_cannot_be_used(
    defect: str,
    engineer: ReleaseEngineer,
    app: Flask,
    server_config: ServerConfig,
    database: Database,
    auth: Callable[..., dict[str, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What was signed is served on; publishing is refused and changes nothing; with the key back all is as before."""
    monkeypatch.setattr(health, "KEPT_SECONDS", -1.0)
    headers = auth("pub")
    assert send(app, {**engineer.sign_root(), **engineer.sign_targets(bundle(1))}, headers)[0] == 201
    path = server_config.online_key_path
    right = path.read_bytes()
    path.unlink()
    if defect == "open to others":
        path.write_bytes(right)
        path.chmod(0o644)
    elif defect == "garbage":
        path.touch(0o600)
    elif defect == "another":
        load_or_create(path)
    restarted = create_app(server_config, database)
    client = restarted.test_client()
    before = client.get("/repository/metadata/timestamp.json").data
    ready = client.get("/health/ready")
    assert (ready.status_code, ready.json["checks"]["online_key"] == "ok") == (503, False)
    offer = engineer.sign_targets(bundle(2))
    refused = send(restarted, offer, headers)
    # A missing key is made anew, as on a first start, and is then another one.
    assert refused == ((422, "online_key") if defect in ("missing", "another") else (503, "storage")), refused
    assert client.get("/repository/metadata/timestamp.json").data == before
    path.unlink()
    path.touch(0o600)
    path.write_bytes(right)
    assert send(create_app(server_config, database), offer, headers)[0] == 201


def test_a_server_that_was_off_for_long_signs_at_once(
    engineer: ReleaseEngineer, app: Flask, server_config: ServerConfig, database: Database,
    auth: Callable[..., dict[str, str]], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Snapshot and timestamp have expired meanwhile: the first turn of the upkeep makes new ones."""
    assert send(app, {**engineer.sign_root(), **engineer.sign_targets(bundle(1))}, auth("pub"))[0] == 201
    later = utc_now() + timedelta(days=40)
    monkeypatch.setattr("sync_server.upkeep.utc_now", lambda: later)
    run_once(database, lambda: load_or_create(server_config.online_key_path), server_config)
    body = app.test_client().get("/repository/metadata/timestamp.json").data
    assert Metadata[Timestamp].from_bytes(body).signed.expires > later + timedelta(days=6)


@pytest.mark.parametrize("evil", HOSTILE)
def test_code_in_every_text_that_operators_give(
    evil: str, client: FlaskClient, auth: Callable[..., dict[str, str]], database: Database, log_in: Callable[..., Any]
) -> None:
    """It comes back as it was given, or is refused in a sentence; no page holds it as markup, and no table is gone."""
    operator = auth("ops")
    hook = {"name": evil, "url": "https://example.org/", "events": ["*"]}
    made = client.post("/api/webhooks", json=hook, headers=operator)
    assert (made.status_code, made.json["name"]) == (201, evil)
    for body in ({**hook, "url": f"https://example.org/{evil}"}, {**hook, "events": [evil]}, {**hook, evil: evil}):
        assert client.post("/api/webhooks", json=body, headers=operator).status_code == 422
    for url in ("/api/channels/{}", "/api/devices/{}", "/repository/metadata/{}", "/repository/targets/{}"):
        assert client.get(url.format(evil), headers=operator).status_code in (404, 422)
    for name in ("cohort", "device", "signal", "cursor", "status", evil):
        answer = client.get("/api/anomalies", query_string={name: evil}, headers=operator)
        assert answer.status_code in (200, 422)
    with database.session() as session:
        issue_token(session, "view", name=evil)
    stranger = client.post("/login", data={"username": evil, "password": evil, "csrf_token": evil, "next": evil})
    assert stranger.status_code == 403
    browser, _ = log_in()
    for path in ("/", "/incidents", "/devices", "/audit", "/rollouts", f"/rollouts/{evil}", f"/devices/{evil}"):
        shown = browser.get(path).text + stranger.text
        assert "<script>alert" not in shown
        assert "<img src=x" not in shown
        assert "$49" not in shown
    with database.session() as session:
        assert session.execute(text("SELECT count(*) FROM devices")).scalar() == 0

"""The doors of webhooks: operators over the API, the command line beside a real server, and what the server tells of."""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from simulators.bundles import SmallBundle
from simulators.release_engineer import ReleaseEngineer, multipart
from simulators.server_process import run, serving
from simulators.webhook_receiver import Receiver
from simulators.webhooks import audited, hook_now, queue
from sqlalchemy import select

from edge_runtime.errors import InputError, StorageError
from sync_server.access.models import AuditEntry
from sync_server.db import Database
from sync_server.repository.online_key import load_or_create, public_pem
from sync_server.webhooks import service
from sync_server.webhooks.secret import load_or_create_key, secret_of, secret_text


def test_operators_over_the_api(
    client: FlaskClient, auth: Callable[..., dict[str, str]], database: Database, server_config: Any
) -> None:
    operator = auth("ops")
    body = {"name": "pager <b>", "url": "https://pager.example/h?token=secret", "events": ["rollout.*"]}
    made = client.post("/api/webhooks", json=body, headers=operator)
    assert made.status_code == 201, made.text
    key = load_or_create_key(server_config.webhooks_key_path)
    number = made.json["id"]
    assert made.json["secret"] == secret_text(secret_of(key, hook_now(database, number).salt))
    listed = client.get("/api/webhooks", headers=operator).json["webhooks"]
    assert [(hook["name"], hook["state"], hook["queued"]) for hook in listed] == [("pager <b>", "live", 0)]
    assert "secret" not in listed[0]
    assert client.post(f"/api/webhooks/{number}/test", headers=operator).status_code == 202
    assert len(queue(database)) == 1
    assert client.post(f"/api/webhooks/{number}/enable", headers=operator).json["state"] == "live"
    assert client.delete(f"/api/webhooks/{number}", headers=operator).status_code == 204
    for method, path in (("DELETE", ""), ("POST", "/test"), ("POST", "/enable")):
        answer = client.open(f"/api/webhooks/{number}{path}", method=method, headers=operator)
        assert (answer.status_code, answer.json["code"]) == (404, "webhook_not_found")
    with database.session() as session:
        details = list(session.scalars(select(AuditEntry.detail).order_by(AuditEntry.id)))
    assert details[0] == {"host": "pager.example", "events": ["rollout.*"]}
    assert audited(database) == ["webhook.create", "webhook.enable", "webhook.revoke"]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"name": "x", "url": "https://127.0.0.1/", "events": ["*"]}, 422),
        ({"name": "x", "url": "http://example.org/", "events": ["*"]}, 422),
        ({"name": "", "url": "https://example.org/", "events": ["*"]}, 422),
        ({"name": "a\x00b", "url": "https://example.org/", "events": ["*"]}, 422),
        ({"name": "x", "url": "https://example.org/", "events": []}, 422),
        ({"name": "x", "url": "https://example.org/", "events": ["Rollout"]}, 422),
        ({"name": "x", "url": "https://example.org/", "events": ["*"], "allow_private": True}, 422),
        ([], 422),
    ],
)
def test_hooks_that_are_refused(
    body: Any, status: int, client: FlaskClient, auth: Callable[..., dict[str, str]], database: Database
) -> None:
    assert client.post("/api/webhooks", json=body, headers=auth("ops")).status_code == status
    assert client.get("/api/webhooks", headers=auth("ops")).json == {"webhooks": []}


def test_not_more_hooks_than_a_server_can_serve(
    database: Database, make_hook: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "MOST_HOOKS", 1)
    make_hook()
    with pytest.raises(InputError, match="already"):
        make_hook()


def test_the_key_is_private(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "webhooks.key"
    assert load_or_create_key(path) == load_or_create_key(path)
    assert path.stat().st_mode & 0o777 == 0o600
    for text, sentence in (("abc", "cannot be used"), ("ab" * 8, "cut short"), ("", "cut short")):
        path.write_text(text)
        with pytest.raises(StorageError, match=sentence):
            load_or_create_key(path)
    path.chmod(0o644)
    with pytest.raises(StorageError, match="chmod 600"):
        load_or_create_key(path)


def test_a_real_server_tells(receiver: Receiver, tmp_path: Path) -> None:
    """From the command line to the receiver: made, tried, told by a worker's thread, listed, revoked."""
    data = ("--data-dir", str(tmp_path))
    with serving(tmp_path) as (address, _):
        secret, note = run("webhook", "create", receiver.url, "--name", "pager", "--allow-private", *data)
        assert secret.startswith("whsec_")
        assert "Webhook 1 (pager)" in note
        assert run("webhook", "test", "1", *data)[0] == "Webhook 1 answered 200."
        receiver.answers = [500]
        assert "Webhook 1 failed: The receiver answered 500." in run("webhook", "test", "1", *data, code=5)[1]
        token = run("token", "create", "--kind", "operator", "--name", "x", *data)[0]
        headers = {"Authorization": f"Bearer {token}"}
        request = urllib.request.Request(f"{address}/api/webhooks/1/test", headers=headers, method="POST")
        urllib.request.urlopen(request, timeout=10).close()
        deadline = time.monotonic() + 20
        while len(receiver.seen) < 3:
            assert time.monotonic() < deadline, "the worker told nobody"
            time.sleep(0.1)
        assert json.loads(receiver.seen[2][1])["type"] == "webhook.test"
        assert "live" in run("webhook", "list", *data)[0]
        assert run("webhook", "enable", "1", *data)[0] == "Webhook 1 is enabled."
        assert run("webhook", "revoke", "1", *data)[0] == "Webhook 1 is revoked."
        assert run("webhook", "list", *data)[0] == "There are no webhooks."
        assert "There is no webhook 1" in run("webhook", "revoke", "1", *data, code=3)[1]
        refused = run("webhook", "create", "http://example.org", "--name", "x", *data, code=3)[1]
        assert "is not https" in refused


def test_what_the_server_tells_of(
    app: Flask,
    client: FlaskClient,
    auth: Callable[..., dict[str, str]],
    database: Database,
    make_hook: Callable[..., int],
) -> None:
    make_hook()
    engineer = ReleaseEngineer(public_pem(load_or_create(app.extensions["config"].online_key_path)))
    parts = multipart({**engineer.sign_root(), **engineer.sign_targets(SmallBundle().build())})
    assert client.post("/api/publish", data=parts, headers=auth("pub")).status_code == 201
    told = [json.loads(row.body) for row in queue(database)]
    assert [(event["type"], event["data"]["subject"]) for event in told] == [("repository.published", "targets:1")]

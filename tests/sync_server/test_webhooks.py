"""Webhooks against real receivers that behave and misbehave: signed, tried again, bounded, and never a way inside."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from simulators.bundles import SmallBundle
from simulators.release_engineer import ReleaseEngineer, multipart
from simulators.server_process import run, serving
from simulators.webhook_receiver import Receiver, receiving
from sqlalchemy import select
from sqlalchemy.orm import Session

from edge_runtime.errors import InputError, StorageError
from sync_server.access.models import AuditEntry
from sync_server.db import Database, utc_now
from sync_server.repository.online_key import load_or_create, public_pem
from sync_server.webhooks import delivery, service
from sync_server.webhooks.models import Webhook, WebhookDelivery
from sync_server.webhooks.secret import load_or_create_key, secret_of, secret_text, signed_headers

KEY = bytes(range(32))


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as server:
        yield server


@pytest.fixture
def make_hook(database: Database, receiver: Receiver) -> Callable[..., int]:
    """Return a function that makes a hook to the receiver and returns its number."""

    def make(*events: str, url: str = receiver.url) -> int:
        with database.session() as session:
            return service.create(
                session, name="test", url=url, events=events or ("*",), allow_private=True, actor="test"
            ).id

    return make


def tell(database: Database, event: str = "rollout.paused", detail: dict[str, Any] | None = None) -> int:
    with database.session() as session:
        return service.enqueue(session, event, "channel:stable", detail or {"release": 7})


def hook_now(database: Database, number: int) -> Webhook:
    with database.session() as session:
        return session.get_one(Webhook, number)


def queue(database: Database) -> list[WebhookDelivery]:
    with database.session() as session:
        return list(session.scalars(select(WebhookDelivery).order_by(WebhookDelivery.id)))


def audited(database: Database) -> list[str]:
    with database.session() as session:
        return list(session.scalars(select(AuditEntry.action).order_by(AuditEntry.id)))


def fail_until_given_up(database: Database, number: int, step: timedelta) -> int:
    """Call a hook again and again with a clock that moves by ``step`` until nothing is left to call; count the calls."""
    now, calls = utc_now(), 0
    while True:
        with database.session() as session:
            taken = delivery.take(session, now=now)
        if taken is None:
            return calls
        calls += 1
        with database.session() as session:
            delivery.settle(session, taken, delivery.Outcome(500, "The receiver answered 500."), now=now)
        now = max(now + step, hook_now(database, number).next_try_at)


# --- told ------------------------------------------------------------------------------------------------------------


def test_an_event_arrives_signed(database: Database, receiver: Receiver, make_hook: Callable[..., int]) -> None:
    number = make_hook()
    assert tell(database, detail={"reason": "<b>'; DROP TABLE webhooks; --\x00</b>", "release": 7}) == 1
    assert delivery.deliver_one(database, KEY)
    assert not delivery.deliver_one(database, KEY), "once is enough"
    headers, body = receiver.seen[0]
    document = json.loads(body)
    assert document["type"] == "rollout.paused"
    assert document["data"]["subject"] == "channel:stable"
    assert document["data"]["detail"] == {"reason": "<b>'; DROP TABLE webhooks; --\x00</b>", "release": 7}
    assert document["id"] == headers["webhook-id"]
    assert headers["content-type"] == "application/json"
    # The receiver's side, written from the published rule and from what an operator was shown.
    hook = hook_now(database, number)
    shown = secret_text(secret_of(KEY, hook.salt))
    secret = base64.b64decode(shown.removeprefix("whsec_"))
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    expected = base64.b64encode(hmac.new(secret, signed, hashlib.sha256).digest()).decode()
    assert headers["webhook-signature"] == f"v1,{expected}"
    assert abs(int(headers["webhook-timestamp"]) - time.time()) < 60
    assert hook.last_delivered_at is not None
    assert hook.last_error is None


def test_the_signature_of_the_published_example() -> None:
    """The example of github.com/standard-webhooks/standard-webhooks, from its own test vectors."""
    secret = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    headers = signed_headers(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_what_is_rolled_back_is_not_told(database: Database, make_hook: Callable[..., int]) -> None:
    make_hook()

    def fails(session: Session) -> None:
        assert service.enqueue(session, "rollout.paused", "channel:stable") == 1
        session.flush()
        raise RuntimeError

    with pytest.raises(RuntimeError):
        database.run(fails)
    assert queue(database) == []


@pytest.mark.parametrize(
    ("pattern", "heard"),
    [("*", True), ("rollout.*", True), ("rollout.paused", True), ("rollout.resumed", False), ("roll.*", False)],
)
def test_hooks_hear_what_they_ask_for(
    pattern: str, heard: bool, database: Database, make_hook: Callable[..., int]
) -> None:
    make_hook(pattern)
    assert tell(database) == int(heard)


def test_an_event_needs_a_name(database: Database) -> None:
    for event in ("Rollout.paused", "paused", "rollout.", "rollout.*", "a" * 40 + ".b"):
        with pytest.raises(ValueError, match="no event"):
            tell(database, event)


def test_a_detail_too_large_is_left_out(database: Database, make_hook: Callable[..., int]) -> None:
    make_hook()
    tell(database, detail={"text": "x" * 20_000})
    body = json.loads(queue(database)[0].body)
    assert body["data"] == {"subject": "channel:stable", "detail": {}, "detail_left_out": True}


def test_a_full_queue_drops_and_counts(
    database: Database, make_hook: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "MOST_QUEUED", 3)
    number = make_hook()
    assert [tell(database) for _ in range(5)] == [1, 1, 1, 0, 0]
    assert (len(queue(database)), hook_now(database, number).dropped) == (3, 2)


# --- tried again -----------------------------------------------------------------------------------------------------


def test_a_failure_is_tried_again_with_the_same_id(
    database: Database, receiver: Receiver, make_hook: Callable[..., int]
) -> None:
    number = make_hook()
    receiver.answers = [503]
    tell(database)
    assert delivery.deliver_one(database, KEY)
    hook = hook_now(database, number)
    assert hook.last_error == "The receiver answered 503."
    wait = hook.next_try_at - utc_now()
    assert timedelta(seconds=10) < wait < timedelta(seconds=31)
    assert not delivery.deliver_one(database, KEY), "it waits"
    with database.session() as session:
        later = delivery.take(session, now=hook.next_try_at)
    assert later is not None
    assert delivery.call(later, KEY, now=utc_now()).error == ""
    assert [headers["webhook-id"] for headers, _ in receiver.seen] == [later.event_id] * 2


def test_a_redirect_is_not_followed(database: Database, receiver: Receiver, make_hook: Callable[..., int]) -> None:
    number = make_hook()
    receiver.answers = [307]
    tell(database)
    delivery.deliver_one(database, KEY)
    assert hook_now(database, number).last_error == "The receiver answered 307. Redirects are not followed."
    assert len(receiver.seen) == 1


def test_two_workers_call_a_hook_once(database: Database, receiver: Receiver, make_hook: Callable[..., int]) -> None:
    make_hook()
    for _ in range(20):
        tell(database)

    def work() -> None:
        while delivery.deliver_one(database, KEY):
            pass

    workers = [threading.Thread(target=work) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(30)
    while delivery.deliver_one(database, KEY):
        pass  # workers that found the hook taken went home
    ids = [headers["webhook-id"] for headers, _ in receiver.seen]
    assert len(ids) == len(set(ids)) == 20


def test_a_worker_that_dies_is_replaced(database: Database, make_hook: Callable[..., int]) -> None:
    make_hook()
    tell(database)
    now = utc_now()
    with database.session() as session:
        lost = delivery.take(session, now=now)
    with database.session() as session:
        assert delivery.take(session, now=now + timedelta(minutes=1)) is None, "it may still be calling"
        again = delivery.take(session, now=now + timedelta(minutes=3))
    assert lost is not None
    assert again is not None
    assert lost.event_id == again.event_id


def test_a_transaction_that_queues_does_not_hold_deliveries_up(
    database: Database, receiver: Receiver, make_hook: Callable[..., int]
) -> None:
    make_hook()
    tell(database)
    with database.session() as session:
        service.enqueue(session, "rollout.resumed", "channel:stable")
        session.flush()
        assert delivery.deliver_one(database, KEY)
    assert len(receiver.seen) == 1


def test_one_event_that_is_refused_does_not_stop_the_others(database: Database, make_hook: Callable[..., int]) -> None:
    number = make_hook()
    tell(database)
    tell(database)
    now, order = utc_now(), []
    for _ in range(4):
        with database.session() as session:
            taken = delivery.take(session, now=now)
        assert taken is not None
        order.append(taken.delivery_id)
        with database.session() as session:
            delivery.settle(session, taken, delivery.Outcome(400, "The receiver answered 400."), now=now)
        now = hook_now(database, number).next_try_at + timedelta(hours=1)
    assert order == [1, 2, 1, 2]


def test_a_fault_over_one_event_ends_no_deliveries(
    app: Flask, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A bug, not a refusal: the thread goes on with its next turn."""
    again, turns = threading.Event(), iter([TypeError("a bug")])

    def broken_once(_database: Database, _key: bytes) -> bool:
        for error in turns:
            raise error
        again.set()
        return False

    monkeypatch.setattr(delivery, "deliver_one", broken_once)
    monkeypatch.setattr(delivery, "IDLE_SECONDS", 0.01)
    stop = delivery.start_deliveries(app)
    assert again.wait(20)
    stop.set()
    for thread in threading.enumerate():
        if thread.name == "webhooks":
            thread.join(10)
    assert "TypeError: a bug" in caplog.text


def test_an_event_is_given_up(database: Database, make_hook: Callable[..., int]) -> None:
    number = make_hook()
    tell(database)
    assert fail_until_given_up(database, number, timedelta(0)) == delivery.MOST_ATTEMPTS
    hook = hook_now(database, number)
    assert (queue(database), hook.dropped, hook.disabled_at) == ([], 1, None)


def test_a_hook_that_fails_for_days_is_disabled(
    database: Database, make_hook: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    # A day less than events live, since the events of this test are all as old as the hook.
    monkeypatch.setattr(delivery, "DISABLED_AFTER", timedelta(days=2))
    number = make_hook()
    for _ in range(30):
        tell(database)
    fail_until_given_up(database, number, timedelta(hours=7))
    hook = hook_now(database, number)
    assert hook.disabled_at is not None
    assert queue(database) == []
    assert audited(database) == ["webhook.create", "webhook.disable"]
    assert tell(database) == 0, "it hears nothing any more"
    with database.session() as session:
        assert service.describe(session, hook)["state"] == "disabled"
        with pytest.raises(InputError, match="disabled"):
            service.enqueue_test(session, number)
        service.enable(session, number, actor="alice")
    assert tell(database) == 1


def test_a_receiver_that_is_gone_ends_the_hook(
    database: Database, receiver: Receiver, make_hook: Callable[..., int]
) -> None:
    number = make_hook()
    receiver.answers = [410]
    tell(database)
    delivery.deliver_one(database, KEY)
    assert hook_now(database, number).disabled_at is not None


def test_old_events_are_forgotten(database: Database, make_hook: Callable[..., int]) -> None:
    number = make_hook()
    tell(database)
    with database.session() as session:
        assert delivery.take(session, now=utc_now() + timedelta(days=4)) is None
    assert (queue(database), hook_now(database, number).dropped) == ([], 1)


def test_a_hook_revoked_during_its_call(database: Database, make_hook: Callable[..., int]) -> None:
    number = make_hook()
    tell(database)
    with database.session() as session:
        taken = delivery.take(session, now=utc_now())
        assert taken is not None
    with database.session() as session:
        service.revoke(session, number, actor="alice")
    with database.session() as session:
        delivery.settle(session, taken, delivery.Outcome(200, ""), now=utc_now())
    assert queue(database) == []
    assert tell(database) == 0


# --- the doors -------------------------------------------------------------------------------------------------------


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

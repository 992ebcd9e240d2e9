"""Webhooks against real receivers that behave and misbehave: signed, tried again, bounded, and never a way inside."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
import time
from collections.abc import Callable
from datetime import timedelta

import pytest
from flask import Flask
from simulators.webhook_receiver import Receiver
from simulators.webhooks import audited, hook_now, queue, tell
from sqlalchemy.orm import Session

from edge_runtime.errors import InputError
from sync_server.db import Database, utc_now
from sync_server.webhooks import delivery, service
from sync_server.webhooks.secret import secret_of, secret_text, signed_headers

KEY = bytes(range(32))


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

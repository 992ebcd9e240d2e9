"""Streams: clones are noticed, restored homes lose nothing, holes are bounded."""

from __future__ import annotations

import dataclasses
import secrets

import pytest
from simulators.result_tables import stored
from simulators.server_devices import (
    NOON,
    ServerDevice,
    anomaly,
)
from sqlalchemy import text

from sync_server.db import Database
from sync_server.devices.models import Device
from sync_server.devices.service import forget_clone


def cloned(device: ServerDevice, database: Database) -> bool:
    with database.session() as session:
        return session.get(Device, device.id).cloned_at is not None


def test_streams_that_grow_in_turn_mark_the_device_as_cloned(device: ServerDevice, database: Database) -> None:
    other = secrets.token_hex(16)
    device.send([anomaly(1)])
    device.send([anomaly(2)])
    device.send([anomaly(1)], stream=other)  # a device that opened a new stream for good
    device.send([anomaly(1)])  # and asks again about the old one
    device.send([anomaly(2)], stream=other)
    assert not cloned(device, database)
    device.send([anomaly(3)])
    assert cloned(device, database)
    with database.session() as session:
        forget_clone(session, device.id, actor="test")
    device.send([anomaly(4)])
    assert not cloned(device, database), "one of the two is gone"
    device.send([anomaly(3)], stream=other)
    assert cloned(device, database)


def test_what_a_forked_device_sent_before_is_no_sign_of_a_clone(device: ServerDevice, database: Database) -> None:
    """A request times out on the device and goes on here; meanwhile the device is told to fork, and does."""
    fork = secrets.token_hex(16)
    device.send([anomaly(1), anomaly(2)])
    late = device.clock_ms = device.clock_ms + 1
    device.send([anomaly(1)], stream=fork)
    device.send([anomaly(3)], sent_at_ms=late)
    device.send([anomaly(2)], stream=fork)
    assert not cloned(device, database)
    with database.session() as session:
        session.execute(text("UPDATE streams SET first_seen_at = first_seen_at - interval '2 hours'"))
    device.send([anomaly(4)], sent_at_ms=late)
    assert cloned(device, database), "a clock that is wrong hides it for an hour only"


def test_a_home_restored_from_before_its_fork_is_no_clone(device: ServerDevice, database: Database) -> None:
    device.send([anomaly(1), anomaly(2)])
    device.send([anomaly(1)], stream=secrets.token_hex(16))
    answer = device.send([anomaly(2, NOON + 5), anomaly(3)])
    assert [refusal.sequence for refusal in answer.refused] == [2]
    device.send([anomaly(1)], stream=secrets.token_hex(16))
    assert not cloned(device, database)


def test_a_restored_backup_loses_nothing(device: ServerDevice, database: Database) -> None:
    """The contract's own case: numbers reused by new readings are refused, and the device renumbers into a new stream."""
    device.send([anomaly(n, NOON + n) for n in range(1, 11)])
    replayed = [anomaly(n, NOON + n) for n in range(5, 8)] + [anomaly(n, NOON + 1000 + n) for n in range(8, 13)]
    answer = device.send(replayed)
    refused = {refusal.sequence for refusal in answer.refused}
    assert refused == {8, 9, 10}
    fork = secrets.token_hex(16)
    renumbered = [
        dataclasses.replace(r, sequence=i + 1) for i, r in enumerate(r for r in replayed if r.sequence in refused)
    ]
    assert device.send(renumbered, stream=fork).stored == 3
    assert len(stored(database)) == 15


def test_a_stream_with_too_many_holes_and_a_device_with_too_many_streams(
    device: ServerDevice, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sync_server.ingest.service.MAX_RUNS", 3)
    device.send([anomaly(n) for n in (1, 3, 5, 7)])
    answer = device.send([anomaly(7), anomaly(9)])
    assert (answer.stored, answer.held) == (0, ((7, 7),))
    assert [(refusal.sequence, refusal.reason) for refusal in answer.refused] == [(9, "sequence_reused")]
    monkeypatch.setattr("sync_server.ingest.service.MAX_STREAMS", 1)
    assert device.post([anomaly(1)], stream="f" * 32).json["code"] == "too_many_streams"

"""Results: stored once whatever happens, all of a batch or nothing."""

from __future__ import annotations

import dataclasses
import secrets
import threading

import pytest
from flask import Flask
from flask.testing import FlaskClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from simulators.result_tables import failing, rows, stored
from simulators.server_devices import (
    HOUR,
    NOON,
    ServerDevice,
    anomaly,
    ended,
    enrolment_token,
    gap,
    summary,
)

from edge_runtime.contract.result import record_digest
from sync_server.db import Database
from sync_server.ingest.partitions import RECORD_TABLES


def test_a_batch_is_stored_and_a_repeat_changes_nothing(device: ServerDevice, database: Database) -> None:
    records = [anomaly(1), summary(2, windows=10, anomalous=1), gap(4, 2, 3), ended(5, NOON, NOON + HOUR, 7)]
    first = device.send(records)
    assert (first.stored, first.held, first.refused) == (4, ((1, 2), (4, 5)), ())
    dump = [
        rows(database, f"SELECT * FROM {table} ORDER BY 1, 2")
        for table in (*RECORD_TABLES, "incidents", "hourly_rollups")
    ]
    again = device.send(records)
    assert (again.stored, again.held, again.refused) == (0, first.held, ())
    tables = (*RECORD_TABLES, "incidents", "hourly_rollups")
    assert dump == [rows(database, f"SELECT * FROM {table} ORDER BY 1, 2") for table in tables]


def test_values_come_back_bit_for_bit(device: ServerDevice, database: Database) -> None:
    record = dataclasses.replace(
        anomaly(1, signals=("é🚗", "b")), raw_score=-1.2345678901234567e-300, anomaly_score=1 / 3
    )
    device.send([record])
    row = rows(database, "SELECT * FROM anomalies")[0]
    assert (row["raw_score"], row["anomaly_score"]) == (record.raw_score, record.anomaly_score)
    assert row["contributions"] == [list(item) for item in record.contributions]
    assert row["signals"] == ["é🚗", "b"]
    assert bytes(row["digest"]) == record_digest(record)


def test_a_reused_number_is_refused_and_changes_nothing(device: ServerDevice, database: Database) -> None:
    device.send([anomaly(1), anomaly(2, NOON + 1), summary(3)])
    before = stored(database)
    # Another content under 2, another kind of record under 3, and a new one.
    answer = device.send([anomaly(1), anomaly(2, NOON + 2), anomaly(3, NOON + 3), anomaly(4, NOON + 4)])
    assert (answer.stored, answer.held) == (1, ((1, 1), (4, 4)))
    assert [(refusal.sequence, refusal.reason) for refusal in answer.refused] == [
        (2, "sequence_reused"),
        (3, "sequence_reused"),
    ]
    after = stored(database)
    assert {key: after[key] for key in before} == before
    assert len(after) == 4


def test_streams_and_devices_number_their_records_alone(client: FlaskClient, database: Database) -> None:
    token = enrolment_token(database)
    one, two = ServerDevice.enrol(client, token), ServerDevice.enrol(client, token)
    two.stream = one.stream
    assert one.send([anomaly(1)]).stored == two.send([anomaly(1, NOON + 9)]).stored == 1
    assert one.send([anomaly(1, NOON + 5)], stream=secrets.token_hex(16)).stored == 1


SENT = tuple(
    [anomaly(n, NOON + n * 60_000, started_at_ms=NOON + (n // 5) * 300_000, windows=n % 5 + 1) for n in range(1, 13)]
    + [summary(13, windows=12, anomalous=12), gap(16, 14, 15), ended(17, NOON, NOON + HOUR, 4)]
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(st.integers(0, len(SENT) - 1), min_size=1, unique=True), min_size=1, max_size=6))
def test_any_order_of_batches_and_retries_ends_at_the_same(
    client: FlaskClient, database: Database, batches: list[list[int]]
) -> None:
    token = enrolment_token(database)
    mixed, straight = ServerDevice.enrol(client, token), ServerDevice.enrol(client, token)
    total = 0
    for numbers in [*batches, range(len(SENT))]:
        batch = [SENT[number] for number in numbers]
        answer = mixed.send(batch)
        total += answer.stored
        assert not answer.refused
        held = {number for first, last in answer.held for number in range(first, last + 1)}
        assert held == {record.sequence for record in batch}
    straight.send(SENT)
    assert total == len(SENT)
    everything = stored(database)
    for each in (mixed, straight):
        assert {k[1]: v for k, v in everything.items() if k[0] == each.stream} == {
            record.sequence: record_digest(record) for record in SENT
        }
    columns = "started_at_ms, last_observed_ms, listed_at_ms, ended_at_ms, windows, records, peak_score, signals, stale"
    statement = f"SELECT {columns} FROM incidents WHERE device_id = :id ORDER BY started_at_ms"
    assert rows(database, statement, id=mixed.id) == rows(database, statement, id=straight.id)
    rolled, counted = (
        rows(database, f"SELECT CAST(sum(windows) AS bigint) AS n FROM {table}")
        for table in ("hourly_rollups", "summaries")
    )
    assert rolled == counted
    assert rows(database, "SELECT CAST(sum(incidents) AS bigint) AS n FROM hourly_rollups") == rows(
        database, "SELECT count(*) AS n FROM incidents"
    )


@pytest.mark.parametrize("table", ["streams", "anomalies", "summaries", "incidents", "hourly_rollup_shards", "devices"])
def test_a_batch_that_breaks_in_the_middle_leaves_nothing(
    device: ServerDevice, database: Database, owner_database: Database, table: str
) -> None:
    records = [anomaly(1), summary(2)]
    with failing(owner_database, table, "XX000"):
        answer = device.post(records)
        assert (answer.status_code, answer.json["code"]) == (500, "internal_error")
    assert not stored(database)
    for empty in ("incidents", "hourly_rollups", "streams"):
        assert not rows(database, f"SELECT * FROM {empty}")
    assert device.send(records).stored == 2


def test_the_same_batch_sent_at_once_is_stored_once(app: Flask, device: ServerDevice, database: Database) -> None:
    records = [anomaly(n, NOON + n) for n in range(1, 200)] + [summary(200)]
    answers = []

    def send() -> None:
        answers.append(ServerDevice(app.test_client(), device.id, device.token, device.stream).send(records))

    threads = [threading.Thread(target=send) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answer.stored for answer in answers) == [0, 0, 0, 200]
    assert {answer.held for answer in answers} == {((1, 200),)}
    assert len(stored(database)) == 200
    assert rows(database, "SELECT windows FROM hourly_rollups WHERE windows > 0") == [{"windows": 10}]


def test_statements_do_not_grow_with_the_batch(
    device: ServerDevice, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    ask = database.call

    def count(statement: str, values: dict[str, object]) -> dict[str, object] | None:
        calls.append(statement)
        return ask(statement, values)

    monkeypatch.setattr(database, "call", count)
    device.send([anomaly(1), summary(2)])
    few = len(calls)
    records = [anomaly(n, NOON + n) for n in range(3, 2_000)] + [
        summary(2_000 + n, NOON + n * HOUR) for n in range(500)
    ]
    device.send(records)
    assert len(calls) - few == few == 2, "the token, and the batch"
    device.send(records)
    assert len(calls) == 7, "a repeated one is asked about before it is confirmed"

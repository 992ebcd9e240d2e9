"""Results: stored once whatever happens, folded into incidents and roll-ups, refused where they must be."""

from __future__ import annotations

import dataclasses
import gzip
import json
import secrets
import threading
import zlib
from datetime import UTC, datetime, timedelta

import pytest
from flask import Flask
from flask.testing import FlaskClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from simulators.server_devices import (
    HOUR,
    NOON,
    ServerDevice,
    anomaly,
    ended,
    enrolment_token,
    gap,
    publish,
    summary,
)
from sqlalchemy import event, text

from edge_runtime.contract.batch import encode_batch
from edge_runtime.contract.result import record_digest
from sync_server.db import Database, utc_now
from sync_server.devices.models import Device
from sync_server.devices.service import forget_clone
from sync_server.ingest import service
from sync_server.ingest.partitions import RECORD_TABLES, ensure_partitions

JSON = {"Content-Type": "application/json", "Content-Encoding": "gzip"}


@pytest.fixture
def device(client: FlaskClient, database: Database) -> ServerDevice:
    return ServerDevice.enrol(client, enrolment_token(database))


def rows(database: Database, statement: str, **values: object) -> list[dict[str, object]]:
    with database.session() as session:
        return [dict(row) for row in session.execute(text(statement), values).mappings()]


def stored(database: Database) -> dict[tuple[str, int], bytes]:
    """Every stored record of all tables: (stream, sequence) to digest; fails when one is there twice."""
    union = " UNION ALL ".join(f"SELECT stream_id, sequence, digest FROM {table}" for table in RECORD_TABLES)
    found = rows(
        database, f"SELECT s.stream, r.sequence, r.digest FROM ({union}) r JOIN streams s ON s.id = r.stream_id"
    )
    result = {(str(row["stream"]), int(row["sequence"])): bytes(row["digest"]) for row in found}
    assert len(result) == len(found), "a record is stored twice"
    return result


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


def test_a_batch_that_breaks_in_the_middle_leaves_nothing(
    device: ServerDevice, app: Flask, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_arguments: object, **_options: object) -> None:
        raise RuntimeError("the process dies here")

    for step in ("store_incidents", "add_to_rollups", "grow"):
        with monkeypatch.context() as patch:
            patch.setattr(service, step, broken)
            app.testing = False
            assert device.post([anomaly(1), summary(2)]).status_code == 500
    assert not stored(database)
    assert not rows(database, "SELECT * FROM incidents")
    assert not rows(database, "SELECT * FROM hourly_rollups")
    assert not rows(database, "SELECT * FROM streams")
    assert device.send([anomaly(1), summary(2)]).stored == 2


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


def test_devices_that_share_roll_up_rows_do_not_block_each_other(app: Flask, database: Database) -> None:
    token = enrolment_token(database)
    devices = [ServerDevice.enrol(app.test_client(), token) for _ in range(4)]

    def send(each: ServerDevice, turn: int) -> None:
        hours = range(12) if turn % 2 else reversed(range(12))
        for batch in range(3):
            each.send([summary(batch * 20 + n + 1, NOON + hour * HOUR) for n, hour in enumerate(hours)])

    threads = [threading.Thread(target=send, args=(each, turn)) for turn, each in enumerate(devices)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    total = rows(database, "SELECT CAST(sum(windows) AS bigint) AS n FROM hourly_rollups")[0]["n"]
    counted = rows(database, "SELECT CAST(sum(windows) AS bigint) AS n FROM summaries")[0]["n"]
    assert total == counted > 0


def test_incidents_hold_peak_end_and_counts(device: ServerDevice, database: Database) -> None:
    start = NOON + HOUR
    device.send(
        [
            anomaly(1, start, score=0.99, windows=1),
            anomaly(2, start + 5, started_at_ms=start, score=0.999, windows=4, signals=("rpm",)),
        ]
    )
    device.send([anomaly(3, start + 9, started_at_ms=start, score=0.995, windows=9), ended(4, start, start + 50, 11)])
    incident = rows(database, "SELECT * FROM incidents")[0]
    assert (incident["started_at_ms"], incident["last_observed_ms"], incident["ended_at_ms"]) == (
        start,
        start + 9,
        start + 50,
    )
    assert (incident["windows"], incident["records"], incident["peak_score"]) == (11, 3, 0.999)
    assert incident["signals"] == ["rpm"]
    assert incident["status"] == "open"


def test_the_end_of_an_incident_whose_anomalies_are_lost_is_kept(device: ServerDevice, database: Database) -> None:
    device.send([gap(3, 1, 2), ended(4, NOON, NOON + HOUR, 30)])
    incident = rows(database, "SELECT * FROM incidents")[0]
    assert (incident["peak_score"], incident["windows"], incident["records"]) == (None, 30, 0)


def test_roll_ups_add_windows_by_hour_release_and_cohort(client: FlaskClient, database: Database) -> None:
    publish(database)
    token = enrolment_token(database)
    one, two = (ServerDevice.enrol(client, token, cohort=cohort) for cohort in ("north", None))
    one.send([summary(1, windows=10, anomalous=2), summary(2, windows=5), anomaly(3, NOON + 60_000)])
    two.send([summary(1, windows=3), summary(2, NOON - NOON % (24 * HOUR), windows=100, period="day")])
    one.send([summary(4, windows=7, bundle="f" * 64)])
    found = rows(database, "SELECT * FROM hourly_rollups ORDER BY period DESC, cohort, release_number")
    keys = [(row["period"], row["cohort"], row["model"], row["release_number"]) for row in found]
    assert keys == [
        ("hour", "", "engine", 7), ("hour", "north", "engine", 0), ("hour", "north", "engine", 7), ("day", "", "engine", 7),
    ]  # fmt: skip
    north = found[2]
    assert (north["windows"], north["anomalous"], north["incidents"], north["cells"]) == (15, 2, 1, 75)
    assert north["histogram"] == [13, *[0] * 13, 2]
    assert [row["windows"] for row in found] == [3, 7, 15, 100]


def test_a_clock_far_ahead_is_flagged_and_cannot_pin_itself_to_the_top(
    device: ServerDevice, database: Database
) -> None:
    year_2100 = 4_102_444_800_000
    device.send([anomaly(1, year_2100), summary(2, year_2100), anomaly(3, NOON)])
    assert rows(database, "SELECT sequence, ahead FROM anomalies ORDER BY 1") == [
        {"sequence": 1, "ahead": True}, {"sequence": 3, "ahead": False},
    ]  # fmt: skip
    now_ms = utc_now().timestamp() * 1000
    assert rows(database, "SELECT max(listed_at_ms) AS listed FROM incidents")[0]["listed"] <= now_ms
    assert rows(database, "SELECT max(started_at_ms) AS latest FROM hourly_rollups")[0]["latest"] <= now_ms
    assert rows(database, "SELECT DISTINCT tableoid::regclass::text AS name FROM anomalies") == [
        {"name": f"anomalies_{utc_now():%Y_%m}"}
    ]


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


def test_the_same_summary_timed_otherwise_adds_nothing(device: ServerDevice, database: Database) -> None:
    """A restored home scores the same readings again; only how long that took differs."""
    device.send([summary(1)])
    with database.session() as session:
        before = session.execute(text("SELECT * FROM hourly_rollups")).all()
    slower = dataclasses.replace(summary(1), latency_sum_us=10**6, latency_max_us=10**5)
    answer = device.send([slower])
    assert (answer.stored, answer.held, answer.refused) == (0, ((1, 1),), ())
    with database.session() as session:
        assert session.execute(text("SELECT * FROM hourly_rollups")).all() == before
        assert session.execute(text("SELECT count(*), max(latency_max_us) FROM summaries")).one() == (1, 200)


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


def test_bad_records_are_refused_one_by_one(device: ServerDevice, database: Database) -> None:
    document = json.loads(encode_batch(device.stream, NOON, [anomaly(1), anomaly(2), anomaly(3), summary(4)]))
    document["anomalies"]["anomaly_score"][1] = 1.5
    document["anomalies"]["contributions"][2] = [["\ud800", 1.0]]
    document["summaries"]["windows"][0] = 2**31
    body = gzip.compress(json.dumps(document).encode())
    answer = device.client.post("/api/results", data=body, headers=device.headers(**JSON))
    assert (answer.status_code, answer.json["stored"], answer.json["held"]) == (200, 1, [[1, 1]])
    assert [(item[0], item[1]) for item in answer.json["refused"]] == [
        (2, "bad_record"),
        (3, "bad_record"),
        (4, "bad_record"),
    ]
    assert len(stored(database)) == 1


def _gzip(content: bytes) -> bytes:
    return gzip.compress(content)


GOOD = encode_batch("a" * 32, NOON, [anomaly(1)])


@pytest.mark.parametrize(
    ("body", "headers", "status", "code"),
    [
        (b"", JSON, 400, "gzip_broken"),
        (b"not gzip", JSON, 400, "gzip_broken"),
        (_gzip(GOOD)[:-9], JSON, 400, "gzip_broken"),
        (_gzip(GOOD)[:-8] + b"\0" * 8, JSON, 400, "gzip_broken"),
        (_gzip(GOOD) + b"tail", JSON, 400, "gzip_broken"),
        (_gzip(GOOD) + _gzip(GOOD), JSON, 400, "gzip_broken"),
        (_gzip(b" " * (8 * 2**20 + 1)), JSON, 413, "batch_too_large"),
        (_gzip(b" " * (8 * 2**20)), JSON, 400, "bad_batch"),
        (secrets.token_bytes(2**20 + 1), JSON, 413, None),
        (_gzip(b"{"), JSON, 400, "bad_batch"),
        (_gzip(b"[" * 200_000), JSON, 400, "bad_batch"),
        (_gzip(b"null"), JSON, 400, "bad_batch"),
        (_gzip(GOOD.replace(b'"format":1', b'"format":2')), JSON, 400, "bad_batch"),
        (_gzip(GOOD.replace(b'"sequence":[1]', b'"sequence":[1,2]')), JSON, 400, "bad_batch"),
        (_gzip(GOOD.replace(b'"sequence":[1]', b'"sequence":["1"]')), JSON, 400, "bad_batch"),
        (GOOD, {**JSON, "Content-Encoding": "br"}, 415, "encoding_unknown"),
        (_gzip(GOOD), {**JSON, "Content-Type": "text/plain"}, 415, "unsupported_media_type"),
    ],
)  # fmt: skip
def test_a_shapeless_upload_is_refused_whole(
    device: ServerDevice, database: Database, body: bytes, headers: dict[str, str], status: int, code: str | None
) -> None:
    answer = device.client.post("/api/results", data=body, headers=device.headers(**headers))
    assert (answer.status_code, answer.mimetype) == (status, "application/problem+json"), answer.text
    assert code in (None, answer.json["code"])
    assert not rows(database, "SELECT * FROM streams")


def test_a_zip_bomb_is_not_unpacked(device: ServerDevice) -> None:
    squeezer = zlib.compressobj(9, wbits=31)
    bomb = b"".join(squeezer.compress(b"\0" * 2**20) for _ in range(90)) + squeezer.flush()
    assert len(bomb) < 2**20
    answer = device.client.post("/api/results", data=bomb, headers=device.headers(**JSON))
    assert (answer.status_code, answer.json["code"]) == (413, "batch_too_large")


def test_plain_json_is_taken_too(device: ServerDevice) -> None:
    headers = device.headers(**{"Content-Type": "application/json"})
    assert device.client.post("/api/results", data=GOOD, headers=headers).json["stored"] == 1


def test_an_empty_batch_and_unknown_tokens(device: ServerDevice, client: FlaskClient) -> None:
    assert device.send([]).held == ()
    answer = client.post("/api/results", data=_gzip(GOOD), headers=JSON)
    assert (answer.status_code, answer.json["code"]) == (401, "not_authenticated")


def test_a_stream_with_too_many_holes_and_a_device_with_too_many_streams(
    device: ServerDevice, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sync_server.ingest.streams.MAX_RUNS", 3)
    device.send([anomaly(n) for n in (1, 3, 5, 7)])
    answer = device.send([anomaly(7), anomaly(9)])
    assert (answer.stored, answer.held) == (0, ((7, 7),))
    assert [(refusal.sequence, refusal.reason) for refusal in answer.refused] == [(9, "sequence_reused")]
    monkeypatch.setattr("sync_server.ingest.streams.MAX_STREAMS", 1)
    assert device.post([anomaly(1)], stream="f" * 32).json["code"] == "too_many_streams"


def test_statements_do_not_grow_with_the_batch(device: ServerDevice, database: Database) -> None:
    seen: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_more: object) -> None:
        seen.append(statement)

    event.listen(database.engine, "before_cursor_execute", note)
    try:
        device.send([anomaly(1), summary(2)])
        few = len(seen)
        device.send(
            [anomaly(n, NOON + n) for n in range(3, 2_000)] + [summary(2_000 + n, NOON + n * HOUR) for n in range(500)]
        )
    finally:
        event.remove(database.engine, "before_cursor_execute", note)
    assert len(seen) - few <= few <= 16


def test_a_database_that_is_away_is_503_with_retry_after(app: Flask, device: ServerDevice) -> None:
    away = Database("postgresql://nobody@127.0.0.1:1/none", pool_size=1)
    app.extensions["database"] = away
    answer = device.post([anomaly(1)])
    away.dispose()
    assert (answer.status_code, answer.json["code"]) == (503, "database_down")
    assert int(answer.headers["Retry-After"]) > 0


def test_partitions_are_made_ahead_and_empty_the_default_one(owner_database: Database, database: Database) -> None:
    next_month = (datetime.now(UTC).replace(day=1) + timedelta(days=32)).replace(day=1, hour=1)
    name = f"gaps_{next_month:%Y_%m}"
    with owner_database.session() as session:
        session.execute(text(f"DROP TABLE {name}"))
        session.execute(
            text(
                "INSERT INTO gaps (received_at, stream_id, sequence, digest, device_id, first_sequence, last_sequence,"
                " count, reason) VALUES (:moment, 1, 1, '', 'd', 1, 1, 1, 'r')"
            ),
            {"moment": next_month},
        )
        assert session.execute(text("SELECT tableoid::regclass::text FROM gaps")).scalar_one() == "gaps_default"
    # The server's role may call the door, and nothing beside it.
    with database.session() as session:
        assert ensure_partitions(session) == 1
        assert ensure_partitions(session) == 0
        assert session.execute(text("SELECT tableoid::regclass::text FROM gaps")).scalar_one() == name
    with pytest.raises(Exception, match="permission denied"), database.session() as session:
        session.execute(text("CREATE TABLE gaps_of_mine (x integer)"))

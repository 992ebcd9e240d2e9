"""Uploads that are not as they should be: refused whole, refused record by record, or stored and flagged."""

from __future__ import annotations

import dataclasses
import gzip
import json
import secrets
import zlib

import pytest
from flask.testing import FlaskClient
from simulators.result_tables import rows, stored
from simulators.server_devices import HOUR, NOON, ServerDevice, anomaly, ended, enrolment_token, gap, publish, summary

from edge_runtime.contract.batch import encode_batch
from edge_runtime.contract.result import Event
from sync_server.access.tokens import issue_token
from sync_server.db import Database, utc_now

JSON = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
PLAIN = {"Content-Type": "application/json"}


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


HOSTILE = """'; DROP TABLE anomalies; -- <script>alert(1)</script> {{7*7}} %s %(name)s :name $1 \\ " é🚗 \u202e"""


def test_sql_and_html_in_every_text_field_are_text(database: Database, client: FlaskClient) -> None:
    device = ServerDevice.enrol(client, enrolment_token(database), cohort=HOSTILE, name=HOSTILE[:64])
    short = HOSTILE[:64]
    records = [
        anomaly(1, signals=(HOSTILE, f"{HOSTILE} 2")),
        summary(2),
        dataclasses.replace(gap(5, 3, 4), reason=short),
        Event(6, None, NOON, short, {short: HOSTILE, "b": short}),
        Event(7, "b" * 64, NOON, "incident_ended", {"incident_started_at_ms": HOSTILE, "windows": HOSTILE}),
    ]
    assert device.send(records).stored == 5
    assert device.send(records).stored == 0, "they are the same when they come again"
    assert rows(database, "SELECT signals, cohort FROM anomalies") == [
        {"signals": [HOSTILE, f"{HOSTILE} 2"], "cohort": HOSTILE}
    ]
    assert rows(database, "SELECT reason FROM gaps") == [{"reason": short}]
    assert rows(database, "SELECT name, detail FROM events ORDER BY sequence LIMIT 1") == [
        {"name": short, "detail": {short: HOSTILE, "b": short}}
    ]
    assert {row["cohort"] for row in rows(database, "SELECT cohort FROM hourly_rollups")} == {HOSTILE}
    assert rows(database, "SELECT signals, windows FROM incidents") == [
        {"signals": [HOSTILE, f"{HOSTILE} 2"], "windows": 1}
    ]


@pytest.mark.parametrize("table", ["anomalies", "summaries", "gaps", "events"])
def test_every_field_of_every_record_with_every_wrong_value(
    device: ServerDevice, database: Database, table: str
) -> None:
    """Whatever stands in one field of one record, the others are stored and nothing breaks."""
    good = [anomaly(1), summary(2), gap(9, 3, 4), ended(10, NOON, NOON + HOUR, 7)]
    document = json.loads(encode_batch(device.stream, NOON, good))
    wrong = [None, True, -1, 1.5, 2**63, 1e308, "", "\u0000", "\ud800", "x" * 5000, [], [[]], {}, {"a": 1}, [None] * 99]
    for field in document[table]:
        for value in wrong:
            document["stream"] = secrets.token_hex(16)
            changed = {**document, table: {**document[table], field: [value]}}
            answer = device.client.post(
                "/api/results", data=json.dumps(changed).encode(), headers=device.headers(**PLAIN)
            )
            if field == "sequence":
                assert (answer.status_code, answer.json["code"]) == (400, "bad_batch"), (field, value)
            else:
                assert answer.status_code == 200, (field, value)
                assert answer.json["stored"] + len(answer.json["refused"]) == 4, (field, value)
                assert answer.json["stored"] >= 3, (field, value)
    stored(database)


def test_numbers_that_no_table_holds_are_no_sequence(device: ServerDevice, database: Database) -> None:
    for number in (0, -1, 2**53, 2**63, 1.0, "1", None, True):
        body = GOOD.replace(b'"sequence":[1]', f'"sequence":[{json.dumps(number)}]'.encode())
        answer = device.client.post("/api/results", data=body, headers=device.headers(**PLAIN))
        assert (answer.status_code, answer.json["code"]) == (400, "bad_batch"), number
    last = dataclasses.replace(anomaly(1), sequence=2**53 - 1)
    assert device.send([last]).held == ((2**53 - 1, 2**53 - 1),)


def test_the_far_past_is_stored_as_it_is(device: ServerDevice, database: Database) -> None:
    """A device whose clock starts at 1970 tells of its time, and no partition is made for it."""
    assert device.send([anomaly(1, 0), summary(2, 0), ended(3, 0, 0, 2)]).stored == 3
    assert rows(database, "SELECT observed_at_ms, ahead FROM anomalies") == [{"observed_at_ms": 0, "ahead": False}]
    assert {row["started_at_ms"] for row in rows(database, "SELECT started_at_ms FROM hourly_rollups")} == {0}
    assert rows(database, "SELECT DISTINCT tableoid::regclass::text AS name FROM summaries") == [
        {"name": f"summaries_{utc_now():%Y_%m}"}
    ]


def test_batches_out_of_order_are_stored_and_fill_the_hole(device: ServerDevice, database: Database) -> None:
    assert device.send([anomaly(n, NOON + n) for n in (9, 8, 7)], sent_at_ms=NOON + 5).held == ((7, 9),)
    assert device.send([anomaly(n, NOON + n) for n in (2, 1)], sent_at_ms=NOON + 1).held == ((1, 2),)
    assert rows(database, "SELECT CAST(held AS text) AS held FROM streams") == [{"held": "{[1,3),[7,10)}"}]
    device.send([anomaly(n, NOON + n) for n in range(1, 10)])
    assert rows(database, "SELECT CAST(held AS text) AS held FROM streams") == [{"held": "{[1,10)}"}]


def test_an_unknown_bundle_is_kept_and_counts_as_release_0(device: ServerDevice, database: Database) -> None:
    publish(database)
    device.send([anomaly(1, bundle="0" * 64), summary(2, bundle="0" * 64), summary(3)])
    found = rows(
        database, "SELECT model, release_number, CAST(sum(windows) AS bigint) AS windows,"
        " CAST(sum(incidents) AS bigint) AS incidents FROM hourly_rollups GROUP BY 1, 2 ORDER BY 2",
    )  # fmt: skip
    assert found == [
        {"model": "engine", "release_number": 0, "windows": 10, "incidents": 1},
        {"model": "engine", "release_number": 7, "windows": 10, "incidents": 0},
    ]
    assert rows(database, "SELECT bundle FROM incidents") == [{"bundle": "0" * 64}]


def test_a_device_can_only_speak_for_itself(client: FlaskClient, database: Database) -> None:
    """Nothing in an upload names a device: whose token it is decides, and one stream of two devices is two streams."""
    token = enrolment_token(database)
    honest, other = (ServerDevice.enrol(client, token) for _ in range(2))
    honest.send([anomaly(1, NOON), anomaly(2, NOON + 1)])
    other.stream = honest.stream
    document = json.loads(encode_batch(honest.stream, NOON, [anomaly(1, NOON + 7), anomaly(3, NOON + 8)]))
    document |= {"device_id": honest.id, "device": honest.id}
    document["anomalies"]["device_id"] = [honest.id, honest.id]
    answer = client.post("/api/results", data=json.dumps(document).encode(), headers=other.headers(**PLAIN))
    assert (answer.json["stored"], answer.json["refused"]) == (2, [])
    mine = rows(database, "SELECT device_id, sequence FROM anomalies ORDER BY received_at, sequence")
    assert [(row["device_id"], row["sequence"]) for row in mine] == [
        (honest.id, 1), (honest.id, 2), (other.id, 1), (other.id, 3),
    ]  # fmt: skip
    assert honest.send([anomaly(1, NOON), anomaly(2, NOON + 1), anomaly(3, NOON + 2)]).stored == 1
    assert rows(database, "SELECT count(*) AS n FROM devices WHERE cloned_at IS NOT NULL") == [{"n": 0}]
    for kind in ("pub", "enr", "ops", "view"):
        stranger = bearer(make_token(database, kind))
        assert client.post("/api/results", data=GOOD, headers={**stranger, **PLAIN}).status_code == 403


def make_token(database: Database, kind: str) -> str:
    with database.session() as session:
        return issue_token(session, kind, name="stranger", subject="f" * 32).token


def test_a_token_without_a_device_is_refused(client: FlaskClient, database: Database) -> None:
    answer = client.post("/api/results", data=GOOD, headers={**bearer(make_token(database, "dev")), **PLAIN})
    assert (answer.status_code, answer.json["code"]) == (401, "device_unknown")


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}

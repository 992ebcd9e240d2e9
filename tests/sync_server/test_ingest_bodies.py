"""Uploads that are not as they should be: refused whole, refused record by record, or stored and flagged."""

from __future__ import annotations

import gzip
import json
import secrets
import zlib

import pytest
from flask.testing import FlaskClient
from simulators.result_tables import rows, stored
from simulators.server_devices import (
    NOON,
    ServerDevice,
    anomaly,
    summary,
)

from edge_runtime.contract.batch import encode_batch
from sync_server.db import Database, utc_now

JSON = {"Content-Type": "application/json", "Content-Encoding": "gzip"}


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

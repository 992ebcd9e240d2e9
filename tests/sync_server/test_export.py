"""Incidents as a file: the same filters, every row, harmless in a spreadsheet."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable

import pytest
from flask.testing import FlaskClient
from simulators.server_devices import HOUR, NOON, ServerDevice, anomaly, enrolment_token, publish

from sync_server.anomalies import export
from sync_server.db import Database

Auth = Callable[..., dict[str, str]]
EVIL = '=HYPERLINK("http://example.org","x")'


@pytest.fixture
def fleet(client: FlaskClient, database: Database) -> ServerDevice:
    """One device with a name that is a formula, and 12 incidents."""
    publish(database)
    device = ServerDevice.enrol(client, enrolment_token(database), cohort="+north", name=EVIL)
    device.send([anomaly(n + 1, NOON + n * HOUR, signals=("rpm", "oil, warm")) for n in range(12)])
    return device


def rows_of(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text, newline="")))


def test_a_file_holds_what_the_list_holds(client: FlaskClient, fleet: ServerDevice, auth: Auth) -> None:
    answer = client.get("/api/incidents.csv?minimum_score=0.5", headers=auth("view"))
    assert (answer.status_code, answer.mimetype) == (200, "text/csv")
    assert "attachment" in answer.headers["Content-Disposition"]
    head, *rows = rows_of(answer.text)
    assert tuple(head) == export.COLUMNS
    listed = client.get("/api/anomalies?limit=500", headers=auth("view")).json["items"]
    assert [row[0] for row in rows] == [str(item["id"]) for item in listed]
    first = dict(zip(head, rows[0], strict=True))
    assert (first["started_at"], first["release_number"], first["status"]) == (
        "2023-11-15T09:00:00+00:00", "7", "open",
    )  # fmt: skip
    assert first["signals"] == "rpm +0.2; oil, warm +0.1"
    assert first["ended_at"] == first["status_by"] == ""


def test_no_cell_is_a_formula(client: FlaskClient, fleet: ServerDevice, auth: Auth) -> None:
    number = client.get("/api/anomalies", headers=auth("ops")).json["items"][0]["id"]
    body = {"status": "resolved", "note": "@SUM(A1:A9)"}
    client.post(f"/api/incidents/{number}/status", json=body, headers=auth("ops", name="-1+1"))
    head, *rows = rows_of(client.get("/api/incidents.csv", headers=auth("ops")).text)
    assert {row[head.index("device_name")] for row in rows} == {f"'{EVIL}"}
    assert {row[head.index("cohort")] for row in rows} == {"'+north"}
    assert rows[0][head.index("status_note")] == "'@SUM(A1:A9)"
    assert not [cell for row in rows for cell in row if cell.startswith(("=", "+", "-", "@", "\t"))]


def test_a_file_that_is_cut_says_so_and_can_be_gone_on_with(
    client: FlaskClient, fleet: ServerDevice, auth: Auth, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "MAX_ROWS", 5)
    monkeypatch.setattr(export, "MAX_LIMIT", 2)
    found, cursor = [], ""
    for expected in (5, 5, 2):
        rows = rows_of(client.get("/api/incidents.csv", query_string={"cursor": cursor}, headers=auth("view")).text)[1:]
        last = rows.pop() if len(rows[-1]) == 1 else None
        assert len(rows) == expected
        found += [int(row[0]) for row in rows]
        cursor = last[0].partition("cursor=")[2] if last else ""
    assert cursor == ""
    assert len(set(found)) == len(found) == 12


@pytest.mark.parametrize("query", ["view=windows", "limit=5", "cursor=x", "status=gone", "cohrot=x", "signal=%00"])
def test_a_query_that_makes_no_sense_is_refused(client: FlaskClient, auth: Auth, query: str) -> None:
    answer = client.get(f"/api/incidents.csv?{query}", headers=auth("ops"))
    assert (answer.status_code, answer.mimetype) == (422, "application/problem+json")


def test_strangers_get_no_file(client: FlaskClient, auth: Auth) -> None:
    assert client.get("/api/incidents.csv").status_code == 401
    assert client.get("/api/incidents.csv", headers=auth("pub")).status_code == 403

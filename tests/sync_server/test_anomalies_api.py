"""Incidents and windows as lists: filters, pages, statuses, who may do what."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from flask.testing import FlaskClient
from simulators.server_devices import BUNDLE, HOUR, NOON, ServerDevice, anomaly, enrolment_token, publish
from sqlalchemy import select

from sync_server.access.models import AuditEntry
from sync_server.db import Database

Auth = Callable[..., dict[str, str]]


@pytest.fixture
def fleet(client: FlaskClient, database: Database) -> list[ServerDevice]:
    """Two devices; the first has 12 incidents of two windows, the second 3 of one."""
    token = enrolment_token(database)
    one, two = (
        ServerDevice.enrol(client, token, cohort=cohort, name=name) for cohort, name in (("north", "a"), ("south", "b"))
    )
    records = []
    for n in range(12):
        start = NOON + n * HOUR
        records.append(anomaly(2 * n + 1, start, score=0.9 + n / 1000, signals=("rpm",) if n % 2 else ("heat", "oil")))
        records.append(anomaly(2 * n + 2, start + 60_000, started_at_ms=start, score=0.5, windows=2))
    one.send(records)
    two.send([anomaly(n + 1, NOON + n * HOUR, score=0.7, signals=("oil",)) for n in range(3)])
    return [one, two]


def listed(client: FlaskClient, auth: dict[str, str], **query: object) -> list[dict]:
    answer = client.get("/api/anomalies", query_string=query, headers=auth)
    assert answer.status_code == 200, answer.text
    return answer.json["items"]


def test_incidents_newest_first_with_what_an_operator_needs(
    client: FlaskClient, fleet: list[ServerDevice], auth: Auth, database: Database
) -> None:
    publish(database)
    items = listed(client, auth("view"))
    assert len(items) == 15
    moments = [item["listed_at_ms"] for item in items]
    assert moments == sorted(moments, reverse=True)
    first = items[0]
    assert first["device_id"] == fleet[0].id
    assert (first["device_name"], first["cohort"], first["bundle"]) == ("a", "north", BUNDLE)
    assert (first["model"], first["version"], first["release_number"], first["bundle_known"]) == (
        "engine",
        "1.7",
        7,
        True,
    )
    assert (first["windows"], first["records"], first["peak_score"]) == (2, 2, 0.911)
    assert first["contributions"] == [["rpm", 0.2]]
    assert first["status"] == "open"


@pytest.mark.parametrize(
    ("query", "count"),
    [
        ({"cohort": "south"}, 3),
        ({"cohort": "nowhere"}, 0),
        ({"signal": "oil"}, 9),
        ({"signal": "rpm", "cohort": "north"}, 6),
        ({"status": "open"}, 15),
        ({"status": "resolved"}, 0),
        ({"minimum_score": "0.9"}, 12),
        ({"minimum_score": "1"}, 0),
        ({"from_ms": NOON + 10 * HOUR}, 2),
        ({"to_ms": NOON + HOUR}, 2),
        ({"status": "", "cohort": "", "device": ""}, 15),
        ({"view": "windows"}, 27),
        ({"view": "windows", "minimum_score": "0.6", "cohort": "north"}, 12),
        ({"view": "windows", "signal": "pressure"}, 12),
        ({"view": "windows", "from_ms": NOON + HOUR, "to_ms": NOON + 2 * HOUR}, 3),
    ],
)
def test_filters(client: FlaskClient, fleet: list[ServerDevice], auth: Auth, query: dict, count: int) -> None:
    assert len(listed(client, auth("ops"), **query)) == count


def test_one_device(client: FlaskClient, fleet: list[ServerDevice], auth: Auth) -> None:
    assert len(listed(client, auth("ops"), device=fleet[1].id)) == 3
    assert len(listed(client, auth("ops"), device=fleet[0].id, view="windows")) == 24


@pytest.mark.parametrize("view", ["incidents", "windows"])
def test_pages_hold_every_row_once_while_new_ones_arrive(
    client: FlaskClient, fleet: list[ServerDevice], auth: Auth, view: str
) -> None:
    headers = auth("view")
    expected = [item["id"] for item in listed(client, headers, view=view, limit=500)]
    found: list[int] = []
    cursor = ""
    while True:
        answer = client.get(
            "/api/anomalies", query_string={"view": view, "limit": 4, "cursor": cursor}, headers=headers
        ).json
        found += [item["id"] for item in answer["items"]]
        assert len(answer["items"]) <= 4
        fleet[1].send([anomaly(100 + len(found), NOON + 100 * HOUR + len(found))])
        if answer["next"] is None:
            break
        cursor = answer["next"]
    assert found == expected


def test_a_cursor_belongs_to_its_list(client: FlaskClient, fleet: list[ServerDevice], auth: Auth) -> None:
    headers = auth("view")
    cursor = client.get("/api/anomalies?limit=2", headers=headers).json["next"]
    assert client.get("/api/anomalies", query_string={"cursor": cursor}, headers=headers).status_code == 200
    for query in (
        {"cursor": cursor, "cohort": "north"},
        {"cursor": "x"},
        {"cursor": "é"},
        {"cursor": cursor[:-4]},
        {"cursor": "W10"},
    ):
        assert client.get("/api/anomalies", query_string=query, headers=headers).status_code == 422


@pytest.mark.parametrize(
    "query",
    [
        "limit=0", "limit=501", "limit=x", "limit=-1", "limit=٣", "minimum_score=2", "minimum_score=nan", "minimum_score=x",
        "view=all", "status=closed", "view=windows&status=open", "device=1", "from_ms=-5", "from_ms=1e9", "to_ms=99999999999999999",
        "cohrot=north", "signal=%00", "offset=5",
    ],
)  # fmt: skip
def test_a_query_that_makes_no_sense_is_refused(client: FlaskClient, auth: Auth, query: str) -> None:
    answer = client.get(f"/api/anomalies?{query}", headers=auth("ops"))
    assert (answer.status_code, answer.mimetype) == (422, "application/problem+json")


def test_a_status_keeps_who_why_and_when(
    client: FlaskClient, fleet: list[ServerDevice], auth: Auth, database: Database
) -> None:
    headers = auth("ops", name="night shift")
    number = listed(client, headers)[0]["id"]
    url = f"/api/incidents/{number}/status"
    answer = client.post(url, json={"status": "acknowledged", "note": " looking \n into it "}, headers=headers)
    assert (answer.status_code, answer.json["status"], answer.json["status_note"]) == (
        200,
        "acknowledged",
        "looking into it",
    )
    assert "night shift" in answer.json["status_by"]
    answer = client.post(url, json={"status": "resolved", "note": "valve replaced"}, headers=headers)
    history = client.get(f"/api/incidents/{number}", headers=headers).json["history"]
    assert [(item["old_status"], item["new_status"], item["note"]) for item in history] == [
        ("acknowledged", "resolved", "valve replaced"), ("open", "acknowledged", "looking into it"),
    ]  # fmt: skip
    assert [item["id"] for item in listed(client, headers, status="resolved")] == [number]
    with database.session() as session:
        assert (
            session.scalars(select(AuditEntry.subject).where(AuditEntry.action == "incident.status")).all()
            == [str(number)] * 2
        )
    # What the device sends later does not undo what a person decided.
    fleet[0].send([anomaly(50, NOON + 12 * HOUR, started_at_ms=NOON + 11 * HOUR, score=1.0, windows=9)])
    now = client.get(f"/api/incidents/{number}", headers=headers).json
    assert (now["status"], now["peak_score"], now["windows"]) == ("resolved", 1.0, 9)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"status": "closed", "note": "x"}, 422), ({"status": "open", "note": "  "}, 422), ({"status": "open"}, 422),
        ({"status": "open", "note": "n" * 1001}, 422), ({"status": "open", "note": "a\u0000"}, 422), ({"status": 1, "note": "x"}, 422),
        ({"status": "open", "note": "x", "more": 1}, 422),
    ],
)  # fmt: skip
def test_a_bad_status_is_refused(
    client: FlaskClient, fleet: list[ServerDevice], auth: Auth, body: dict, status: int
) -> None:
    number = listed(client, auth("ops"))[0]["id"]
    assert client.post(f"/api/incidents/{number}/status", json=body, headers=auth("ops")).status_code == status


def test_who_may_read_and_who_may_decide(
    client: FlaskClient, fleet: list[ServerDevice], auth: Auth, log_in: Callable
) -> None:
    number = listed(client, auth("view"))[0]["id"]
    url, body = f"/api/incidents/{number}/status", {"status": "resolved", "note": "done"}
    assert client.get("/api/anomalies").status_code == 401
    assert client.get("/api/anomalies", headers=auth("pub")).status_code == 403
    assert client.post(url, json=body, headers=auth("view")).status_code == 403
    viewer, csrf = log_in("viewer", "vera")
    assert viewer.get("/api/anomalies").status_code == 200
    assert viewer.post(url, json=body, headers={"X-CSRF-Token": csrf}).status_code == 403
    operator, csrf = log_in("operator", "olga")
    assert operator.post(url, json=body).json["code"] == "csrf"
    answer = operator.post(url, json=body, headers={"X-CSRF-Token": csrf})
    assert (answer.status_code, answer.json["status_by"]) == (200, "operator olga")


def test_an_unknown_incident_is_404(client: FlaskClient, auth: Auth) -> None:
    body = {"status": "open", "note": "x"}
    for number in ("999", "9223372036854775807", "9223372036854775808", "x"):
        assert client.get(f"/api/incidents/{number}", headers=auth("ops")).status_code == 404
        assert client.post(f"/api/incidents/{number}/status", json=body, headers=auth("ops")).status_code == 404

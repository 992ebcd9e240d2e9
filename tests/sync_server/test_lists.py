"""Lists look at a bounded number of rows and still hold every row once, whatever the filters and the bounds."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from flask.testing import FlaskClient
from simulators.server_devices import HOUR, NOON, ServerDevice, anomaly, enrolment_token
from sqlalchemy import event

from sync_server.anomalies import lists
from sync_server.db import Database

Auth = Callable[..., dict[str, str]]
QUERIES = (
    {},
    {"signal": "rpm"},
    {"signal": "nothing"},
    {"minimum_score": 0.99},
    {"minimum_score": 1},
    {"cohort": "north", "signal": "heat"},
    {"cohort": "nowhere", "minimum_score": 0.5},
    {"status": "open", "minimum_score": 0.95},
    {"signal": "oil", "minimum_score": 0.9, "from_ms": NOON + 5 * HOUR, "to_ms": NOON + 30 * HOUR},
)


@pytest.fixture
def history(client: FlaskClient, database: Database) -> list[ServerDevice]:
    """Two devices with 40 incidents of one window each; a rare signal was seen twice, long ago."""
    token = enrolment_token(database)
    devices = [ServerDevice.enrol(client, token, cohort=cohort) for cohort in ("north", "south")]
    for place, device in enumerate(devices):
        device.send(
            [
                anomaly(
                    n + 1,
                    NOON + n * HOUR + place,
                    score=0.9 + n % 10 / 100,
                    signals=("rpm", "oil") if n < 2 else ("heat", "oil") if n % 3 else ("oil",),
                )
                for n in range(40)
            ]
        )
    return devices


def walk(client: FlaskClient, headers: dict[str, str], query: dict) -> tuple[list[int], int]:
    """Follow the cursors to the end; returns ids, and how many pages there were."""
    found, cursor = [], ""
    for pages in range(1, 500):
        answer = client.get("/api/anomalies", query_string={**query, "cursor": cursor}, headers=headers)
        assert answer.status_code == 200, answer.text
        found += [item["id"] for item in answer.json["items"]]
        cursor = answer.json["next"]
        if cursor is None:
            assert answer.json["searched_to_ms"] is None
            return found, pages
    raise AssertionError("the list never ends")


@pytest.mark.parametrize("view", ["incidents", "windows"])
@pytest.mark.parametrize("query", QUERIES, ids=str)
def test_tight_bounds_lose_nothing_and_repeat_nothing(
    client: FlaskClient,
    history: list[ServerDevice],
    auth: Auth,
    monkeypatch: pytest.MonkeyPatch,
    view: str,
    query: dict,
) -> None:
    if view == "windows":
        query = {name: value for name, value in query.items() if name != "status"}
    headers = auth("view")
    expected, pages = walk(client, headers, {**query, "view": view, "limit": 500})
    assert pages == 1
    monkeypatch.setattr(lists, "GLANCE", 3)
    monkeypatch.setattr(lists, "COMMON", 2)
    monkeypatch.setattr(lists, "GATHERED", 4)
    monkeypatch.setattr(lists, "EXAMINED", {None: 5, "device": 5, "cohort": 5, "status": 5})
    found, _ = walk(client, headers, {**query, "view": view, "limit": 2})
    assert found == expected


def test_a_short_page_says_how_far_it_looked(
    client: FlaskClient, history: list[ServerDevice], auth: Auth, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lists, "GLANCE", 3)
    monkeypatch.setattr(lists, "EXAMINED", {None: 10, "device": 10, "cohort": 10, "status": 10})
    query = {"view": "windows", "signal": "rpm", "limit": 10}
    answer = client.get("/api/anomalies", query_string=query, headers=auth("view")).json
    assert answer["items"] == []
    assert answer["next"] is not None
    # Two devices an hour: ten rows are the last five hours.
    assert answer["searched_to_ms"] == NOON + 35 * HOUR


def test_rare_signals_and_scores_are_found_without_a_walk(
    client: FlaskClient, history: list[ServerDevice], auth: Auth, monkeypatch: pytest.MonkeyPatch
) -> None:
    history[0].send([anomaly(99, NOON - HOUR, score=0.99995, signals=("oil",))])
    monkeypatch.setattr(lists, "GLANCE", 3)
    monkeypatch.setattr(lists, "EXAMINED", {None: 5, "device": 5, "cohort": 5, "status": 5})
    headers = auth("view")
    for query, count in (({"signal": "rpm"}, 4), ({"minimum_score": 0.9999}, 1), ({"minimum_score": 1}, 0)):
        found, pages = walk(client, headers, query)
        assert (len(found), pages) == (count, 1), query
    # Of those above .999, the index says nothing: they are walked to.
    found, pages = walk(client, headers, {"minimum_score": 0.999})
    assert len(found) == 1
    assert pages > 10


def test_no_list_runs_many_statements_or_offsets_by_pages(
    client: FlaskClient, history: list[ServerDevice], auth: Auth, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lists, "GLANCE", 3)
    headers = auth("view")
    seen: list[str] = []
    event.listen(database.engine, "before_cursor_execute", lambda *call: seen.append(call[2]))
    query = {"cohort": "north", "signal": "nothing", "minimum_score": 1, "status": "resolved", "to_ms": NOON + 9 * HOUR}
    assert walk(client, headers, query) == ([], 1)
    assert 0 < len(seen) <= 12


def test_times_of_incidents_are_when_they_were_last_seen(
    client: FlaskClient, history: list[ServerDevice], auth: Auth
) -> None:
    history[0].send([anomaly(100, NOON + 100 * HOUR, started_at_ms=NOON, score=0.95, windows=9)])
    for query, there in (
        ({"from_ms": NOON + 90 * HOUR}, True),
        ({"from_ms": NOON + 100 * HOUR + 1}, False),
        ({"to_ms": NOON + 100 * HOUR}, False),
        ({"to_ms": NOON + 100 * HOUR + 1}, True),
    ):
        answer = client.get("/api/anomalies", query_string=query, headers=auth("view")).json
        assert (NOON + 100 * HOUR in [item["listed_at_ms"] for item in answer["items"]]) is there

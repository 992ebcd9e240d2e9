"""The audit trail over HTTP: filters, pages, who may read it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from flask.testing import FlaskClient

from sync_server.access.models import AuditEntry
from sync_server.db import Database

Auth = Callable[..., dict[str, str]]
BEGAN = datetime(2026, 11, 1, tzinfo=UTC)
BEGAN_MS = int(BEGAN.timestamp() * 1000)
HOUR_MS = 3_600_000


@pytest.fixture
def trail(database: Database) -> None:
    """Forty entries, two at each hour."""
    with database.session() as session:
        for n in range(40):
            session.add(
                AuditEntry(
                    at=BEGAN + timedelta(hours=n // 2),
                    actor=("operator olga", "server")[n % 2],
                    action=("token.create", "login.failed", "rollout.started")[n % 3],
                    subject=f"token:{n % 4}",
                    detail={"n": n},
                )
            )


def listed(client: FlaskClient, headers: dict[str, str], **query: object) -> list[int]:
    found, cursor = [], ""
    while cursor is not None:
        answer = client.get("/api/audit", query_string={**query, "cursor": cursor}, headers=headers)
        assert answer.status_code == 200, answer.text
        found += [item["detail"]["n"] for item in answer.json["items"]]
        cursor = answer.json["next"]
    return found


@pytest.mark.parametrize("limit", [1, 7, 500])
def test_every_entry_once_newest_first(client: FlaskClient, trail: None, auth: Auth, limit: int) -> None:
    assert listed(client, auth("view"), limit=limit) == list(range(39, -1, -1))


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        ({"actor": "server"}, {n for n in range(40) if n % 2}),
        ({"action": "login.failed"}, {n for n in range(40) if n % 3 == 1}),
        ({"subject": "token:3", "actor": "server"}, {n for n in range(40) if n % 4 == 3}),
        ({"from_ms": BEGAN_MS + 18 * HOUR_MS}, {36, 37, 38, 39}),
        ({"to_ms": BEGAN_MS + HOUR_MS, "action": ""}, {0, 1}),
        ({"actor": "nobody"}, set()),
    ],
)
def test_filters(client: FlaskClient, trail: None, auth: Auth, query: dict, wanted: set[int]) -> None:
    assert set(listed(client, auth("ops"), limit=3, **query)) == wanted


@pytest.mark.parametrize(
    "query",
    ["limit=0", "limit=501", "actr=x", "actor=%00", f"subject={'x' * 257}", "from_ms=-1", "to_ms=1e3", "cursor=x", "offset=1"],
)  # fmt: skip
def test_a_query_that_makes_no_sense_is_refused(client: FlaskClient, auth: Auth, query: str) -> None:
    answer = client.get(f"/api/audit?{query}", headers=auth("ops"))
    assert (answer.status_code, answer.mimetype) == (422, "application/problem+json")


def test_a_cursor_belongs_to_its_filters(client: FlaskClient, trail: None, auth: Auth) -> None:
    headers = auth("ops")
    cursor = client.get("/api/audit?limit=2", headers=headers).json["next"]
    refused = client.get("/api/audit", query_string={"cursor": cursor, "actor": "server"}, headers=headers)
    assert refused.status_code == 422


def test_who_may_read_it(client: FlaskClient, auth: Auth, log_in: Callable) -> None:
    assert client.get("/api/audit").status_code == 401
    assert client.get("/api/audit", headers=auth("pub")).status_code == 403
    viewer, _ = log_in("viewer", "vera")
    assert viewer.get("/api/audit").status_code == 200

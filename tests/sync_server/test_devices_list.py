"""The list of devices over HTTP: filters, pages, who may read it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from flask.testing import FlaskClient
from simulators.server_fleet import populate

from sync_server.db import Database

Auth = Callable[..., dict[str, str]]


def listed(client: FlaskClient, headers: dict[str, str], **query: object) -> list[str]:
    found, cursor = [], ""
    while cursor is not None:
        answer = client.get("/api/devices", query_string={**query, "cursor": cursor}, headers=headers)
        assert answer.status_code == 200, answer.text
        found += [item["name"] for item in answer.json["items"]]
        cursor = answer.json["next"]
    return found


def test_filters_and_pages(client: FlaskClient, database: Database, auth: Auth) -> None:
    populate(client, database, devices=6, hours=2)
    headers = auth("view")
    every = listed(client, headers, limit=500)
    assert sorted(every) == [f"pump-{n:02d}" for n in range(1, 7)]
    assert listed(client, headers, limit=1) == every
    assert listed(client, headers, cohort="south", limit=2) == [name for name in every if int(name[-1]) % 2 == 0]
    assert listed(client, headers, flag="cloned") == ["pump-01"]
    assert listed(client, headers, flag="silent", cohort="") == ["pump-03"]
    assert listed(client, headers, name="PUMP-04") == ["pump-04"]
    assert listed(client, headers, name="nobody") == []


@pytest.mark.parametrize("query", ["flag=bad", "limit=0", "limit=501", "after=x", "cursor=x", "name=%00", "offset=2"])
def test_a_query_that_makes_no_sense_is_refused(client: FlaskClient, auth: Auth, query: str) -> None:
    assert client.get(f"/api/devices?{query}", headers=auth("ops")).status_code == 422


def test_strangers_see_no_devices(client: FlaskClient, auth: Auth) -> None:
    assert client.get("/api/devices").status_code == 401
    assert client.get("/api/devices", headers=auth("enr")).status_code == 403

"""Enrolment, device tokens, status."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from click.testing import CliRunner
from flask import Flask
from flask.testing import FlaskClient
from simulators.server_devices import ServerDevice, anomaly, enrolment_token
from sqlalchemy import select, text

from edge_runtime.contract.enrolment import EnrolmentLine
from edge_runtime.errors import ContractError, InputError
from sync_server.access.models import AccessToken, AuditEntry
from sync_server.commands.device import device as device_commands
from sync_server.db import Database, utc_now
from sync_server.devices.enrolment import create_enrolment, list_enrolments, revoke_enrolment
from sync_server.devices.models import Device
from sync_server.devices.service import revoke_device
from sync_server.embedded_postgres import EmbeddedPostgres

LINE = {
    "model": "engine", "channel": "stable", "uses": 2, "expires_days": 1, "url": "https://fleet.example:8443/",
    "root_digest": "a" * 64, "targets_version": 7, "actor": "command line",
}  # fmt: skip


def body(installation: str = "1" * 32, **more: object) -> dict[str, object]:
    return {"installation_id": installation, "name": "pump 1", "cohort": "north", "kind": "edge", **more}


def post(client: FlaskClient, token: str, content: object):
    return client.post("/api/devices", json=content, headers={"Authorization": f"Bearer {token}"})


def test_the_line_carries_server_token_root_and_targets(database: Database) -> None:
    with database.session() as session:
        line = create_enrolment(session, **LINE)
    parsed = EnrolmentLine.parse(str(line))
    assert (parsed.url, parsed.root_digest, parsed.targets_version) == ("https://fleet.example:8443", "a" * 64, 7)
    assert parsed.token.startswith("st_enr_")
    with database.session() as session:
        assert list_enrolments(session)[0]["uses_left"] == 2
        stored = session.execute(text("SELECT CAST(row_to_json(t) AS text) FROM access_tokens t")).scalar_one()
        assert parsed.token not in stored
        assert session.scalars(select(AuditEntry.action)).all() == ["enrolment.create"]


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"uses": 0}, InputError),
        ({"uses": 10**7}, InputError),
        ({"expires_days": 0}, InputError),
        ({"model": "No Such Name"}, ContractError),
        ({"channel": ""}, ContractError),
        ({"url": "ftp://x"}, ContractError),
    ],
)
def test_a_line_that_makes_no_sense_is_refused(database: Database, change: dict, error: type[Exception]) -> None:
    with pytest.raises(error), database.session() as session:
        create_enrolment(session, **{**LINE, **change})


def test_a_retry_returns_the_same_device_a_fresh_token_and_costs_nothing(
    client: FlaskClient, database: Database
) -> None:
    token = enrolment_token(database, uses=1)
    first = post(client, token, body())
    again = post(client, token, body(name="pump one"))
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json["device_id"] == again.json["device_id"]
    assert first.json["token"] != again.json["token"]
    assert (again.json["model"], again.json["channel"]) == ("engine", "stable")
    # The token whose answer may have been lost no longer opens anything.
    old, new = ({"Authorization": f"Bearer {answer.json['token']}"} for answer in (first, again))
    status = {"outbox": {"records": 0, "dead_letters": 0}}
    assert client.post("/api/device-status", json=status, headers=old).json["code"] == "token_revoked"
    assert client.post("/api/device-status", json=status, headers=new).status_code == 204
    refused = post(client, token, body("2" * 32))
    assert (refused.status_code, refused.json["code"]) == (403, "enrolment_used_up")


def test_devices_that_come_at_once_are_counted_one_by_one(app: Flask, database: Database) -> None:
    token = enrolment_token(database, uses=3)
    with ThreadPoolExecutor(5) as pool:
        answers = list(pool.map(lambda i: post(app.test_client(), token, body(f"{i}" * 32)).status_code, range(5)))
    assert sorted(answers) == [201, 201, 201, 403, 403]


def test_one_installation_that_asks_twice_at_once_is_one_device(app: Flask, database: Database) -> None:
    tokens = [enrolment_token(database), enrolment_token(database)] * 2
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda token: post(app.test_client(), token, body()), tokens))
    assert len({answer.json["device_id"] for answer in answers}) == 1
    with database.session() as session:
        live = select(AccessToken).where(AccessToken.kind == "dev", AccessToken.revoked_at.is_(None))
        assert len(session.scalars(live).all()) == 1


def test_another_model_or_channel_is_a_conflict(client: FlaskClient, database: Database) -> None:
    post(client, enrolment_token(database), body())
    answer = post(client, enrolment_token(database, model="pump"), body())
    assert (answer.status_code, answer.json["code"]) == (409, "enrolled_elsewhere")
    assert "engine" in answer.json["detail"]


def test_revoked_and_expired_enrolments_let_nobody_in(client: FlaskClient, database: Database) -> None:
    token = enrolment_token(database)
    with database.session() as session:
        number = session.scalars(select(AccessToken.id)).one()
        revoke_enrolment(session, number, actor="test")
    assert post(client, token, body()).json["code"] == "token_revoked"
    token = enrolment_token(database)
    with database.session() as session:
        session.scalars(select(AccessToken).order_by(AccessToken.id.desc())).first().expires_at = utc_now() - timedelta(
            1
        )
    answer = post(client, token, body())
    assert (answer.status_code, answer.json["code"]) == (401, "token_expired")
    with pytest.raises(InputError), database.session() as session:
        revoke_enrolment(session, 999, actor="test")


def test_a_revoked_device_is_out_and_stays_out(client: FlaskClient, database: Database) -> None:
    token = enrolment_token(database)
    device = post(client, token, body()).json
    with database.session() as session:
        revoke_device(session, device["device_id"], actor="test")
    known = ServerDevice(client, device["device_id"], device["token"])
    answer = known.post([anomaly(1)])
    assert (answer.status_code, answer.json["code"]) == (401, "token_revoked")
    answer = post(client, token, body())
    assert (answer.status_code, answer.json["code"]) == (403, "device_revoked")
    with pytest.raises(InputError), database.session() as session:
        revoke_device(session, "0" * 32, actor="test")


@pytest.mark.parametrize(
    "content",
    [
        {},
        body("xyz"),
        body("A" * 32),
        body(kind="toaster"),
        body(name="\x00"),
        body(cohort="c" * 129),
        body(cohort=7),
        body(name="\ud800"),
    ],
)
def test_a_bad_enrolment_is_refused_and_costs_nothing(client: FlaskClient, database: Database, content: object) -> None:
    token = enrolment_token(database, uses=1)
    assert post(client, token, content).status_code == 422
    assert post(client, token, body()).status_code == 201


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"\xff", b'{"a":1,"a":2}'])
def test_what_is_no_json_object_is_400(client: FlaskClient, database: Database, data: bytes) -> None:
    headers = {"Authorization": f"Bearer {enrolment_token(database)}", "Content-Type": "application/json"}
    answer = client.post("/api/devices", data=data, headers=headers)
    assert (answer.status_code, answer.mimetype) == (400, "application/problem+json")
    assert client.post("/api/devices", data=data, headers={**headers, "Content-Type": "text/html"}).status_code == 415
    assert client.post("/api/devices", data=b"x" * 20_000, headers=headers).status_code == 413


def test_other_tokens_do_not_enrol(client: FlaskClient, database: Database, make_token: Callable[..., str]) -> None:
    for kind in ("ops", "pub", "view", "enr"):
        # An enrolment token that was made elsewhere is bound to no model.
        assert post(client, make_token(kind), body()).status_code in (401, 403)
    assert post(client, "st_enr_" + "x" * 43, body()).status_code == 401
    assert client.post("/api/devices", json=body()).status_code == 401


def test_status_is_kept_and_shown(client: FlaskClient, database: Database, auth: Callable[..., dict[str, str]]) -> None:
    device = ServerDevice.enrol(client, enrolment_token(database))
    active = {"bundle": "c" * 64, "release": 3, "version": "2026.11"}
    update = {"outcome": "refused", "reason": "golden_failed", "release": 4, "at_ms": 5}
    answer = device.report(
        active=active, cohort="south", stale=True, last_update=update, outbox={"records": 4, "dead_letters": 2},
        runtime={"python": "3.11"}, something_new=[1],
    )  # fmt: skip
    assert answer.status_code == 204
    shown = client.get(f"/api/devices/{device.id}", headers=auth("view")).json
    assert shown["active"] == active
    assert (shown["cohort"], shown["stale"], shown["outbox"]) == ("south", True, {"records": 4, "dead_letters": 2})
    assert shown["last_update"] == {"outcome": "refused", "reason": "golden_failed"}
    assert shown["status"]["something_new"] == [1]


@pytest.mark.parametrize(
    "change",
    [
        {"outbox": None}, {"outbox": {"records": -1, "dead_letters": 0}}, {"active": {"bundle": "x"}}, {"stale": 1},
        {"cohort": "\u0000"}, {"extra": "a\u0000b"}, {"extra": "\ud800"}, {"active": []}, {"active": {}}, {"active": "x"},
    ],
)  # fmt: skip
def test_a_bad_status_is_refused(client: FlaskClient, database: Database, change: dict[str, object]) -> None:
    device = ServerDevice.enrol(client, enrolment_token(database))
    assert device.report(**change).status_code == 422
    huge = device.headers(**{"Content-Type": "application/json"})
    text_body = b'{"outbox":{"records":0,"dead_letters":0},"extra":1e999}'
    assert client.post("/api/device-status", data=text_body, headers=huge).status_code == 422


def test_an_unknown_device_is_404(client: FlaskClient, auth: Callable[..., dict[str, str]]) -> None:
    answer = client.get(f"/api/devices/{secrets.token_hex(16)}", headers=auth("ops"))
    assert (answer.status_code, answer.json["code"]) == (404, "device_not_found")
    assert client.get("/api/devices/x").status_code == 401


def test_a_device_token_opens_only_its_own_doors(client: FlaskClient, database: Database) -> None:
    device = ServerDevice.enrol(client, enrolment_token(database))
    assert client.get(f"/api/devices/{device.id}", headers=device.headers()).status_code == 403
    assert client.get("/api/anomalies", headers=device.headers()).status_code == 403
    with database.session() as session:
        assert session.get(Device, device.id).cohort == "north"


def test_the_command_line_shuts_a_device_out(
    client: FlaskClient, database: Database, postgres: EmbeddedPostgres
) -> None:
    device = ServerDevice.enrol(client, enrolment_token(database))
    environment = {"DATABASE_URL": postgres.app_url}
    known = CliRunner().invoke(device_commands, ["revoke", device.id, "--json"], env=environment)
    assert (known.exit_code, known.output.strip()) == (0, f'{{"revoked": "{device.id}"}}')
    assert device.report().json["code"] == "token_revoked"
    unknown = CliRunner().invoke(device_commands, ["revoke", "0" * 32], env=environment)
    assert isinstance(unknown.exception, InputError)


@pytest.mark.parametrize("field", ["active", "last_update"])
@pytest.mark.parametrize("value", [False, 0, "", []])
def test_nothing_is_not_a_table(field: str, value: object, client: FlaskClient, database: Database) -> None:
    """schemathesis found it: what Python calls false was taken for a table without entries."""
    device = ServerDevice.enrol(client, enrolment_token(database))
    assert device.report(**{field: value}).status_code == 422

"""Rollouts: what may follow what, what is signed, and who may say so."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from simulators.bundles import SmallBundle
from simulators.release_engineer import ReleaseEngineer, multipart
from sqlalchemy import select
from tuf.api.metadata import Metadata, Timestamp

from edge_runtime.contract.rollout import Rollout, decide, parse_rollouts
from sync_server.access.models import AuditEntry
from sync_server.db import Database
from sync_server.repository.online_key import load_or_create, public_pem

Put = Callable[..., Any]


@pytest.fixture
def engineer(app: Flask, publish: Put) -> ReleaseEngineer:
    """Releases 1 to 4 of pumps for stable and beta; 4 for beta alone; floor 1."""
    made = ReleaseEngineer(public_pem(load_or_create(app.extensions["config"].online_key_path)))
    bundles = [
        SmallBundle(version=f"v{n}", release_number=n, channels=("beta",) if n == 4 else ("stable", "beta")).build()
        for n in (1, 2, 3, 4)
    ]
    publish({**made.sign_root(), **made.sign_targets(*bundles)})
    return made


@pytest.fixture
def publish(client: FlaskClient, auth: Callable[..., dict[str, str]]) -> Put:
    headers = auth("pub")
    return lambda parts: client.post("/api/publish", data=multipart(parts), headers=headers)


@pytest.fixture
def put(client: FlaskClient, auth: Callable[..., dict[str, str]]) -> Put:
    headers = auth("pub")

    def send(action: str, channel: str = "stable", **fields: Any) -> Any:
        return client.put(f"/api/channels/{channel}", json={"action": action, **fields}, headers=headers)

    return send


def start(put: Put, release: int, share: int = 10_000, channel: str = "stable", **fields: Any) -> Any:
    return put("start", channel, model="pumps", release=release, share=share, **fields)


def signed(client: FlaskClient) -> dict[str, Any]:
    body = client.get("/repository/metadata/timestamp.json").data
    unrecognized = Metadata[Timestamp].from_bytes(body).signed.unrecognized_fields
    return {name: rollout.to_dict() for name, rollout in parse_rollouts(unrecognized).items()}


@pytest.mark.usefixtures("engineer")
def test_a_life(put: Put, client: FlaskClient, database: Database) -> None:
    first = start(put, 1).json
    assert (first["release"], first["previous"], first["share"], first["state"]) == (1, None, 10_000, "running")
    second = start(put, 2, 100).json
    assert (second["release"], second["previous"], second["share"]) == (2, 1, 100)
    assert second["id"] > first["id"]
    assert second["salt"] != first["salt"]
    for share in (100, 500, 10_000):
        grown = put("share", share=share).json
        assert grown == {**second, "share": share}
    assert signed(client) == {"stable": grown}
    third = start(put, 3, 50).json
    assert third["previous"] == 2
    assert put("pause").json["state"] == "paused"
    assert put("resume").json["state"] == "running"
    back = put("roll_back").json
    assert (back["state"], back["release"], back["previous"]) == ("rolled_back", 3, 2)
    again = start(put, 3, 10).json
    assert (again["release"], again["previous"], again["state"]) == (3, 2, "running")
    assert signed(client) == {"stable": again}
    with database.session() as session:
        statement = select(AuditEntry.action).where(AuditEntry.action.like("rollout.%")).order_by(AuditEntry.id)
        trail = session.scalars(statement).all()
    verbs = ["start", "start", "share", "share", "start", "pause", "resume", "roll_back", "start"]
    assert trail == [f"rollout.{verb}" for verb in verbs]


@pytest.mark.usefixtures("engineer")
@pytest.mark.parametrize(
    ("before", "change", "code"),
    [
        ([(1, 500)], ("start", {"model": "pumps", "release": 2, "share": 1}), "rollout_open"),
        ([(1, 10_000), "pause"], ("start", {"model": "pumps", "release": 2, "share": 1}), "rollout_open"),
        ([(1, 10_000)], ("start", {"model": "pumps", "release": 1, "share": 1}), "same_release"),
        ([(1, 10_000)], ("start", {"model": "fridges", "release": 2, "share": 1}), "other_model"),
        ([(1, 500)], ("share", {"share": 499}), "share_shrinks"),
        ([(1, 500), "pause"], ("share", {"share": 501}), "paused"),
        ([(1, 500), "roll_back"], ("share", {"share": 501}), "rolled_back"),
        ([(1, 500), "roll_back"], ("pause", {}), "rolled_back"),
        ([(1, 500), "roll_back"], ("resume", {}), "rolled_back"),
        ([(1, 500), "pause"], ("widen", {"cohorts": None}), "paused"),
        ([(1, 500)], ("widen", {"cohorts": ["a"]}), "cohorts_shrink"),
        ([], ("start", {"model": "pumps", "release": 9, "share": 1}), "release_missing"),
        ([], ("start", {"model": "pumps", "release": 4, "share": 1}), "wrong_channel"),
        ([], ("start", {"model": "pumps", "release": 1, "share": 1, "cohorts": ["x" * 128, "y" * 100]}), "rollout_too_large"),
    ],
)  # fmt: skip
def test_conflicts_change_nothing(before: list[Any], change: Any, code: str, put: Put, client: FlaskClient) -> None:
    for step in before:
        assert (put(step) if isinstance(step, str) else start(put, *step)).status_code == 200
    was = client.get("/repository/metadata/timestamp.json").data
    answer = put(change[0], **change[1])
    assert (answer.status_code, answer.json["code"]) == (409, code)
    assert client.get("/repository/metadata/timestamp.json").data == was


@pytest.mark.usefixtures("engineer")
@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"action": "start", "model": "pumps", "release": 1, "share": 10_001}, 422),
        ({"action": "start", "model": "pumps", "release": 1, "share": -1}, 422),
        ({"action": "start", "model": "pumps", "release": 1, "share": "5"}, 422),
        ({"action": "start", "model": "pumps", "release": 1, "share": 5.5}, 422),
        ({"action": "start", "model": "Pumps!", "release": 1, "share": 5}, 422),
        ({"action": "start", "model": "pumps", "release": 1, "share": 5, "cohorts": []}, 422),
        ({"action": "start", "model": "pumps", "release": 1, "share": 5, "cohorts": ["a", "a"]}, 422),
        ({"action": "start", "release": 1, "share": 5}, 422),
        ({"action": "start", "model": "pumps", "release": 1, "shaer": 5}, 422),
        ({"action": "dance"}, 422),
        ({}, 422),
        ([], 422),
        ({"action": "share", "share": 5}, 404),
        ({"action": "roll_back"}, 404),
    ],
)
def test_nonsense(fields: Any, status: int, client: FlaskClient, auth: Callable[..., dict[str, str]]) -> None:
    answer = client.put("/api/channels/stable", json=fields, headers=auth("ops"))
    assert answer.status_code == status, answer.json
    assert client.get("/api/channels/stable", headers=auth("view")).status_code == 404


@pytest.mark.usefixtures("engineer")
def test_nobody_is_sent_to_a_release_that_was_kept_from_them(put: Put, client: FlaskClient) -> None:
    """Devices decide by the signed field alone; at every step, outside of the list they stay on release 1."""

    def runs(cohort: str) -> set[int | None]:
        rollout = Rollout.from_dict(signed(client)["stable"])
        return {decide(rollout, f"device-{n}", cohort, None) for n in range(50)}

    start(put, 1)
    start(put, 2, 0, cohorts=["north"])
    put("share", share=10_000)
    assert (runs("north"), runs("south")) == ({2}, {1})
    refused = start(put, 3, 0)
    assert (refused.status_code, refused.json["code"]) == (409, "rollout_limited")
    assert (runs("north"), runs("south")) == ({2}, {1})
    assert put("widen", cohorts=["south"]).json["code"] == "cohorts_shrink"
    assert put("widen", cohorts=["west", "north"]).json["cohorts"] == ["north", "west"]
    assert (runs("north"), runs("west"), runs("south")) == ({2}, {2}, {1})
    assert "cohorts" not in put("widen", cohorts=None).json
    assert start(put, 3, 0).json["previous"] == 2
    put("roll_back")
    start(put, 3, 10_000, cohorts=["north"])
    put("pause")
    assert start(put, 3, 0).json["code"] == "rollout_open", "a pause at 10,000 is no end"
    put("roll_back")
    assert start(put, 3, 0).json["previous"] == 2
    assert (runs("north"), runs("south")) == ({2}, {2})


@pytest.mark.usefixtures("engineer")
def test_saying_it_twice_is_saying_it_once(put: Put, client: FlaskClient) -> None:
    start(put, 1)
    for action, fields in (
        ("start", {"model": "pumps", "release": 2, "share": 10}),
        ("share", {"share": 20}),
        ("pause", {}),
        ("resume", {}),
        ("roll_back", {}),
    ):
        once = put(action, **fields).json
        was = client.get("/repository/metadata/timestamp.json").data
        assert put(action, **fields).json == once
        assert client.get("/repository/metadata/timestamp.json").data == was


def test_floor_and_withdrawal(engineer: ReleaseEngineer, publish: Put, put: Put) -> None:
    start(put, 1)
    start(put, 2, 100)
    del engineer.targets.targets["pumps/v1/default.bundle"]
    answer = publish(engineer.sign_targets())
    assert (answer.status_code, answer.json["code"]) == (409, "release_in_use")
    engineer.targets.version -= 1
    engineer.targets.unrecognized_fields["minimum_release"] = {"pumps": 3}
    engineer.list(SmallBundle(version="v1", release_number=1, channels=("stable", "beta")).build())
    assert publish(engineer.sign_targets()).status_code == 201
    assert put("roll_back").json["code"] == "below_floor"
    assert put("pause").status_code == 200
    assert start(put, 2, 5, channel="beta").json["code"] == "below_floor"
    assert start(put, 3, 5, channel="beta").status_code == 200


@pytest.mark.usefixtures("engineer")
def test_as_many_channels_as_fit(
    app: Flask, publish: Put, put: Put, client: FlaskClient, engineer: ReleaseEngineer
) -> None:
    names = [f"channel-{n:02}" for n in range(49)]
    for base in range(4):
        channels = tuple(names[base * 16 : base * 16 + 16])
        engineer.list(made := SmallBundle(version=f"w{base}", release_number=10 + base, channels=channels).build())
        assert publish({**engineer.sign_targets(), f"targets/{made.path}": made.data}).status_code == 201
    for number, name in enumerate(names[:48]):
        assert start(put, 10 + number // 16, 1, channel=name, cohorts=["north", "south"]).status_code == 200
    answer = start(put, 13, 1, channel=names[48])
    assert (answer.status_code, answer.json["code"]) == (409, "too_many_channels")
    assert len(client.get("/repository/metadata/timestamp.json").data) < 16_384
    assert len(signed(client)) == 48


@pytest.mark.usefixtures("engineer")
def test_who_may_steer(client: FlaskClient, auth: Callable[..., dict[str, str]], log_in: Callable[..., Any]) -> None:
    body = {"action": "start", "model": "pumps", "release": 1, "share": 1}
    url = "/api/channels/stable"
    assert client.put(url, json=body).status_code == 401
    assert client.put(url, json=body, headers=auth("view")).status_code == 403
    assert client.put(url, json=body, headers=auth("dev", subject="d")).status_code == 403
    assert client.put(url, data=json.dumps(body), headers=auth("ops")).status_code == 415
    page, csrf = log_in()
    assert page.put(url, json=body).json["code"] == "csrf"
    assert page.put(url, json=body, headers={"X-CSRF-Token": csrf}).status_code == 200
    watcher, token = log_in("viewer", "bob")
    assert watcher.put(url, json=body, headers={"X-CSRF-Token": token}).status_code == 403
    assert watcher.get(url).json["release"] == 1


def test_nothing_published_yet(put: Put) -> None:
    answer = start(put, 1)
    assert (answer.status_code, answer.json["code"]) == (409, "no_repository")

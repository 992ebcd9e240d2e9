"""The published description: complete, valid, true to the guards, and schemathesis finds nothing that contradicts it."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from simulators.bundles import SmallBundle
from simulators.release_engineer import ReleaseEngineer, multipart
from simulators.server_devices import enrolment_token
from simulators.server_fleet import populate
from werkzeug.serving import WSGIRequestHandler, make_server

from sync_server.access.tokens import KINDS, issue_token
from sync_server.apidoc.describe import description_of
from sync_server.db import Database
from sync_server.repository.online_key import load_or_create, public_pem

EXAMPLES = 8


@pytest.fixture
def spec(client: FlaskClient) -> dict[str, Any]:
    return dict(client.get("/apidoc/openapi.json").json)


def test_every_route_of_the_api_is_described(app: Flask) -> None:
    bare = [
        rule.rule
        for rule in app.url_map.iter_rules()
        if rule.rule.startswith("/api/") and description_of(app.view_functions[rule.endpoint]) is None
    ]
    assert bare == [], "sync_server/apidoc/describe.py says how"


def test_who_may_is_what_the_guard_says(spec: dict[str, Any]) -> None:
    assert spec["paths"]["/api/publish"]["post"]["security"] == [{"publisher": []}]
    assert spec["paths"]["/api/anomalies"]["get"]["security"] == [{"operator": []}, {"viewer": []}, {"session": []}]
    assert set(spec["components"]["securitySchemes"]) == {*KINDS.values(), "session"}
    for operations in spec["paths"].values():
        for operation in operations.values():
            assert {"401", "403", "503"} <= set(operation["responses"])
            assert operation["summary"]


def test_every_reference_leads_somewhere(spec: dict[str, Any]) -> None:
    def references(value: Any) -> Iterator[str]:
        if isinstance(value, dict):
            if isinstance(value.get("$ref"), str):
                yield value["$ref"]
            for item in value.values():
                yield from references(item)
        elif isinstance(value, list):
            for item in value:
                yield from references(item)

    known = {f"#/components/schemas/{name}" for name in spec["components"]["schemas"]}
    assert set(references(spec)) <= known


def test_the_page_is_ours_alone(client: FlaskClient, spec: dict[str, Any]) -> None:
    page = client.get("/apidoc")
    assert page.status_code == 200
    assert "http://" not in page.text.replace("http://www.w3.org", "")
    assert "https://" not in page.text.replace("^https://", "")
    assert "<script>" not in page.text
    for path in spec["paths"]:
        assert path in page.text
    assert client.get("/apidoc/nothing").status_code == 404


class _Quiet(WSGIRequestHandler):
    def log(self, *_: object) -> None:
        pass


@pytest.fixture
def address(app: Flask) -> Iterator[str]:
    """The app behind a real socket, without the threads of a worker, which would call webhooks."""
    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=_Quiet)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def config(client: FlaskClient, database: Database, auth: Callable[..., dict[str, str]], app: Flask) -> str:
    """A server with something behind every path: releases, a rollout, a fleet with incidents, hooks; and the tokens."""
    engineer = ReleaseEngineer(public_pem(load_or_create(app.extensions["config"].online_key_path)))
    bundles = [SmallBundle(version=f"v{n}", release_number=n).build() for n in (1, 2)]
    parts = multipart({**engineer.sign_root(), **engineer.sign_targets(*bundles)})
    assert client.post("/api/publish", data=parts, headers=auth("pub")).status_code == 201
    start = {"action": "start", "model": "pumps", "release": 1, "share": 100}
    assert client.put("/api/channels/stable", json=start, headers=auth("pub")).status_code == 200
    device = populate(client, database, devices=3, hours=20)[0]
    hook = {"name": "x", "url": "https://example.org/", "events": ["*"]}
    assert client.post("/api/webhooks", json=hook, headers=auth("ops")).json["id"] == 1
    with database.session() as session:
        tokens = {kind: issue_token(session, kind, name="fuzz").token for kind in ("pub", "ops", "view")}
    tokens |= {"dev": device.token, "enr": enrolment_token(database, uses=100_000)}
    lines = [f'[auth.openapi.{KINDS[kind]}]\nbearer = "{token}"' for kind, token in tokens.items()]
    there = {"device_id": device.id, "channel": "stable", "incident_id": 1, "webhook_id": 1}
    return "\n".join([CHECKS, *lines, "[parameters]", *(f"{name} = {value!r}" for name, value in there.items())])


# What a schema cannot say is refused with 409 or 422: a release that is not listed, a cursor of another list. A batch
# is refused whole with 400; JSON Schema calls 1.0 an integer, and the contract does not.
CHECKS = """
[checks]
positive_data_acceptance.expected-statuses = ["2xx", "401", "403", "404", "409", "422"]
[[operations]]
include-path = "/api/results"
checks.positive_data_acceptance.expected-statuses = ["2xx", "400", "401", "403"]
"""


@pytest.mark.parametrize("known", [False, True], ids=["anything", "what-is-there"])
def test_schemathesis_finds_nothing(known: bool, address: str, config: str, tmp_path: Path) -> None:
    """Valid and invalid requests of every kind to every operation; each answer must be one that is described.

    Once with invented names and numbers in paths, and once, for the operations that have some, with those of things
    that are there.
    """
    (tmp_path / "schemathesis.toml").write_text(config if known else config.partition("[parameters]")[0])
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{address}/apidoc/openapi.json"]
    options = ["--checks", "all", "--max-examples", str(EXAMPLES), "--seed", "1", "--continue-on-failure", "--no-color"]
    if known:
        options += ["--include-path-regex", "{", "--phases", "coverage,fuzzing"]
    done = subprocess.run([*command, *options], capture_output=True, text=True, cwd=tmp_path, timeout=200)
    assert done.returncode == 0, done.stdout[-12_000:] + done.stderr[-2_000:]

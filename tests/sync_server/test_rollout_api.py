"""Plans over HTTP: what is refused, what is shown, who may ask."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from simulators.bundles import SmallBundle
from simulators.release_engineer import ReleaseEngineer, multipart
from simulators.server_devices import ServerDevice, enrolment_token
from werkzeug.serving import make_server

from exporter.cli import run_command
from exporter.rollout_plan import read_plan
from sync_server.db import Database
from sync_server.repository.online_key import load_or_create, public_pem
from sync_server.rollouts.plan import Plan

Put = Callable[..., Any]
URL = "/api/channels/stable"


@pytest.fixture
def put(app: Flask, client: FlaskClient, auth: Callable[..., dict[str, str]]) -> Put:
    """Publish releases 1 and 2 of pumps, and return what asks for a change of the channel stable."""
    engineer = ReleaseEngineer(public_pem(load_or_create(app.extensions["config"].online_key_path)))
    bundles = [SmallBundle(version=f"v{number}", release_number=number).build() for number in (1, 2)]
    parts = multipart({**engineer.sign_root(), **engineer.sign_targets(*bundles)})
    assert client.post("/api/publish", data=parts, headers=auth("pub")).status_code == 201
    headers = auth("ops")
    return lambda action, **fields: client.put(URL, json={"action": action, **fields}, headers=headers)


@pytest.fixture
def shown(client: FlaskClient, auth: Callable[..., dict[str, str]]) -> Callable[[], Any]:
    headers = auth("view")
    return lambda: client.get(f"{URL}/progress", headers=headers).json


def start(put: Put, plan: Any, release: int = 1, **fields: Any) -> Any:
    return put("start", model="pumps", release=release, plan=plan, **fields)


def test_an_empty_plan_is_a_whole_one(put: Put, shown: Callable[[], Any]) -> None:
    answer = start(put, {}, note="the first")
    assert (answer.status_code, answer.json["share"]) == (200, 100)
    told = shown()
    assert [stage["share"] for stage in told["plan"]["stages"]] == [100, 400, 2000, 10_000]
    assert (told["plan"]["error_rate"], told["plan"]["on_trip"]) == (0.01, "pause")
    assert (told["run"]["stage"], told["run"]["waits_for"]) == (0, "the first look of this stage")
    assert told["steps"][0]["note"] == "the first"
    assert told["looks"] == []
    assert start(put, {}).json == answer.json, "asked again: the answer was lost"
    other = start(put, {"look_minutes": 30})
    assert (other.status_code, other.json["code"]) == (409, "rollout_open"), "another plan is another question"


@pytest.mark.parametrize(
    ("plan", "code"),
    [
        ({"stages": []}, "bad_field"),
        ({"stages": [{"share": 100}]}, "bad_field"),
        ({"stages": [{"share": 10_001, "minutes": 1}]}, "bad_field"),
        ({"stages": [{"share": -1, "minutes": 1}]}, "bad_field"),
        ({"stages": [{"share": 1, "minutes": -1}]}, "bad_field"),
        ({"stages": [{"share": 1, "minutes": 10**9}]}, "bad_field"),
        ({"stages": [{"share": 1, "minutes": 1.5}]}, "bad_field"),
        ({"stages": [{"share": n + 1, "minutes": 1} for n in range(21)]}, "bad_field"),
        ({"stages": [{"share": 0, "minutes": 1}]}, "bad_plan"),
        ({"stages": [{"share": 200, "minutes": 1}, {"share": 100, "minutes": 1}]}, "bad_plan"),
        ({"stages": [{"share": 200, "minutes": 1}, {"share": 200, "minutes": 1}]}, "bad_plan"),
        ({"stages": [{"share": 1, "minutes": 1}, {"share": 2, "minutes": 1, "cohorts": ["a"]}]}, "bad_plan"),
        ({"stages": [{"share": 1, "minutes": 1, "cohorts": []}]}, "bad_cohorts"),
        ({"stages": [{"share": 1, "minutes": 1, "cohorts": ["a\u0000"]}]}, "bad_cohorts"),
        ({"stages": [{"share": 1, "minutes": 1, "cohorts": ["a"] * 2}]}, "bad_cohorts"),
        ({"stages": [{"share": 1, "minutes": 1, "cohorts": ["x" * 128, "y" * 100]}]}, "rollout_too_large"),
        ({"error_rate": 0.5}, "bad_field"),
        ({"error_rate": 0}, "bad_field"),
        ({"look_minutes": 1}, "bad_field"),
        ({"on_trip": "explode"}, "bad_field"),
        ({"on_trip": "roll_back"}, "bad_plan"),
        ({"gates": {"anomalies": {"ratio": 0.5}}}, "bad_field"),
        ({"gates": {"anomalies": {"raito": 2}}}, "bad_field"),
        ({"gates": {"failures": {"tolerated": 1}}}, "bad_field"),
        ({"gates": None}, "bad_field"),
        ("fast", "bad_field"),
    ],
)  # fmt: skip
def test_plans_that_make_no_sense_change_nothing(plan: Any, code: str, put: Put, client: FlaskClient) -> None:
    answer = start(put, plan)
    assert answer.status_code == (409 if code == "rollout_too_large" else 422), answer.json
    assert answer.json["code"] == code
    assert client.get("/repository/metadata/timestamp.json").json["signed"]["rollouts"] == {}


def test_the_documented_plan_is_the_default_one(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "rollouts.md").read_text("utf-8")
    (tmp_path / "plan.toml").write_text(page.split("```toml\n")[1].split("```")[0])
    assert Plan.from_stored(read_plan(tmp_path / "plan.toml")) == Plan()


def test_later_stages_must_fit_into_the_timestamp_as_well(put: Put) -> None:
    wide = [f"cohort number {n} of many" for n in range(12)]
    stages = [{"share": 1, "minutes": 1, "cohorts": wide[:1]}, {"share": 2, "minutes": 1, "cohorts": wide}]
    assert start(put, {"stages": stages}).json["code"] == "rollout_too_large"


def test_a_plan_says_to_whom_and_nothing_else_does(put: Put) -> None:
    assert start(put, {}, share=5).json["code"] == "plan_and_share"
    assert start(put, {}, cohorts=["north"]).json["code"] == "plan_and_share"
    assert put("pause", note="x" * 501).json["code"] == "bad_field"
    for note in ("a\u0000b", "two\nlines", "\x1b[31m"):
        assert put("pause", note=note).json["code"] == "bad_note"


def test_advancing_what_has_no_plan_or_is_paused(put: Put) -> None:
    assert put("advance", from_stage=0).json["code"] == "no_rollout"
    put("start", model="pumps", release=1, share=10_000)
    assert put("advance", from_stage=0).json["code"] == "no_plan"
    start(put, {"on_trip": "roll_back"}, release=2)
    put("pause")
    assert put("advance", from_stage=0).json["code"] == "paused"
    put("resume")
    assert put("advance", from_stage=0).json["share"] == 400
    put("roll_back")
    assert put("advance", from_stage=1).json["code"] == "rolled_back"


def test_a_release_that_was_withdrawn_cannot_be_chosen(put: Put) -> None:
    assert start(put, {}, release=9).json["code"] == "release_missing"


def test_who_may_see_the_progress(put: Put, client: FlaskClient, auth: Callable[..., dict[str, str]]) -> None:
    assert client.get(f"{URL}/progress").status_code == 401
    assert client.get(f"{URL}/progress", headers=auth("dev", subject="d")).status_code == 403
    assert client.get(f"{URL}/progress", headers=auth("pub")).status_code == 404
    assert client.get("/api/channels/No%00/progress", headers=auth("pub")).status_code == 422
    start(put, {})
    assert client.get(f"{URL}/progress", headers=auth("pub")).status_code == 200


def test_overdue_devices_and_their_reasons(
    put: Put, shown: Callable[[], Any], client: FlaskClient, database: Database
) -> None:
    put("start", model="pumps", release=1, share=10_000)
    token = enrolment_token(database, model="pumps")
    fine, refuses, silent = (ServerDevice.enrol(client, token, name=name) for name in ("a", "b", "c"))
    fine.report(active={"bundle": "a" * 64, "release": 1, "version": "v1"})
    refuses.report(last_update={"outcome": "refused", "reason": "golden_failed", "release": 1, "at_ms": 1})
    told = shown()["maintenance"]
    assert (told["reachable"], told["running"], told["overdue"]) == (3, 1, 2)
    assert told["refusals"] == [{"outcome": "refused", "reason": "golden_failed", "devices": 1}]
    assert {device["id"] for device in told["overdue_devices"]} == {refuses.id, silent.id}
    assert all(device["since"] == shown()["steps"][0]["at"] for device in told["overdue_devices"])
    assert told["publish_to_95_seconds"] is None


def test_the_exporter_and_the_server_understand_each_other(
    put: Put, app: Flask, make_token: Callable[..., str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put("start", model="pumps", release=1, share=10_000)
    (tmp_path / "token").write_text(make_token("pub"))
    (tmp_path / "plan.toml").write_text('on_trip = "roll_back"\n[[stages]]\nshare = "2%"\nhours = 1.5\n')
    httpd = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()

    def run(*arguments: str) -> tuple[int, str]:
        server = ["--server", f"http://127.0.0.1:{httpd.server_port}", "--token-file", str(tmp_path / "token")]
        code = run_command(["rollout", "stable", *arguments, *server])
        captured = capsys.readouterr()
        return code, captured.out + captured.err

    try:
        started = run("--model", "pumps", "--release", "2", "--plan", str(tmp_path / "plan.toml"), "--note", "why not")
        assert started == (0, "Channel stable: pumps release 2, 2 % of devices, running, release 1 before.\n")
        code, text = run("--progress")
        assert code == 0
        assert "stage 1 of 1" in text
        assert "waits for the first look of this stage" in text
        code, text = run("--advance")
        assert (code, text) == (0, "Channel stable: pumps release 2, 2 % of devices, running, release 1 before.\n")
        assert "ended: finished" in run("--progress")[1]
        (tmp_path / "plan.toml").write_text("look_minuets = 5")
        code, text = run("--model", "pumps", "--release", "2", "--plan", str(tmp_path / "plan.toml"))
        assert (code, "look_minuets" in text) == (5, True)
    finally:
        httpd.shutdown()
        thread.join()
        httpd.server_close()

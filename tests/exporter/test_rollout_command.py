"""``exporter rollout`` with plans: files as people write them, stages, progress, and answers that get lost."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from simulators.publish_server import PublishServer, answer, problem, serving

from edge_runtime.errors import InputError
from exporter.channels import advance, start_rollout
from exporter.cli import run_command
from exporter.rollout_plan import MAX_BYTES, read_plan
from exporter.server import Server

PLAN = """
on_trip = "pause"
[[stages]]
share = "1%"
hours = 24
devices = 5
[[stages]]
share = "12.5 %"
minutes = 90
cohorts = ["north"]
[gates.anomalies]
ratio = 1.5
"""
Run = Callable[..., dict[str, Any]]


@pytest.fixture
def remote() -> Iterator[PublishServer]:
    with serving(PublishServer("")) as server:
        yield server


@pytest.fixture
def run(remote: PublishServer, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> Run:
    for name in ("STELLA_TOKEN", "STELLA_SERVER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("exporter.server.ATTEMPTS", 1)
    (tmp_path / "token").write_text("st_pub_secret\n")

    def run(*arguments: object, expect: int = 0) -> dict[str, Any]:
        server = ("--server", remote.url, "--token-file", str(tmp_path / "token"), "--json")
        code = run_command(["rollout", "stable", *map(str, arguments), *server])
        captured = capsys.readouterr()
        assert code == expect, captured
        value = json.loads(captured.out)
        assert isinstance(value, dict)
        return value

    return run


@pytest.fixture
def server(remote: PublishServer) -> Server:
    return Server(remote.url, "st_pub_secret", sleep=lambda _: None)


RELEASE = ("--model", "fleet", "--release", 2)


def test_a_plan_file_is_what_people_write(tmp_path: Path) -> None:
    (tmp_path / "plan.toml").write_text(PLAN)
    assert read_plan(tmp_path / "plan.toml") == {
        "on_trip": "pause",
        "stages": [
            {"share": 100, "minutes": 1440, "devices": 5},
            {"share": 1250, "minutes": 90, "cohorts": ["north"]},
        ],
        "gates": {"anomalies": {"ratio": 1.5}},
    }


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"share = ", "cannot be read"),
        (b"\xff\xfe", "cannot be read"),
        (b"day = 2026-11-02", "cannot be read"),
        (b"error_rate = nan", "cannot be read"),
        (b"a = " + b"[" * 5000, "cannot be read"),
        (b"stages = 5", "no list of tables"),
        (b"stages = [1]", "no list of tables"),
        (b'[[stages]]\nshare = "much"', "has the share"),
        (b'[[stages]]\nshare = "1%"\nhours = 1\nminutes = 1', "no time"),
        (b'[[stages]]\nshare = "1%"\nhours = "1"', "no time"),
        (b'[[stages]]\nshare = "1%"\nhours = true', "no time"),
        (b'[[stages]]\nshare = "1%"\nhours = -1', "no time"),
        (b'[[stages]]\nshare = "1%"\nhours = inf', "cannot be read"),
        (b"# " + b"x" * MAX_BYTES, "bytes"),
    ],
)
def test_plans_that_cannot_be_used_are_sentences(content: bytes, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "plan.toml").write_bytes(content)
    with pytest.raises(InputError, match=sentence):
        read_plan(tmp_path / "plan.toml")


def test_a_plan_that_is_not_there(run: Run, tmp_path: Path) -> None:
    assert run(*RELEASE, "--plan", tmp_path / "none.toml", expect=3)["error"] == "input"


def test_started_by_a_plan_advanced_and_noted(run: Run, remote: PublishServer, tmp_path: Path) -> None:
    (tmp_path / "plan.toml").write_text(PLAN)
    assert run(*RELEASE, "--plan", tmp_path / "plan.toml", "--note", "the fix")["share"] == 100
    assert run("--advance", "--note", "enough seen")["share"] == 1250
    run("--pause", "--note", "lunch")
    assert remote.notes == ["the fix", "enough seen", "lunch"]
    assert remote.plans["stable"]["gates"] == {"anomalies": {"ratio": 1.5}}


def test_the_servers_default_plan(run: Run, remote: PublishServer) -> None:
    assert run(*RELEASE, "--staged")["share"] == 100
    assert [stage["share"] for stage in remote.plans["stable"]["stages"]] == [100, 10_000]


@pytest.mark.parametrize(
    "arguments",
    [
        ("--staged",),
        ("--staged", "--pause"),
        ("--advance", "--share", "5%"),
        (*RELEASE, "--staged", "--share", "5%"),
        (*RELEASE, "--staged", "--cohort", "north"),
        (*RELEASE, "--staged", "--plan", "plan.toml"),
        (*RELEASE, "--advance"),
    ],
)
def test_options_that_contradict_each_other_send_nothing(arguments: Any, run: Run, remote: PublishServer) -> None:
    assert run(*arguments, expect=3)["error"] == "input"
    assert remote.requests == []


def test_an_advance_whose_answer_is_lost_is_not_done_twice(server: Server, remote: PublishServer) -> None:
    plan = {"stages": [{"share": n, "minutes": 0} for n in (100, 200, 300)]}
    start_rollout(server, "stable", "fleet", 2, 0, plan=plan)
    remote.after.append(lambda request: problem(502, "gateway", "Lost"))
    assert advance(server, "stable").share == 200
    assert advance(server, "stable").share == 300


def test_a_start_by_plan_whose_answer_is_lost_is_success(server: Server, remote: PublishServer) -> None:
    first = start_rollout(server, "stable", "fleet", 2, 0, plan={})
    assert start_rollout(server, "stable", "fleet", 2, 0, plan={}) == first


def test_progress_for_people_and_programs(
    run: Run, remote: PublishServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(*RELEASE, "--staged")
    assert run("--progress")["run"]["waits_for"] == "a person: a gate tripped"
    server = ["--server", remote.url, "--token-file", str(tmp_path / "token")]
    assert run_command(["rollout", "stable", "--progress", *server]) == 0
    text = capsys.readouterr().out
    for part in (
        "fleet release 2, 1 % of devices", "stage 1 of 2", "waits for a person", "in trouble: The key is gone",
        "latency", "Twice as slow", "19 of 20 reachable", "2.0 hours", "1 devices: failed, no reason given",
        "runs nothing instead of 2",
    ):  # fmt: skip
        assert part in text


def test_a_progress_of_another_form_is_a_sentence(
    remote: PublishServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "token").write_text("st_pub_secret\n")
    rollout = {"id": 1, "model": "m", "release": 1, "previous": None, "share": 1, "salt": "0" * 32, "state": "running"}
    remote.before.append(lambda request: answer({"channel": "stable", "rollout": rollout, "looks": [{}]}))
    code = run_command(
        ["rollout", "stable", "--progress", "--server", remote.url, "--token-file", str(tmp_path / "token")]
    )
    assert code == 3
    assert "another form" in capsys.readouterr().err

"""The command line from keys to rollout, against a server in a thread; training is stood in for."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from simulators.publish_server import PublishServer, problem, serving
from simulators.tiny_build import tiny_build

from exporter.built import Build
from exporter.cli import run_command
from exporter.keys import create_key, load_public_key

SETTINGS = """
[model]
name = "fleet"
[data]
readings = "readings.parquet"
signals = ["heat"]
context = ["charging"]
"""


class Desk:
    """A folder, a server, and the command line."""

    def __init__(self, folder: Path, remote: PublishServer, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self.remote = remote
        self._capsys = capsys
        self.said = ""

    def run(self, *arguments: object, expect: int = 0) -> dict[str, Any]:
        code = run_command([*map(str, arguments), "--json"])
        captured = self._capsys.readouterr()
        self.said = captured.err
        assert code == expect, captured
        value = json.loads(captured.out)
        assert isinstance(value, dict)
        return value

    def build(self, *arguments: object, expect: int = 0) -> dict[str, Any]:
        return self.run(
            "build", "--config", self.folder / "model.toml", "--out", self.folder / "out",
            "--targets-key", self.folder / "targets.key", "--repository", self.folder / "repository",
            *arguments, expect=expect,
        )  # fmt: skip

    @property
    def server(self) -> tuple[object, ...]:
        return ("--server", self.remote.url, "--token-file", self.folder / "token")


@pytest.fixture
def desk(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    for name in ("STELLA_KEY_PASSPHRASE", "STELLA_TOKEN", "STELLA_SERVER", "STELLA_REPOSITORY", "SOURCE_DATE_EPOCH"):
        monkeypatch.delenv(name, raising=False)

    def train(spec: object, progress: object, workers: object) -> Build:
        return tiny_build("phone")

    monkeypatch.setattr("exporter.cli.build.train_models", train)
    monkeypatch.setattr("exporter.cli.steps.train_models", train)
    monkeypatch.setattr("exporter.server.ATTEMPTS", 1)
    (tmp_path / "token").write_text("st_pub_secret\n")
    (tmp_path / "model.toml").write_text(SETTINGS)
    create_key(tmp_path / "server.key", "targets", None)
    online = load_public_key(tmp_path / "server.key.pub").pem
    (tmp_path / "online.pem").write_bytes(online)
    with serving(PublishServer(online.decode())) as remote:
        made = Desk(tmp_path, remote, capsys)
        for role in ("root", "targets"):
            made.run("keys", "create", "--role", role, "--out", tmp_path / f"{role}.key", "--no-passphrase")
        made.run(
            "repository", "create", tmp_path / "repository", "--root-key", tmp_path / "root.key",
            "--targets-key", tmp_path / "targets.key.pub", "--online-key", tmp_path / "online.pem",
        )  # fmt: skip
        yield made


def test_no_passphrase_is_said_aloud(desk: Desk) -> None:
    desk.run("keys", "create", "--role", "root", "--out", desk.folder / "another.key", "--no-passphrase")
    assert "whoever reads the file can sign as you" in desk.said


def test_build_publishes_and_rolls_out_in_one_go(desk: Desk) -> None:
    report = desk.build("--publish", desk.remote.url, "--token-file", desk.folder / "token", "--share", "25%")
    assert report["published"]["added"] == sorted(desk.remote.bundles)
    assert report["rollout"]["share"] == 2500
    assert desk.remote.rollouts["stable"]["release"] == 1
    assert json.loads((desk.folder / "out" / "report.json").read_text()) == report
    again = desk.build("--publish", desk.remote.url, "--token-file", desk.folder / "token")
    assert (again["release_number"], again["version"]) == (2, "2")
    assert desk.run("inspect", desk.folder / "repository")["targets_version"] == 2


def test_build_for_a_person_draws_tables(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    code = run_command(
        ["build", "--config", str(desk.folder / "model.toml"), "--out", str(desk.folder / "out"),
         "--targets-key", str(desk.folder / "targets.key")]
    )  # fmt: skip
    text = capsys.readouterr().out
    assert code == 0
    assert "How good it is" in text
    assert "Packed, not released" in text


def test_release_goes_from_hand_to_hand(desk: Desk) -> None:
    folder, out = desk.folder, desk.folder / "out"
    desk.run("train", "--config", folder / "model.toml", "--out", folder / "work")
    assert desk.run("quantize", folder / "work")["models"][0]["form"] == "codebook8"
    assert desk.run("convert", folder / "work")["models"][0]["form"] == "fp32"
    packed = desk.run("pack", folder / "work", "--out", out, "--targets-key", folder / "targets.key")
    bundles = [bundle["file"] for bundle in packed["bundles"]]
    named = [part for bundle in bundles for part in ("--bundle", bundle)]
    prepared = desk.run(
        "release", "prepare", folder / "r1", *named, "--repository", folder / "repository",
        "--minimum-release", 1, "--channel", "beta", *desk.server,
    )  # fmt: skip
    assert (prepared["signatures"], prepared["signatures_needed"]) == (0, 1)
    refused = desk.run("publish", folder / "r1", *desk.server, expect=4)
    assert refused["reason"] == "bad_metadata"
    assert desk.run("sign", folder / "r1", "--key", folder / "targets.key")["signatures"] == 1
    published = desk.run("publish", folder / "r1", *desk.server, "--repository", folder / "repository")
    assert len(published["added"]) == 2
    assert desk.run("publish", folder / "r1", *desk.server)["held_already"]
    checked = desk.run("verify", bundles[0], "--repository", folder / "repository")
    assert len(checked["checks"]) == 3
    assert desk.run("verify", bundles[0], "--public-key", folder / "targets.key.pub")["model"] == "fleet"
    listed = desk.run("inspect", folder / "repository")
    assert listed["minimum_release"] == {"fleet": 1}
    assert {custom["channels"][0] for custom in listed["targets"].values()} == {"beta"}


def test_rollout_from_start_to_roll_back(desk: Desk) -> None:
    started = desk.run("rollout", "beta", *desk.server, "--model", "fleet", "--release", 1, "--share", "10%")
    assert (started["channel"], started["share"], started["state"]) == ("beta", 1000, "running")
    assert desk.run("rollout", "beta", *desk.server, "--share", "5000")["share"] == 5000
    assert desk.run("rollout", "beta", *desk.server, "--pause")["state"] == "paused"
    assert desk.run("rollout", "beta", *desk.server, "--resume")["state"] == "running"
    assert desk.run("rollout", "beta", *desk.server, "--roll-back")["state"] == "rolled_back"
    assert desk.run("rollout", "beta", *desk.server)["state"] == "rolled_back"
    limited = ("--model", "fleet", "--release", 1, "--share", "10%", "--cohort", "north")
    assert desk.run("rollout", "beta", *desk.server, *limited)["cohorts"] == ["north"]
    assert desk.run("rollout", "beta", *desk.server, "--cohort", "east")["cohorts"] == ["east", "north"]
    assert "cohorts" not in desk.run("rollout", "beta", *desk.server, "--all-cohorts")
    assert "cohorts" not in desk.run("rollout", "beta", *desk.server, "--cohort", "west")
    assert desk.run("rollout", "beta", *desk.server, "--cohort", "a", "--pause", expect=3)["error"] == "input"
    assert desk.run("rollout", "beta", *desk.server, "--pause", "--share", "1", expect=3)["error"] == "input"
    assert desk.run("rollout", "beta", *desk.server, "--model", "fleet", expect=3)["error"] == "input"


def test_repository_is_updated_from_the_server_and_renewed(desk: Desk) -> None:
    import shutil

    shutil.copytree(desk.folder / "repository", desk.folder / "colleague")
    desk.build("--publish", desk.remote.url, "--token-file", desk.folder / "token")
    assert desk.run("repository", "update", desk.folder / "colleague", *desk.server)["targets_version"] == 1
    renewed = desk.run("repository", "renew", desk.folder / "repository", "--root-key", desk.folder / "root.key")
    assert renewed["root_version"] == 2


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (("build", "--config", "missing.toml", "--out", "o"), 3, "exporter init"),
        (("build", "--config", "{folder}/model.toml", "--out", "o"), 3, "no key is given"),
        (("build", "--config", "{folder}/model.toml", "--out", "o", "--share", "1%"), 3, "needs a server"),
        (("publish", "{folder}", "--token-file", "{folder}/token"), 3, "No server is named"),
        (("publish", "{folder}", "--server", "{url}"), 3, "No publisher token"),
        (("publish", "{folder}", "--server", "{url}", "--token-file", "{folder}/none"), 3, "cannot be read"),
        (("publish", "{folder}", "--server", "http://edge.example", "--token-file", "{folder}/token"), 4, "plain http"),
        (("pack", "{folder}", "--out", "o", "--targets-key", "{folder}/targets.key"), 3, "no work folder"),
        (("pack", "{folder}", "--out", "o", "--targets-key", "{folder}/root.key"), 3, "no work folder"),
        (("inspect", "{folder}/none"), 3, "is not there"),
        (("verify", "{folder}/model.toml", "--public-key", "{folder}/targets.key.pub"), 3, "not a whole zip"),
        (("sign", "{folder}/none", "--key", "{folder}/targets.key"), 3, "no metadata to sign"),
        (("sign", "{folder}/repository", "--key", "{folder}/server.key"), 4, "None of the given keys"),
        (("release", "prepare", "{folder}/r", "--bundle", "x"), 3, "No repository folder"),
        (("keys", "create", "--role", "root", "--out", "{folder}/root.key", "--no-passphrase"), 3, "never overwritten"),
    ],
)
def test_refusals_have_a_sentence_and_a_code(desk: Desk, arguments: tuple[str, ...], code: int, sentence: str) -> None:
    filled = [part.format(folder=desk.folder, url=desk.remote.url) for part in arguments]
    refused = desk.run(*filled, expect=code)
    assert sentence in f"{refused['message']} {refused['advice']}"
    assert sentence in desk.said


def test_server_that_fails_leaves_everything_as_it_was(desk: Desk) -> None:
    desk.remote.before.append(lambda request: problem(500, "bug", "It broke."))
    refused = desk.build("--publish", desk.remote.url, "--token-file", desk.folder / "token", expect=5)
    assert "It broke" in refused["message"]
    assert desk.run("inspect", desk.folder / "repository")["targets_version"] is None
    assert desk.build("--publish", desk.remote.url, "--token-file", desk.folder / "token")["published"]


def test_publishing_can_go_on_where_it_stopped(desk: Desk) -> None:
    desk.remote.before += [lambda request: None, lambda request: None, lambda request: problem(500, "bug", "Down")]
    desk.build("--publish", desk.remote.url, "--token-file", desk.folder / "token", expect=5)
    published = desk.run(
        "publish", desk.folder / "out" / "release-1", *desk.server, "--repository", desk.folder / "repository"
    )
    assert published["targets_version"] == 1


def test_bundles_are_the_same_on_any_day(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def digests(out: str) -> list[str]:
        report = desk.run(
            "build", "--config", desk.folder / "model.toml", "--out", desk.folder / out,
            "--targets-key", desk.folder / "targets.key",
        )  # fmt: skip
        return [model["digest"] for model in report["models"]]

    first = digests("a")
    assert digests("b") == first
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    dated = digests("c")
    assert dated != first
    assert digests("d") == dated


@pytest.mark.parametrize("share", ["101%", "10001", "-1", "much", "1.234%"])
def test_shares_that_are_none_are_usage_errors(desk: Desk, share: str) -> None:
    assert run_command(["rollout", "stable", "--share", share]) == 2


def test_passphrase_comes_from_file_or_environment(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = desk.folder / "secret"
    secret.write_text("correct horse\n")
    desk.run("keys", "create", "--role", "targets", "--out", desk.folder / "t2.key", "--passphrase-file", secret)
    config = ("build", "--config", desk.folder / "model.toml", "--targets-key", desk.folder / "t2.key")
    desk.run(*config, "--out", desk.folder / "a", "--passphrase-file", secret)
    monkeypatch.setenv("STELLA_KEY_PASSPHRASE", "correct horse")
    desk.run(*config, "--out", desk.folder / "b")
    monkeypatch.setenv("STELLA_KEY_PASSPHRASE", "wrong")
    assert desk.run(*config, "--out", desk.folder / "c", expect=4)["reason"] == "wrong_passphrase"


def test_without_terminal_or_passphrase_nothing_hangs(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    import io

    monkeypatch.setattr("sys.stdin", io.StringIO())
    refused = desk.run("keys", "create", "--role", "root", "--out", desk.folder / "x.key", expect=3)
    assert "no terminal" in refused["message"]

"""The report: every figure that is there is shown, and none that is not."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from simulators.release_desk import NOW, ReleaseDesk
from simulators.tiny_build import tiny_build, tiny_model

from edge_runtime.errors import StellaError, StorageError
from exporter.built import Build
from exporter.config import DataSpec, ModelSpec
from exporter.errors import GoalsMissedError
from exporter.keys import create_key
from exporter.pipeline import ReleaseOptions, build_release
from exporter.release import adopt_release, sign_release
from exporter.report import number, print_report, quality_cells, report_dict
from exporter.repository import create_repository, load_repository
from exporter.server import Server

SPEC = ModelSpec(
    "fleet",
    DataSpec(Path("readings.parquet"), None, "device_id", "timestamp", None, ("heat",), ("charging",)),
)


def train(spec: ModelSpec, progress: object) -> Build:
    return tiny_build("phone")


def printed(outcome: object) -> str:
    stream = io.StringIO()
    print_report(outcome, Console(file=stream, width=140))  # type: ignore[arg-type]
    return stream.getvalue()


def test_report_of_a_signed_release(tmp_path: Path) -> None:
    desk = ReleaseDesk(tmp_path)
    options = ReleaseOptions(tmp_path / "out", desk.targets, NOW, repository=desk.repository_folder)
    seen: list[tuple[str, float]] = []
    outcome = build_release(SPEC, options, train=train, progress=lambda step, done: seen.append((step, done)))
    text = printed(outcome)
    for part in ("fleet 1, release 1", "1,234 readings", "default", "phone", "0.99", "0.95", "were set aside"):
        assert part in text
    assert "Signed. Next: exporter publish" in text
    assert [step for step, done in seen if done == 1.0] == ["look up", "train", "pack", "sign"]
    value = json.loads(json.dumps(report_dict(outcome)))
    assert [model["cohort"] for model in value["models"]] == [None, "phone"]
    assert value["models"][0]["bundle_bytes"] == len(outcome.bundles[0].data)
    assert value["release"]["signatures"] == 1


def test_report_without_repository_says_so(tmp_path: Path) -> None:
    desk = ReleaseDesk(tmp_path)
    outcome = build_release(SPEC, ReleaseOptions(tmp_path / "out", desk.targets, NOW), train=train)
    assert "Packed, not released" in printed(outcome)
    assert (tmp_path / "out" / "bundles" / "fleet" / "1" / "default.bundle").read_bytes() == outcome.bundles[0].data


@pytest.mark.parametrize(
    ("value", "shown"),
    [(None, "-"), (0.99912, "0.9991"), (1.0, "1"), (0, "0"), (12345, "12,345"), (12.5, "12.5"), ("x", "x")],
)
def test_numbers_are_short(value: object, shown: str) -> None:
    assert number(value, 4) == shown


def test_missing_figures_are_dashes() -> None:
    assert set(quality_cells({})) == {"-"}


def test_second_signer_is_asked_for(tmp_path: Path) -> None:
    desk = ReleaseDesk(tmp_path)
    second = create_key(tmp_path / "second.key", "targets", None)
    folder = tmp_path / "strict"
    create_repository(
        folder,
        root_keys=[desk.root.public],
        targets_keys=[desk.targets.public, second.public],
        online_key=desk.online.public,
        signers=[desk.root],
        targets_threshold=2,
        now=NOW,
    )
    outcome = build_release(SPEC, ReleaseOptions(tmp_path / "out", desk.targets, NOW, repository=folder), train=train)
    assert outcome.release is not None
    assert not outcome.release.complete
    assert "Signed by 1 of 2. Next: exporter sign" in printed(outcome)
    sign_release(outcome.release.folder, [second])
    adopt_release(folder, outcome.release.folder)
    assert load_repository(folder).next_release_number("fleet") == 2


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"channel": "beta"}, "not made for channel beta"),
        ({"version": "Not A Label"}, "not a version name"),
        ({"server": Server("http://127.0.0.1:9", "st_pub_x"), "repository": None}, "needs the repository folder"),
        ({"release_number": 1}, "not above all earlier ones"),
    ],
)
def test_what_would_be_refused_later_is_refused_before_training(
    tmp_path: Path, changes: dict[str, Any], sentence: str
) -> None:
    desk = ReleaseDesk(tmp_path)
    adopt_release(desk.repository_folder, desk.prepare(1)[0])
    options = replace(ReleaseOptions(tmp_path / "out", desk.targets, NOW, repository=desk.repository_folder), **changes)

    def never(spec: ModelSpec, progress: object) -> Build:
        raise AssertionError("trained")

    with pytest.raises(StellaError, match=sentence):
        build_release(SPEC, options, train=never)


def test_a_folder_that_cannot_be_written_is_refused_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = ReleaseDesk(tmp_path)
    (tmp_path / "file").write_text("")

    def never(spec: ModelSpec, progress: object) -> Build:
        raise AssertionError("trained")

    with pytest.raises(StorageError, match="file is no folder"):
        build_release(SPEC, ReleaseOptions(tmp_path / "file" / "out", desk.targets, NOW), train=never)
    monkeypatch.setattr("os.access", lambda *_: False)  # root may write everywhere
    with pytest.raises(StorageError, match="is not writable"):
        build_release(SPEC, ReleaseOptions(tmp_path / "out", desk.targets, NOW), train=never)
    assert not (tmp_path / "out").exists()


def test_goals_that_are_missed_pack_nothing_unless_that_is_allowed(tmp_path: Path) -> None:
    desk = ReleaseDesk(tmp_path)
    poor = replace(tiny_build(), models=(tiny_model(below_goals=("codebook8 has 1% other verdicts.",)),))
    options = ReleaseOptions(tmp_path / "out", desk.targets, NOW)
    with pytest.raises(GoalsMissedError, match="default: codebook8 has 1% other") as caught:
        build_release(SPEC, options, train=lambda *_: poor)
    assert caught.value.exit_code == 8
    assert not (tmp_path / "out").exists()
    allowed = build_release(SPEC, replace(options, allow_below_goals=True), train=lambda *_: poor)
    assert "below a goal: codebook8 has" in printed(allowed)
    assert allowed.bundles[0].manifest.below_goals == poor.models[0].below_goals
    assert build_release(SPEC, options, train=train).bundles

"""A build that ends early leaves whole files or none, and says why."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
from simulators.tiny_build import tiny_build

from exporter.cli import run_command
from exporter.keys import create_key

SETTINGS = """
[model]
name = "fleet"
[data]
readings = "readings.parquet"
signals = ["heat"]
context = ["charging"]
"""


@pytest.fixture
def build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The arguments of a build whose training is stood in for."""
    (tmp_path / "model.toml").write_text(SETTINGS)
    create_key(tmp_path / "targets.key", "targets", None)
    monkeypatch.setattr("exporter.model_build.build_models", lambda *_, **__: tiny_build("phone", "tablet"))
    folder, settings, key = tmp_path / "out", tmp_path / "model.toml", tmp_path / "targets.key"
    return ["build", "--config", str(settings), "--out", str(folder), "--targets-key", str(key)]


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("after", [0, 1, 2, 3])
def test_a_full_disk_leaves_whole_files(
    build: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], after: int
) -> None:
    assert run_command([*build, "--version", "whole"]) == 0
    whole = {path.name: path.read_bytes() for path in (tmp_path / "out").rglob("*.bundle")}
    capsys.readouterr()
    written: list[int] = []

    def full(descriptor: int) -> None:
        written.append(descriptor)
        if len(written) > after:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert run_command([*build, "--version", "other"]) == 6
    assert "No space left on device. Check free space" in capsys.readouterr().err
    made = tmp_path / "out" / "bundles" / "fleet" / "other"
    assert len(files(made)) == min(after, 3)
    assert all(name in whole for name in files(made)), "no temporary file is left"
    assert {path.name: path.read_bytes() for path in made.parent.glob("whole/*")} == whole


def test_ctrl_c_leaves_nothing(
    build: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("exporter.model_build.build_models", interrupted)
    assert run_command(build) == 130
    assert capsys.readouterr().err.strip() == "exporter: interrupted"
    assert not (tmp_path / "out").exists()

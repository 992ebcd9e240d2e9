"""Equal inputs, equal bytes: in another process, folder, locale and time zone, with other threads and hash seeds."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from exporter.cli import run_command


def run(*arguments: object) -> None:
    assert run_command([*map(str, arguments), "--json"]) == 0


def test_two_builds_are_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    run("simulate", "--out", here, "--devices", 12, "--days", 3)
    run("init", here / "readings.parquet", "--out", here / "model.toml", "--model", "phones")
    run("keys", "create", "--role", "targets", "--out", here / "targets.key", "--no-passphrase")
    settings = (here / "model.toml").read_text().replace("# trees = 200", "trees = 20")
    settings = settings.replace("# alarms_per_device_day = 0.02", "alarms_per_device_day = 0.5")
    (here / "model.toml").write_text(settings)
    shutil.copytree(here, there)
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    run("build", "--config", here / "model.toml", "--out", here / "out", "--targets-key", here / "targets.key")
    code = "import sys; from exporter.cli import run_command; sys.exit(run_command(sys.argv[1:]))"
    subprocess.run(
        [sys.executable, "-c", code, "build", "--out", "out", "--targets-key", "targets.key", "--json"],
        cwd=there,
        env={**os.environ, "PYTHONHASHSEED": "7", "OMP_NUM_THREADS": "1", "TZ": "Asia/Tokyo", "LC_ALL": "C"},
        capture_output=True,
        check=True,
    )
    made = {path.relative_to(here): path.read_bytes() for path in here.rglob("*.bundle")}
    assert made
    assert {path.relative_to(there): path.read_bytes() for path in there.rglob("*.bundle")} == made

"""From a simulated fleet to a verified bundle with the product's own commands, nothing stood in for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from exporter.cli import run_command


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, Any]:
    code = run_command([*map(str, arguments), "--json"])
    captured = capsys.readouterr()
    assert code == 0, captured
    value = json.loads(captured.out)
    assert isinstance(value, dict)
    return value


@pytest.fixture
def workshop(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """A fleet, its settings (a small forest) and keys."""
    run(capsys, "simulate", "--out", tmp_path / "fleet", "--devices", 24, "--days", 5, "--fault-share", 0.4)
    run(capsys, "init", tmp_path / "fleet" / "readings.parquet", "--out", tmp_path / "model.toml")
    settings = (tmp_path / "model.toml").read_text()
    for before, after in [
        ("# trees = 200", "trees = 25"),
        ("# cohorts = true", "cohorts = false"),
        ("# alarms_per_device_day = 0.02", "alarms_per_device_day = 0.5"),
    ]:
        assert before in settings
        settings = settings.replace(before, after)
    (tmp_path / "model.toml").write_text(settings)
    for role in ("root", "targets"):
        run(capsys, "keys", "create", "--role", role, "--out", tmp_path / f"{role}.key", "--no-passphrase")
    return tmp_path


def test_simulated_fleet_becomes_a_bundle_that_passes(workshop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    key = workshop / "targets.key"
    report = run(capsys, "build", "--config", workshop / "model.toml", "--out", workshop / "a", "--targets-key", key)
    (model,) = report["models"]
    assert model["evaluation"]["auc"] > 0.85
    assert model["parity"]["candidates"]["fp32"]["sets"]["held out"]["label_flips"] == 0
    assert model["bundle_bytes"] < 300_000
    bundle = workshop / "a" / "bundles" / model["path"]
    assert run(capsys, "verify", bundle, "--public-key", f"{key}.pub")["digest"] == model["digest"]
    assert run_command(["inspect", "--card", "--text", str(bundle)]) == 0
    card = capsys.readouterr().out
    assert "battery_temperature" in card
    assert "| AUC |" in card

    # The same steps one by one, and the same bytes.
    run(capsys, "train", "--config", workshop / "model.toml", "--out", workshop / "work")
    run(capsys, "pack", workshop / "work", "--out", workshop / "b", "--targets-key", key)
    assert (workshop / "b" / "bundles" / model["path"]).read_bytes() == bundle.read_bytes()
    for choose in ("quantize", "convert"):
        chosen = run(capsys, choose, workshop / "work")
        packed = run(
            capsys, "pack", workshop / "work", "--out", workshop / choose, "--targets-key", key, "--release-number", 2
        )
        verified = run(capsys, "verify", packed["bundles"][0]["file"], "--public-key", f"{key}.pub")
        assert verified["precision"] == chosen["models"][0]["form"]

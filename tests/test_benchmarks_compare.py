"""``benchmarks.compare``: a ratio that became worse by more than the threshold and more than noise fails, nothing else."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import harness
from benchmarks.compare import Ratio, compare, main

STEADY = (3.0, 3.01, 2.99, 3.0, 3.02, 2.98, 3.0)


def result(folder: Path, *figures: tuple[str, float], repeats: Sequence[float] = (), **changes: Any) -> Path:
    """Write a result with ratios of these names and values."""
    report = harness.Report("scoring", "How fast?")
    report.figure("one row, ours", 15.0, "us")
    for name, value in figures:
        report.figure(name, value, "x", repeats=[one * value / 3 for one in repeats], **changes)
    return harness.write_result(report.to_dict(), folder)


def run(baseline: Path, current: Path, threshold: float = 0.05) -> tuple[int, str]:
    arguments = ["--baseline", str(baseline), "--current", str(current), "--threshold", str(threshold)]
    done = CliRunner().invoke(main, arguments)
    return done.exit_code, done.output


def test_a_ratio_that_fell_further_than_the_threshold_fails(tmp_path: Path) -> None:
    baseline = result(tmp_path / "a", ("one row", 3.0), ("batch", 2.0), repeats=STEADY)
    worse = result(tmp_path / "b", ("one row", 2.7), ("batch", 2.1), repeats=STEADY)
    code, text = run(baseline, worse)
    assert code == 1
    assert [line for line in text.splitlines() if "REGRESSED" in line and "one row" in line and "-10.0%" in line]
    assert "1 of 2 ratios" in text
    assert run(worse, baseline)[0] == 0, "what became better is no regression"
    assert run(baseline, worse, threshold=0.11)[0] == 0


def test_folders_are_compared_too_and_the_same_result_never_fails(tmp_path: Path) -> None:
    result(tmp_path / "a", ("one row", 3.0))
    assert run(tmp_path / "a", tmp_path / "a", threshold=0)[0] == 0


def test_a_fall_within_noise_passes(tmp_path: Path) -> None:
    noisy = (2.0, 4.0, 3.0, 2.2, 3.8, 3.0, 2.5)
    baseline = result(tmp_path / "a", ("one row", 3.0), repeats=noisy)
    worse = result(tmp_path / "b", ("one row", 2.7), repeats=noisy)
    assert run(baseline, worse)[0] == 0
    assert run(baseline, result(tmp_path / "c", ("one row", 0.5), repeats=noisy))[0] == 1


def test_absolute_times_are_never_compared(tmp_path: Path) -> None:
    for folder, value in (("a", 1.0), ("b", 99.0)):
        report = harness.Report("scoring", "How fast?")
        report.figure("one row, ours", value, "us")
        report.figure("one row", 3.0, "x")
        harness.write_result(report.to_dict(), tmp_path / folder)
    code, text = run(tmp_path / "a", tmp_path / "b")
    assert code == 0
    assert "ours" not in text


def test_a_ratio_that_should_be_small_regresses_upwards(tmp_path: Path) -> None:
    low, high = (result(tmp_path / str(value), ("memory", value), at_most=2.0) for value in (1.0, 1.2))
    assert run(low, high)[0] == 1
    assert run(high, low)[0] == 0


def test_what_only_one_side_has_is_told_and_does_not_fail(tmp_path: Path) -> None:
    code, text = run(result(tmp_path / "a", ("old", 3.0), ("kept", 2.0)), result(tmp_path / "b", ("kept", 2.0)))
    assert code == 0
    assert "on one side only: scoring: old" in text


def test_another_machine_is_told(tmp_path: Path) -> None:
    first, second = result(tmp_path / "a", ("one row", 3.0)), result(tmp_path / "b", ("one row", 3.0))
    value = json.loads(second.read_text())
    value["machine"]["processor"] = "another"
    second.write_text(json.dumps(value))
    code, text = run(first, second)
    assert code == 0
    assert "different machines" in text


@pytest.mark.parametrize("content", [None, "", "[1]", '{"format": 99, "figures": []}', '{"format": 1}'])
def test_what_is_no_result_is_bad_input(tmp_path: Path, content: str | None) -> None:
    good, bad = result(tmp_path / "a", ("one row", 3.0)), tmp_path / "bad.json"
    if content is not None:
        bad.write_text(content)
    code, text = run(good, bad)
    assert code == 3
    assert "bad.json" in text
    assert "Traceback" not in text


def test_nothing_in_common_an_empty_folder_and_two_sizes_are_bad_input(tmp_path: Path) -> None:
    good = result(tmp_path / "a", ("one row", 3.0))
    (tmp_path / "empty").mkdir()
    assert run(good, tmp_path / "empty")[0] == 3
    assert run(good, result(tmp_path / "b", ("batch", 3.0)))[0] == 3
    value = json.loads(good.read_text()) | {"quick": True}
    (tmp_path / "quick.json").write_text(json.dumps(value))
    code, text = run(good, tmp_path / "quick.json")
    assert code == 3
    assert "quick" in text


@given(st.floats(0.01, 1e4), st.floats(0.01, 1e4), st.floats(0, 1))
def test_a_regression_is_always_a_loss_beyond_the_threshold(before: float, after: float, threshold: float) -> None:
    pair = [{"scoring": {"figures": [{"name": "r", "unit": "x", "value": value}]}} for value in (before, after)]
    (ratio,), lonely = compare(*pair)
    assert isinstance(ratio, Ratio)
    assert lonely == []
    assert not (ratio.regressed(threshold) and after >= before)
    if after < before * (1 - threshold) * (1 - 1e-9):
        assert ratio.regressed(threshold)

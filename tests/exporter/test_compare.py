"""exporter compare: which specifications are tried, what they are judged by, and what it leaves behind."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from exporter.cli import run_command
from exporter.config import (
    LABELLED,
    CompareSpec,
    DataSpec,
    DetectorSpec,
    FeatureSpec,
    ModelSpec,
    TrainSpec,
    WindowSpec,
    load_spec,
)
from exporter.dataset import FAULTY, HEALTHY, UNLABELLED, Device, Fleet
from exporter.errors import SpecError, TelemetryError
from exporter.evidence.faults import KINDS
from exporter.evidence.gathering import gather_evidence
from exporter.evidence.grid import FAMILIES, describe, grid
from exporter.evidence.ranking import compare_specs, read_columns
from exporter.evidence.trial import run_trial

DATA = DataSpec(Path("readings.parquet"), None, "device_id", "timestamp", None, ("heat", "load"), ("mode",))
# The own detector again: no other family is tried, which would take longer.
SMALL = CompareSpec(
    (DetectorSpec(trees=20),),
    windows=(1, 6),
    statistics=(("last", "mean"), ("last", "mean:3", "std")),
    context=(True, False),
)
SPEC = ModelSpec(
    "pumps",
    DATA,
    window=WindowSpec(slots=4),
    features=FeatureSpec(("last", "mean")),
    detector=DetectorSpec(trees=20),
    compare=SMALL,
)


def fleet(*, labels: bool, devices: int = 6, readings: int = 400, seed: int = 0) -> Fleet:
    """Pumps that run in two modes; every one has its heat off by a little for the last fifth of its readings."""
    rng = np.random.default_rng(seed)
    made = []
    for number in range(devices):
        mode = (np.arange(readings) // 20) % 2
        heat = 20.0 * mode + rng.normal(0, 1, readings)
        load = 5.0 * mode + rng.normal(0, 1, readings)
        label = np.full(readings, HEALTHY if labels else UNLABELLED, np.int8)
        if labels:
            faulty = np.arange(readings) >= 0.8 * readings
            heat += np.where(faulty, 3.0, 0.0)
            label[faulty] = FAULTY
        values = np.column_stack([heat, load, mode]).astype(np.float32)
        times = np.arange(readings, dtype=np.int64) * 60_000
        made.append(Device(f"d{number}", "ab"[number % 2], times, values, label))
    return Fleet(tuple(made), DATA.columns, labels, devices * readings, {}, "0" * 64, ())


def test_the_grid_is_every_combination_once_with_the_present_settings_first() -> None:
    specs = list(grid(SPEC))
    assert specs[0] is SPEC
    found = {(one.window.slots, one.features.statistics, one.data.context) for one in specs[1:]}
    assert found == {
        (slots, statistics, context)
        for slots, statistics in [(1, ("last",)), (6, ("last", "mean")), (6, ("last", "mean:3", "std"))]
        for context in [("mode",), ()]
    }
    assert len(specs) == 7
    without = next(one for one in specs if not one.data.context)
    assert without.data.signals == ("heat", "load", "mode"), "context that is not used is judged as any signal"
    assert len({describe(one) for one in specs}) == len(specs)


def test_other_detectors_come_after_the_own_and_statistics_must_fit_the_window() -> None:
    hybrid = DetectorSpec("hybrid", trees=7, seed=9)
    wanted = CompareSpec((hybrid,), (3,), (("last",), ("mean:3",), ("mean:2",)), (True,))
    specs = list(grid(replace(SPEC, compare=wanted)))[1:]
    assert [(one.detector.kind, one.detector.trees, one.features.statistics) for one in specs] == [
        (kind, trees, statistics)
        for kind, trees in (("isolation_forest", 20), ("hybrid", 7))
        for statistics in [("last",), ("mean:2",)]
    ]
    assert {one.detector.seed for one in specs} == {0}, "one seed for all"


def test_without_a_list_there_is_one_of_each_family() -> None:
    spec = replace(SPEC, detector=DetectorSpec("hybrid"), compare=CompareSpec(windows=(1,)))
    assert {one.detector.kind for one in grid(spec)} == {"hybrid", *(family.kind for family in FAMILIES)}
    assert [one.detector for one in grid(replace(SPEC, compare=CompareSpec(windows=(1,))))][:2] == [SPEC.detector] * 2


def test_labels_judge_where_there_are_any_and_context_wins_here() -> None:
    comparison = compare_specs(list(grid(SPEC)), fleet(labels=True))
    assert comparison.by == "labels"
    assert comparison.winner.spec.data.context == ("mode",)
    assert comparison.winner.quality > 0.95
    qualities = [round(trial.quality, 3) for trial in comparison.trials]
    assert qualities == sorted(qualities, reverse=True)
    assert comparison.trials[comparison.present].spec is SPEC
    for trial, cost in zip(comparison.trials, comparison.costs, strict=True):
        assert cost is not None
        assert cost.bytes_deflated > 0
        assert cost.window_us[1] > 0
        assert trial.judged == comparison.winner.judged, "all are judged on the same readings"


def test_without_labels_injected_faults_judge() -> None:
    comparison = compare_specs(list(grid(SPEC))[:3], fleet(labels=False))
    assert comparison.by == "faults"
    for trial in comparison.trials:
        assert list(trial.faults) == list(KINDS)
        assert trial.quality == pytest.approx(
            np.mean([np.mean(list(sizes.values())) for sizes in trial.faults.values()])
        )
    without = next(trial for trial in comparison.trials if trial.spec.window.slots == 1)
    shift = without.faults["level_shift"]
    assert shift[4.0] >= shift[2.0] >= shift[1.0], "a larger fault is easier"
    assert shift[4.0] > 0.8


def test_a_trial_is_a_pure_function() -> None:
    evidence = gather_evidence([SPEC], fleet(labels=False), each="fleet", by=None, notes=[])
    first, second = run_trial(SPEC, evidence), run_trial(SPEC, evidence)
    assert first.faults == second.faults
    assert first.graph == second.graph


def test_a_specification_that_cannot_be_trained_is_shown_and_ends_nothing() -> None:
    specs = [SPEC, replace(SPEC, features=FeatureSpec(("men",))), replace(SPEC, window=WindowSpec(slots=4000))]
    comparison = compare_specs(specs, fleet(labels=True))
    assert [trial.refused != "" for trial in comparison.trials] == [False, True, True]
    assert "men" in comparison.trials[1].refused or "men" in comparison.trials[2].refused
    value = json.loads(json.dumps(comparison.to_dict(), allow_nan=False))
    assert [trial["rank"] for trial in value["trials"]] == [1, 2, 3]
    assert "bytes_deflated" not in value["trials"][2]
    with pytest.raises(TelemetryError, match="None of 1 specifications can be trained"):
        compare_specs(specs[2:], fleet(labels=True), by="faults")


@pytest.mark.parametrize(("each", "parts"), [("cohort", ["a", "b"]), ("device", [f"d{k}" for k in range(6)])])
def test_a_model_for_each_part_and_the_mean_of_them(each: Any, parts: list[str]) -> None:
    # Every device has both: unlabelled readings to train on, and labelled ones to judge by.
    whole = fleet(labels=True)
    devices = []
    for device in whole.devices:
        labels = device.labels.copy()
        labels[:240] = UNLABELLED
        devices.append(replace(device, labels=labels))
    spec = replace(SPEC, train=TrainSpec(LABELLED))
    comparison = compare_specs([spec], replace(whole, devices=tuple(devices)), each=each)
    assert list(comparison.winner.parts) == parts
    assert comparison.winner.quality == pytest.approx(np.mean(list(comparison.winner.parts.values())))
    assert comparison.winner.quality > 0.9
    # 160 labelled readings, less the one that has to wait until half of its four slots are filled.
    assert comparison.winner.judged == (6 * 159, 6 * 80)


def test_a_hybrid_shares_what_all_cohorts_taught() -> None:
    spec = replace(SPEC, detector=DetectorSpec("hybrid", trees=20))
    comparison = compare_specs([SPEC, spec], fleet(labels=True, devices=12), each="cohort")
    assert not any(trial.refused for trial in comparison.trials)
    sizes = {trial.spec.detector.kind: len(trial.graph) for trial in comparison.trials}
    assert sizes["hybrid"] > 1.5 * sizes["isolation_forest"], "two forests in one"


def test_nothing_to_judge_by_is_said() -> None:
    with pytest.raises(TelemetryError, match="Nothing is held out"):
        compare_specs([replace(SPEC, train=TrainSpec("none"))], fleet(labels=True))
    with pytest.raises(TelemetryError, match="healthy and faulty"):
        compare_specs([SPEC], fleet(labels=False), by="labels")


def test_files_to_compare_must_read_the_same_telemetry() -> None:
    other = replace(SPEC, data=replace(DATA, signals=("heat", "volt"), context=()))
    assert read_columns([SPEC, other]).data.columns == ("heat", "load", "mode", "volt")
    with pytest.raises(SpecError, match="other telemetry"):
        read_columns([SPEC, replace(SPEC, data=replace(DATA, readings=Path("others.parquet")))])


def write_fleet(folder: Path, *, labels: bool) -> Path:
    """Write the pumps and a model.toml with comments."""
    folder.mkdir(exist_ok=True)
    made = fleet(labels=labels)
    frames = [
        pd.DataFrame(device.values, columns=list(DATA.columns)).assign(
            device_id=device.name,
            timestamp=pd.to_datetime(device.timestamps_ms, unit="ms", utc=True),
            label=device.labels,
        )
        for device in made.devices
    ]
    frame = pd.concat(frames)
    frame.drop(columns="label").to_parquet(folder / "readings.parquet")
    frame[["device_id", "timestamp", "label"]].to_parquet(folder / "labels.parquet")
    path = folder / "model.toml"
    path.write_text(
        "# Pumps of the north.\n"
        '[model]\nname = "pumps"\n'
        f'[data]\nreadings = "readings.parquet"\n{"labels = " + chr(34) + "labels.parquet" + chr(34) if labels else ""}\n'
        'signals = ["heat", "load"]  # of the motor\ncontext = ["mode"]\n'
        "[window]\nslots = 4\nminimum_readings = 2\n"
        "[detector]\ntrees = 20  # a small one\n"
        '[compare]\nwindows = [1, 6]\nstatistics = [["last", "mean"], ["last", "mean", "std"]]\n'
        "[[compare.detectors]]\ntrees = 20\n"
    )
    return path


def test_the_command_writes_table_plot_and_the_winning_settings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_fleet(tmp_path / "pumps", labels=True)
    out = tmp_path / "elsewhere" / "out"
    assert run_command(["compare", "--config", str(config), "--out", str(out), "--plot", "svg", "--json"]) == 0
    value = json.loads(capsys.readouterr().out)
    best = value["trials"][0]
    assert json.loads((out / "compare.json").read_text())["trials"][0]["auc"] == best["auc"]
    assert (out / "compare.svg").read_text().lstrip().startswith("<?xml")
    text = (out / "model.toml").read_text()
    for comment in ("# Pumps of the north.", "# of the motor", "# a small one"):
        assert comment in text
    won = load_spec(out / "model.toml")
    assert (won.window.slots, list(won.features.statistics)) == (best["slots"], best["statistics"])
    assert list(won.data.context) == best["context"]
    assert won.data.readings.samefile(tmp_path / "pumps" / "readings.parquet")
    assert won.compare == load_spec(config).compare


def test_the_command_shows_faults_by_kind_and_what_was_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_fleet(tmp_path, labels=False)
    other = tmp_path / "other.toml"
    other.write_text(config.read_text() + "[features]\nstatistics = ['men']\n")
    assert run_command(["compare", "--config", str(config), "--spec", str(other)]) == 0
    printed = capsys.readouterr().out
    for part in ("injected faults", "(present)", "level_shift", "- isolation_forest (trees 20), 4 slots, men"):
        assert part in printed
    assert not (tmp_path / "compare.json").exists(), "nothing is written without --out"


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--config", "missing.toml"], 3, "Cannot read"),
        (["--out", "."], 3, "would replace"),
        (["--each", "galaxy"], 2, "galaxy"),
        (["--by", "labels"], 3, "healthy and faulty"),
    ],
)
def test_what_cannot_be_compared_is_said_before_anything_is_written(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    says: str,
) -> None:
    write_fleet(tmp_path, labels=False)
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    assert run_command(["compare", *arguments]) == code
    assert says in capsys.readouterr().err
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("windows = []", "compare.windows must name at least one"),
        ("windows = [1.5]", "compare.windows must be a list of whole numbers"),
        ("windows = [9000]", "from 1 to 4096"),
        ("statistics = ['mean']", "list of lists of texts"),
        ("statistics = [[]]", "list of lists of texts"),
        ("context = [1]", "list of true and false"),
        ("detectors = [3]", "must be tables"),
        ("[[compare.detectors]]\nkind = 'forest'", "detectors.*kind is 'forest'"),
        ("window = [3]", "is not a setting.*windows"),
    ],
)
def test_a_wrong_grid_is_refused(tmp_path: Path, change: str, says: str) -> None:
    path = tmp_path / "model.toml"
    path.write_text(f'[model]\nname = "m"\n[data]\nreadings = "r"\nsignals = ["a"]\n[compare]\n{change}\n')
    with pytest.raises(SpecError, match=says):
        load_spec(path)


def test_detectors_of_the_grid_are_tables_like_the_own(tmp_path: Path) -> None:
    path = tmp_path / "model.toml"
    path.write_text(
        '[model]\nname = "m"\n[data]\nreadings = "r"\nsignals = ["a"]\n'
        '[[compare.detectors]]\nkind = "hybrid"\ntrees = 9\n[[compare.detectors]]\nmax_features = 0.5\n'
    )
    assert load_spec(path).compare.detectors == (DetectorSpec("hybrid", trees=9), DetectorSpec(max_features=0.5))


def test_refused_trials_have_no_figure() -> None:
    evidence = gather_evidence([SPEC], fleet(labels=True), each="fleet", by=None, notes=[])
    trial = run_trial(replace(SPEC, features=FeatureSpec(("men",))), evidence)
    assert math.isnan(trial.quality)
    assert "auc" not in trial.to_dict()

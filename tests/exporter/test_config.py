"""model.toml: defaults, and every way it can be wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from exporter.config import GoalSpec, ProofSpec, load_spec
from exporter.errors import SpecError

LEAST = '[model]\nname = "m"\n[data]\nreadings = "r.parquet"\nsignals = ["a", "b", "c"]\n'


def load(tmp_path: Path, text: str):
    path = tmp_path / "model.toml"
    path.write_text(text)
    return load_spec(path)


def test_the_least_that_is_needed(tmp_path: Path) -> None:
    spec = load(tmp_path, LEAST)
    assert spec.data.readings == tmp_path / "r.parquet"
    assert (spec.data.device, spec.data.time, spec.data.cohort, spec.data.labels) == (
        "device_id",
        "timestamp",
        None,
        None,
    )
    assert (spec.window.slots, spec.features.statistics, spec.detector.trees) == (12, ("last", "mean"), 200)
    assert (spec.calibration.alarms_per_device_day, spec.train.holdout) == (0.02, "every-second-device")
    assert (spec.release.channels, spec.release.precision, spec.release.cohorts) == (("stable",), "auto", True)
    json.dumps(spec.to_dict())


def test_goals_and_more_data_to_prove_on(tmp_path: Path) -> None:
    assert load(tmp_path, LEAST).goals == GoalSpec()
    more = "".join(f"[[prove]]\nname = '{name}'\nreadings = '{name}.csv'\n" for name in ("winter", "summer"))
    spec = load(tmp_path, LEAST + "[goals]\nlabel_flips = 0.01\nbatch = 100\nprefer = 'fastest'\n" + more)
    assert spec.goals == GoalSpec(label_flips=0.01, batch=100, prefer="fastest")
    assert spec.prove == (
        ProofSpec("winter", tmp_path / "winter.csv"), ProofSpec("summer", tmp_path / "summer.csv")
    )  # fmt: skip
    assert spec.to_dict()["prove"][0] == {"name": "winter", "readings": "winter.csv", "labels": None}


def test_context_comes_after_the_signals(tmp_path: Path) -> None:
    spec = load(tmp_path, LEAST + 'context = ["b"]\nunits = {a = "V", b = "C"}\n')
    assert (spec.data.signals, spec.data.columns) == (("a", "c"), ("a", "c", "b"))
    assert spec.data.units["a"] == "V"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("[detectr]\ntrees = 3\n", r"detectr is not a setting.*'detector'"),
        ("[detector]\ntreees = 3\n", r"detector\.treees is not a setting.*'trees'"),
        ("[detector]\ntrees = 0\n", r"detector\.trees is 0 and must be from 1"),
        ("[detector]\ntrees = 2.5\n", "whole number"),
        ("[detector]\ntrees = true\n", "must be a number"),
        ('[detector]\nkind = "isolation_forrest"\n', "'isolation_forest'"),
        ("[window]\nslots = 4\nminimum_readings = 5\n", "from 1 to 4"),
        ("[calibration]\nthreshold = 1.5\n", "from 0 to 1"),
        ("[calibration]\nalarms_per_device_day = 0\n", "at least"),
        ('[train]\nholdout = "half"\n', "list of device ids"),
        ('[release]\nchannels = ["Stable!"]\n', "no name"),
        ("[release]\nchannels = []\n", "at least one channel"),
        ('[release]\nprecision = "int4"\n', "precision"),
        ("[features]\nstatistics = []\n", "at least one statistic"),
        ("[detector]\ncohort_weight = 1\n", r"cohort_weight is 1 and must be from 0.01 to 0.99"),
        ("[goals]\nbatch = 10\n", "batch is 10.*1, 100, 10000"),
        ("[goals]\nslowdown = 0.5\n", "slowdown is 0.5 and must be at least 1"),
        ('[goals]\nprefer = "best"\n', "smallest"),
        ("[prove]\nname = 'x'\n", r"begun with \[\[prove\]\]"),
        ("[[prove]]\nname = 'x'\n", r"prove\[0\].readings is missing"),
        ("[[prove]]\nname = 'held out'\nreadings = 'w.csv'\n", "which another data set has"),
        ("[[prove]]\nname = 'x'\nreadings = 'w.csv'\nlabel = 'l.csv'\n", r"prove\[0\].label is not a setting"),
        ("window = 3\n[x]\n", "not TOML|is not a setting|must be a table"),
        ("[model\n", "not TOML"),
    ],
)
def test_settings_that_are_refused(tmp_path: Path, change: str, says: str) -> None:
    with pytest.raises(SpecError, match=says) as caught:
        load(tmp_path, LEAST + change)
    assert caught.value.exit_code == 3


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "model.name is missing"),
        ('[model]\nname = "m"\n', "data.signals is missing|data.readings is missing"),
        ('[model]\nname = "My Model"\n', "no name"),
        (LEAST.replace('["a", "b", "c"]', "[]"), "at least one signal"),
        (LEAST.replace('"c"', '"a"'), "names a column twice"),
        (LEAST.replace('"c"', '"timestamp"'), "device, time or cohort"),
        (LEAST + 'units = {d = "V"}\n', r"units\.d is no signal"),
    ],
)
def test_data_that_is_refused(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(SpecError, match=says):
        load(tmp_path, text)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="exporter init"):
        load_spec(tmp_path / "model.toml")

"""The sides of the scoring benchmark are found, made and watched; those that fail end no run. No time is asserted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import joblib
import numpy as np
import pytest
from sklearn.ensemble import IsolationForest

from benchmarks import gpu, scoring
from benchmarks.harness import Report
from benchmarks.scorers import KINDS, OURS, RIVALS
from benchmarks.scoring_child import in_child
from exporter import latency
from exporter.detectors.forest import FittedForest
from exporter.detectors.protocol import Candidate
from exporter.graph.path_forest import flatten_forest

ROWS = np.random.default_rng(0).normal(size=(400, scoring.FEATURES)).astype(np.float32)


@pytest.fixture(scope="module")
def forest() -> IsolationForest:
    return IsolationForest(n_estimators=5, random_state=0).fit(ROWS)


def test_every_form_that_the_detector_offers_is_a_side(forest: IsolationForest, tmp_path: Path) -> None:
    sides = list(scoring._ours(forest, ROWS, tmp_path))
    offered = FittedForest(forest, flatten_forest(forest)).candidates(ROWS)
    assert [side.name for side in sides] == [scoring.EXACT, *(f"ours {one.name}" for one in offered)]
    report = Report("scoring", "?")
    scoring._agreement(report, sides, ROWS, -forest.score_samples(ROWS))
    differences = [figure["value"] for figure in report.to_dict()["figures"]]
    assert differences[0] < 1e-6
    assert max(differences) < 0.1


def test_a_form_of_tomorrow_appears_by_itself(forest: IsolationForest, tmp_path: Path, monkeypatch) -> None:
    def more(self: FittedForest, features: object) -> Iterator[Candidate]:
        yield Candidate("int4", "int8", self.add_to, "The same under another name.")

    monkeypatch.setattr(FittedForest, "candidates", more)
    assert [side.name for side in scoring._ours(forest, ROWS, tmp_path)] == ["ours fp32", "ours int4"]


def test_a_side_that_fails_is_left_out_and_told(forest: IsolationForest, tmp_path: Path, monkeypatch) -> None:
    np.save(tmp_path / "training.npy", ROWS)
    report = Report("scoring", "?")
    answers = {"scikit-learn": {"convert": 0.1, "load": 0.2}}
    monkeypatch.setattr(scoring, "in_child", lambda what, kind, *rest: answers.get(kind, "ModuleNotFoundError: it"))
    sides = list(scoring._rivals(report, forest, tmp_path))
    assert [side.name for side in sides] == ["scikit-learn"]
    notes = report.to_dict()["notes"]
    assert sum("is missing from the table. It said: ModuleNotFoundError: it" in note for note in notes) == 4


def test_a_child_makes_loads_and_is_watched_or_says_why_not(forest: IsolationForest, tmp_path: Path) -> None:
    joblib.dump(forest, tmp_path / "forest.joblib")
    np.save(tmp_path / "rows.npy", ROWS)
    made = in_child("make", "scikit-learn", tmp_path / "forest.joblib", tmp_path / "rows.npy", tmp_path / "made.joblib")
    assert isinstance(made, dict)
    assert min(made.values()) > 0
    memory = in_child("memory", "scikit-learn", tmp_path / "made.joblib", tmp_path / "rows.npy", "1,100")
    assert isinstance(memory, dict)
    assert memory["before"] < memory["loaded"] <= memory["peaks"][0] <= memory["peaks"][1]
    complaint = in_child("memory", "scikit-learn", tmp_path / "none.joblib", tmp_path / "rows.npy", "1")
    assert isinstance(complaint, str)
    assert complaint.startswith("FileNotFoundError")


def test_no_call_of_a_turn_sees_the_rows_of_another() -> None:
    seen: list[bytes] = []
    turn = scoring._turn("one", lambda rows: seen.append(rows.tobytes()), ROWS, 2, 1)
    seen.clear()
    for number in range(1, 50):
        turn.call(number)
    assert len(set(seen)) == 49
    assert 1 <= turn.calls <= scoring.MOST_CALLS


def test_forms_are_measured_where_there_is_a_gpu_and_a_note_stands_for_them_elsewhere(monkeypatch) -> None:
    monkeypatch.setattr(latency, "SECONDS", 0.001)
    report = Report("gpu", "?", quick=True)
    monkeypatch.setitem(latency.PROVIDERS, "cuda", "NoSuchProvider")
    gpu.run(report, quick=True)
    assert "Not measured" in report.to_dict()["notes"][0]
    monkeypatch.setitem(latency.PROVIDERS, "cuda", "CPUExecutionProvider")  # stands in: there is no GPU here
    gpu.run(report, quick=True)
    (table,) = report.to_dict()["tables"]
    assert [row[0] for row in table["rows"]][:2] == ["fp32, cuda", "fp32, cpu"]
    assert all(value > 0 for row in table["rows"] for value in row[1:])
    assert any("fp32 on cuda: the CPU ran" in note and "TreeEnsemble" in note for note in report.to_dict()["notes"])


def test_every_rival_says_what_it_is() -> None:
    assert set(KINDS) == {OURS, *RIVALS}
    assert all(KINDS[kind].about.endswith(".") and KINDS[kind].file for kind in RIVALS)

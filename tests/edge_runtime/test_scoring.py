"""The scorer over a graph made by hand: shapes, blocks, golden windows, and every way a model can be bad."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from simulators.bundles import small_graph
from simulators.edge_models import tiny_golden, tiny_model

from edge_runtime import scoring
from edge_runtime.contract.golden import GoldenSpec
from edge_runtime.errors import ScoringError
from edge_runtime.scoring import Scorer, check_golden


@pytest.fixture(scope="module")
def scorer() -> Scorer:
    return Scorer(tiny_model())


@pytest.fixture
def windows() -> np.ndarray:
    generator = np.random.default_rng(0)
    result = generator.normal(0, 1.2, (700, 4, 2)).astype(np.float32)
    result[generator.random(result.shape) < 0.1] = np.nan
    return result


def test_verdicts_have_one_entry_a_window(scorer: Scorer) -> None:
    verdicts = scorer.score(np.float32([[[2, 2]] * 4, [[0.1, np.nan]] * 4, [[np.nan, np.nan]] * 4]))
    assert verdicts.raw_score == pytest.approx([2, 0.1, 0])
    assert verdicts.anomaly_score == pytest.approx([2 / 3, 0.1 / 1.1, 0])
    assert verdicts.is_anomaly.tolist() == [True, False, False]


def test_blocks_change_nothing(scorer: Scorer, windows: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = scorer.score(windows)
    monkeypatch.setattr(scoring, "BLOCK", 1)
    alone = scorer.score(windows)
    assert (whole.raw_score == alone.raw_score).all()
    assert scorer.features(windows).shape == (700, 1)


def test_a_model_from_a_file(tmp_path: Path, windows: np.ndarray) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(tiny_model(context=True))
    scorer = Scorer(path)
    with_context = np.concatenate([windows[:5], np.float32(np.ones((5, 4, 1)))], axis=2)
    assert scorer.regimes(with_context).tolist() == [[1, 1, 1, 1]] * 5


@pytest.mark.parametrize("data", [b"", b"no model", tiny_model()[:200]])
def test_a_model_that_cannot_be_loaded(data: bytes) -> None:
    with pytest.raises(ScoringError) as caught:
        Scorer(data)
    assert caught.value.reason == "model_unloadable"
    assert caught.value.exit_code == 7


def test_a_missing_model_file(tmp_path: Path) -> None:
    with pytest.raises(ScoringError, match="cannot be read"):
        Scorer(tmp_path / "model.onnx")


def test_another_shape_or_output_is_refused(scorer: Scorer) -> None:
    with pytest.raises(ScoringError, match="shape"):
        scorer.score(np.zeros((1, 4, 3), np.float32))
    with pytest.raises(ScoringError, match="no output 'regime'"):
        scorer.regimes(np.zeros((1, 4, 2), np.float32))


def test_a_score_that_is_no_number_is_refused(scorer: Scorer) -> None:
    with pytest.raises(ScoringError) as caught:
        scorer.score(np.full((1, 4, 2), np.inf, np.float32))
    assert caught.value.reason == "not_finite"


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_scores_that_are_no_numbers_are_refused_by_every_way_in(bad: float) -> None:
    scorer = Scorer(small_graph(4, 2, bad, 1.0))
    windows = np.zeros((3, 4, 2), np.float32)
    for call in (scorer.score, scorer.raw_scores):
        with pytest.raises(ScoringError, match="no number") as caught:
            call(windows)
        assert (caught.value.reason, caught.value.exit_code) == ("not_finite", 7)


def test_golden_windows_pass_and_fail(scorer: Scorer, windows: np.ndarray) -> None:
    spec, blob = tiny_golden(windows[:32])
    check_golden(scorer, spec, blob)
    numbers = np.frombuffer(blob, "<f4").copy()
    tensor = {t.name: t.offset // 4 for t in spec.tensors}
    shifted, flipped, broken = numbers.copy(), numbers.copy(), numbers.copy()
    shifted[tensor["raw_score"]] += 1e-3
    flipped[tensor["is_anomaly"]] = 1 - flipped[tensor["is_anomaly"]]
    broken[tensor["raw_score"]] = np.nan
    for other in (shifted, flipped, broken):
        with pytest.raises(ScoringError, match="golden windows") as caught:
            check_golden(scorer, spec, other.tobytes())
        assert caught.value.reason == "golden_failed"
    with pytest.raises(ScoringError, match="bytes instead of"):
        check_golden(scorer, spec, blob[:-4])
    with pytest.raises(ScoringError, match="shape"):
        check_golden(scorer, GoldenSpec(32, 2, 4), blob)

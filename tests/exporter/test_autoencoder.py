"""The autoencoder scores as its graph does, finds what it should, and takes any telemetry."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

from exporter.config import DetectorSpec
from exporter.detectors import autoencoder, make_detector
from exporter.detectors.autoencoder import FittedAutoencoder
from exporter.detectors.protocol import AddDetector, graph_scores
from exporter.graph.nodes import GraphBuilder, tensor_info
from exporter.graph.running import Graph

SPEC = DetectorSpec(kind="autoencoder", epochs=15)
F = 12


def windows(n: int, *, seed: int = 0, features: int = F) -> np.ndarray:
    """Healthy features that follow three hidden causes, on scales from a thousandth to a million."""
    mixing = np.random.default_rng(99).normal(size=(3, features))
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(n, 3)) @ mixing + 0.2 * rng.normal(size=(n, features))
    return (values * np.logspace(-3, 6, features) + np.logspace(-3, 6, features)).astype(np.float32)


def broken(rows: np.ndarray) -> np.ndarray:
    """The same with two values of each row taken from other rows: possible alone, not together."""
    rows = rows.copy()
    rows[:, [2, 7]] = np.roll(rows[:, [2, 7]], 11, axis=0)
    return rows


def holed(rows: np.ndarray, share: float = 0.1) -> np.ndarray:
    return np.where(np.random.default_rng(3).random(rows.shape) < share, np.float32(np.nan), rows)


def model_of(add: AddDetector, features: int = F) -> onnx.ModelProto:
    graph = GraphBuilder()
    add(graph, "X", "score")
    infos = [tensor_info("X", np.float32, ("n", features))], [tensor_info("score", np.float32, ("n", 1))]
    return graph.model("detector", *infos)


def fit(rows: np.ndarray, **changes: object) -> FittedAutoencoder:
    fitted = make_detector(replace(SPEC, **changes)).fit(rows)
    assert isinstance(fitted, FittedAutoencoder)
    return fitted


@pytest.fixture(scope="module")
def fitted() -> FittedAutoencoder:
    return fit(windows(3000))


def test_graph_and_scikit_learn_agree(fitted: FittedAutoencoder) -> None:
    rows = np.concatenate([windows(500, seed=1), broken(windows(500, seed=2)), holed(windows(500, seed=3))])
    scores = fitted.raw_scores(rows)
    assert scores.shape == (1500,)
    assert 0 <= scores.min() <= scores.max() <= 1
    np.testing.assert_allclose(graph_scores(fitted, rows), scores, rtol=0, atol=1e-5)
    onnx.checker.check_model(model_of(fitted.add_to), full_check=True)


def test_a_window_scores_the_same_alone_and_in_a_block(fitted: FittedAutoencoder) -> None:
    rows = holed(windows(300, seed=4), 0.02)
    graph = Graph(model_of(fitted.add_to))
    alone = np.concatenate([graph.run(rows[k : k + 1], ["score"])[0] for k in range(len(rows))])
    np.testing.assert_allclose(alone, graph.run(rows, ["score"])[0], rtol=0, atol=1e-6)


def test_it_finds_values_that_do_not_go_together(fitted: FittedAutoencoder) -> None:
    healthy, faulty = windows(1000, seed=5), broken(windows(1000, seed=6))
    rows, labels = np.concatenate([healthy, faulty]), np.repeat([0, 1], 1000)
    assert roc_auc_score(labels, fitted.raw_scores(rows)) > 0.85
    assert roc_auc_score(labels, fitted.raw_scores(holed(rows))) > 0.7


def test_missing_values_alone_are_no_anomaly() -> None:
    fitted = fit(holed(windows(3000)))
    rows = windows(1000, seed=7)
    whole, with_holes = fitted.raw_scores(rows), fitted.raw_scores(holed(rows))
    assert abs(np.median(with_holes) - 0.5) < 0.1
    assert abs(np.median(with_holes) - np.median(whole)) < 0.3


def test_a_window_without_any_value_says_nothing(fitted: FittedAutoencoder) -> None:
    rows = np.full((3, F), np.nan, np.float32)
    np.testing.assert_allclose(fitted.raw_scores(rows), 0.5, atol=1e-12)
    np.testing.assert_array_equal(graph_scores(fitted, rows), np.float32(0.5))


@pytest.mark.parametrize("sign", [1, -1])
def test_extreme_values_keep_their_rank_and_never_give_nan(fitted: FittedAutoencoder, sign: int) -> None:
    rows = np.repeat(windows(1, seed=8), 7, axis=0)
    rows[1:, 0] = sign * np.array([1e-1, 1e1, 1e3, 1e15, 1e30, np.finfo(np.float32).max], np.float32)
    for scores in (fitted.raw_scores(rows), graph_scores(fitted, rows)):
        assert (np.diff(scores) >= 0).all()
        assert (np.diff(scores[:5]) > 0).all()
        assert scores[-1] == pytest.approx(1)


def test_heavy_tails_destroy_neither_training_nor_integer_forms() -> None:
    rng = np.random.default_rng(9)
    rows = windows(3000)
    rows[:, 4] = np.exp(6 * rng.normal(size=3000))
    rows[:, 5] = np.where(rng.random(3000) < 0.002, 1e13, 0)
    fitted = fit(rows)
    judged = np.concatenate([rows[:1000], broken(rows[:1000])])
    labels = np.repeat([0, 1], 1000)
    exact = graph_scores(fitted, judged)
    assert roc_auc_score(labels, exact) > 0.7
    (form,) = (c for c in fitted.candidates(rows) if c.name == "int8 static per channel minmax")
    small = Graph(model_of(form.add)).run(judged, ["score"])[0][:, 0]
    assert spearmanr(exact, small).statistic > 0.99
    assert roc_auc_score(labels, small) > 0.7


def test_constant_and_missing_columns_are_harmless() -> None:
    rows = windows(500)
    rows[:, 0], rows[:, 1] = 7.0, np.nan
    fitted = fit(rows)
    np.testing.assert_allclose(graph_scores(fitted, rows), fitted.raw_scores(rows), rtol=0, atol=1e-5)
    changed = rows.copy()
    changed[:, 0] = 9.0
    assert np.median(fitted.raw_scores(changed)) > np.median(fitted.raw_scores(rows)) + 0.2


@settings(max_examples=15, deadline=None)
@given(
    n=st.integers(1, 30),
    features=st.integers(1, 5),
    share=st.sampled_from([0.0, 0.4, 1.0]),
    hidden=st.sampled_from([(), (2,), (3, 1, 3)]),
)
def test_any_few_windows_can_be_trained_on(n: int, features: int, share: float, hidden: tuple[int, ...]) -> None:
    rows = holed(windows(n, features=features), share)
    fitted = fit(rows, hidden=hidden, epochs=2)
    scores = fitted.raw_scores(rows)
    assert np.isfinite(scores).all()
    np.testing.assert_allclose(graph_scores(fitted, rows), scores, rtol=0, atol=1e-5)


def test_the_same_seed_gives_the_same_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(autoencoder, "TRAINING_ROWS", 400)  # so that rows are sampled as well
    rows = windows(1000)

    def content(seed: int) -> list[bytes]:
        fitted = fit(rows, seed=seed, epochs=3)
        forms = [fitted.add_to, *(candidate.add for candidate in fitted.candidates(rows))]
        return [model_of(add).SerializeToString() for add in forms]

    first = content(1)
    assert len(set(first)) == len(first)
    assert content(1) == first
    assert content(2)[0] != first[0]


def test_candidates_are_integer_and_near(fitted: FittedAutoencoder) -> None:
    rows = np.concatenate([windows(1000, seed=10), broken(windows(1000, seed=11))])
    exact = graph_scores(fitted, rows)
    candidates = list(fitted.candidates(windows(3000)))
    assert len({candidate.name for candidate in candidates}) == len(candidates) == 7
    for candidate in candidates:
        assert candidate.precision == "int8"
        assert candidate.float_nodes == ("Relu layer0",)
        assert "Scaling and error stay float" in candidate.about
        model = model_of(candidate.add)
        assert {node.domain for node in model.graph.node} == {""}
        assert spearmanr(exact, Graph(model).run(rows, ["score"])[0][:, 0]).statistic > 0.97


def test_the_bottleneck_follows_from_the_features() -> None:
    shapes = {features: fit(windows(60, features=features), epochs=1).network for features in (1, 9, 300)}
    assert [network.layers[0].weights.shape for network in shapes.values()] == [(1, 1), (9, 5), (300, 64)]
    assert [layer.weights.shape for layer in fit(windows(60), hidden=(8, 2, 8), epochs=1).network.layers] == [
        (12, 8),
        (8, 2),
        (2, 8),
        (8, 12),
    ]

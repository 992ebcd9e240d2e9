"""The device's half on a graph that the exporter made: what one side writes, the other must read the same way."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from simulators.edge_models import tiny_manifest
from sklearn.ensemble import IsolationForest

from edge_runtime import scoring
from edge_runtime.contract.manifest import Manifest, Regimes, Signal
from edge_runtime.contract.window import WindowRule
from edge_runtime.explanation import CONTEXT, Explainer
from edge_runtime.scoring import Scorer
from exporter.calibration import fit_calibration
from exporter.graph.assembly import assemble
from exporter.graph.features import feature_model, plan_features
from exporter.graph.forest import add_forest
from exporter.graph.path_forest import flatten_forest
from exporter.graph.running import Graph

SLOTS, NAMES = 6, ("heat", "load", "noise", "draw")
REGIMES = Regimes(
    centroids=((-1.0, -1.0), (1.0, 1.0)),
    context_means=(50.0, 0.0),
    context_spreads=(10.0, 1.0),
    means=((20.0, 1.0, 0.0, 5.0), (60.0, 9.0, 0.0, 50.0)),
    spreads=((1.0, 0.1, 1.0, 0.5), (4.0, 1.0, 1.0, 5.0)),
)


@pytest.fixture(scope="module")
def healthy() -> np.ndarray:
    """(3000, 6, 6) windows that drift between the two regimes."""
    generator = np.random.default_rng(2)
    regime = (np.cumsum(generator.random((3000, SLOTS)) < 0.2, axis=1) + generator.integers(0, 2, (3000, 1))) % 2
    values = np.array(REGIMES.means)[regime] + np.array(REGIMES.spreads)[regime] * generator.normal(
        size=(3000, SLOTS, 4)
    )
    context = np.array(REGIMES.centroids)[regime] * REGIMES.context_spreads + REGIMES.context_means
    context += generator.normal(size=context.shape) * 0.2
    return np.concatenate([values, context], axis=2).astype(np.float32)


@pytest.fixture(scope="module")
def scorer(healthy: np.ndarray) -> Scorer:
    plan = plan_features(["last", "mean"], signals=NAMES, context=("speed", "mode"), slots=SLOTS)
    features = Graph(feature_model(plan, REGIMES)).run(healthy, ["features"])[0]
    forest = IsolationForest(n_estimators=60, random_state=0).fit(features)
    raw = -forest.score_samples(features)
    model = assemble(
        plan,
        REGIMES,
        lambda graph, names, name: add_forest(graph, flatten_forest(forest), names, name=name),
        fit_calibration(raw),
        float(np.quantile(raw, 0.99)),
    )
    return Scorer(model.SerializeToString())


@pytest.fixture(scope="module")
def explainer(scorer: Scorer, healthy: np.ndarray) -> Explainer:
    signals = [Signal(name, "", "signal") for name in NAMES] + [Signal(n, "", "context") for n in ("speed", "mode")]
    manifest: Manifest = replace(
        tiny_manifest(),
        signals=tuple(signals),
        window=WindowRule(SLOTS, 60_000, 600_000, 3),
        regimes=REGIMES,
        references=8,
    )
    return Explainer(scorer, manifest, healthy[:8].astype("<f4").tobytes())


def test_regimes_are_the_nearest_centroids(scorer: Scorer, healthy: np.ndarray) -> None:
    scaled = (healthy[..., 4:] - REGIMES.context_means) / REGIMES.context_spreads
    distances = ((scaled[..., None, :] - np.array(REGIMES.centroids)) ** 2).sum(axis=-1)
    assert (scorer.regimes(healthy) == distances.argmin(axis=-1)).all()


def test_windows_score_the_same_alone_and_in_blocks(
    scorer: Scorer, healthy: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    windows = healthy[:2000].copy()
    windows[np.random.default_rng(0).random(windows.shape) < 0.05] = np.nan
    together, features = scorer.score(windows), scorer.features(windows)
    monkeypatch.setattr(scoring, "BLOCK", 1)
    np.testing.assert_array_equal(scorer.features(windows), features)
    np.testing.assert_array_equal(scorer.score(windows).raw_score, together.raw_score)
    np.testing.assert_array_equal(scorer.score(windows).is_anomaly, together.is_anomaly)


@pytest.mark.parametrize("column", range(4))
def test_the_broken_signal_comes_first(scorer: Scorer, explainer: Explainer, healthy: np.ndarray, column: int) -> None:
    first = []
    for window in healthy[100:140]:
        broken = window.copy()
        regimes = scorer.regimes(broken[None])[0]
        broken[:, column] += 8 * np.array(REGIMES.spreads)[regimes, column]
        raw = float(scorer.score(broken[None]).raw_score[0])
        first.append(explainer.contributions(broken, raw)[0])
    assert sum(name == NAMES[column] and value > 0 for name, value in first) >= 39


def test_an_unseen_context_is_named(scorer: Scorer, explainer: Explainer, healthy: np.ndarray) -> None:
    strange = healthy[200].copy()
    strange[:, 4:] = [200.0, -12.0]  # nowhere near a regime
    regimes = scorer.regimes(strange[None])[0]
    strange[:, :4] = np.array(REGIMES.means)[regimes]  # and normal in the nearest one
    raw = float(scorer.score(strange[None]).raw_score[0])
    assert explainer.contributions(strange, raw)[0][0] == CONTEXT


def test_healthy_windows_have_small_contributions(scorer: Scorer, explainer: Explainer, healthy: np.ndarray) -> None:
    window = healthy[300]
    raw = float(scorer.score(window[None]).raw_score[0])
    assert all(abs(value) < 0.1 for _, value in explainer.contributions(window, raw))

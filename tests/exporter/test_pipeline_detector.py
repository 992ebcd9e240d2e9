"""Pipelines by import path: graph and scikit-learn say the same, one direction, and every refusal is a sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from exporter.cli import run_command
from exporter.config import DetectorSpec, StepSpec, load_spec
from exporter.detectors import graph_scores, make_detector
from exporter.detectors.pipeline import MOST_KEPT_ROWS, FittedForestPipeline, FittedPipeline
from exporter.errors import ConversionError, SpecError
from exporter.graph.nodes import GraphBuilder, tensor_info
from exporter.graph.running import Graph

ROWS, COLUMNS = 600, 5


def step(path: str, **parameters: Any) -> StepSpec:
    return StepSpec(f"sklearn.{path}", parameters)


SCALER = step("preprocessing.StandardScaler")
SVM = step("svm.OneClassSVM", nu=0.05)
DETECTORS = {
    "svm": (SCALER, SVM),
    "svm linear": (SCALER, step("svm.OneClassSVM", kernel="linear", nu=0.05)),
    "svm poly": (SCALER, step("svm.OneClassSVM", kernel="poly", degree=2, coef0=1.0, nu=0.05)),
    "svm sigmoid": (SCALER, step("svm.OneClassSVM", kernel="sigmoid", gamma=0.01, nu=0.05)),
    "svm unscaled": (SVM,),
    "sgd svm": (SCALER, step("linear_model.SGDOneClassSVM")),
    "envelope": (SCALER, step("covariance.EllipticEnvelope")),
    "factor": (SCALER, step("neighbors.LocalOutlierFactor", n_neighbors=15)),
    "factor manhattan": (SCALER, step("neighbors.LocalOutlierFactor", metric="manhattan")),
    "forest": (SCALER, step("ensemble.IsolationForest", n_estimators=40)),
    "forest alone": (step("ensemble.IsolationForest", n_estimators=40),),
    "pca": (SCALER, step("decomposition.PCA", n_components=3)),
    "pca unscaled": (step("decomposition.PCA", n_components=3, whiten=True),),
    "incremental pca": (SCALER, step("decomposition.IncrementalPCA", n_components=3)),
    "svd": (SCALER, step("decomposition.TruncatedSVD", n_components=3)),
    "mixture": (SCALER, step("mixture.GaussianMixture", n_components=2)),
    "bayesian mixture": (SCALER, step("mixture.BayesianGaussianMixture", n_components=2, max_iter=500)),
    "k-means": (SCALER, step("cluster.KMeans", n_clusters=8)),
    "robust": (step("preprocessing.RobustScaler", quantile_range=[5.0, 95.0]), SVM),
    "range": (step("preprocessing.MinMaxScaler"), SVM),
    "power": (step("preprocessing.PowerTransformer"), SVM),
    "power unscaled": (step("preprocessing.PowerTransformer", standardize=False), SVM),
    "quantile": (step("preprocessing.QuantileTransformer", n_quantiles=10), SVM),
    "imputer": (step("impute.SimpleImputer", strategy="median"), SCALER, SVM),
    "projection": (SCALER, step("decomposition.PCA", n_components=3, whiten=True), SVM),
}  # fmt: skip
# Kernels and boundaries without an inside call what lies far out on one side healthy; scikit-learn says so too.
ONE_SIDED = ("svm linear", "svm poly", "svm sigmoid", "sgd svm")


def healthy(seed: int = 0, rows: int = ROWS) -> np.ndarray:
    """Features of two regimes whose columns depend on each other, on scales from .001 to 1,000."""
    rng = np.random.default_rng(seed)
    hidden = rng.normal(size=(rows, 3)) + 3.0 * (rng.random((rows, 1)) < 0.4)
    X = hidden @ np.random.default_rng(7).normal(size=(3, COLUMNS)) + 0.3 * rng.normal(size=(rows, COLUMNS))
    return (X * np.logspace(-3, 3, COLUMNS) + 5.0).astype(np.float32)


def faulty(seed: int = 1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    X = healthy(seed, 80)
    spread = healthy().std(axis=0)
    return (X + spread * rng.choice([-6, 6], size=X.shape)).astype(np.float32)


def fit(*steps: StepSpec, X: np.ndarray | None = None, seed: int = 0) -> FittedPipeline | FittedForestPipeline:
    fitted = make_detector(DetectorSpec(kind="sklearn", steps=steps, seed=seed)).fit(healthy() if X is None else X)
    assert isinstance(fitted, FittedPipeline | FittedForestPipeline)
    return fitted


@pytest.mark.parametrize("name", DETECTORS)
def test_graph_and_scikit_learn_say_the_same(name: str) -> None:
    fitted = fit(*DETECTORS[name])
    normal, broken = healthy(2, 300), faulty()
    windows = np.concatenate([normal, broken])
    windows[::17, 2] = np.nan
    trained, graph = fitted.raw_scores(windows), graph_scores(fitted, windows)
    assert trained.min() >= 0
    assert trained.max() <= 1
    np.testing.assert_allclose(graph, trained, atol=1e-6, rtol=0)
    alone = np.concatenate([graph_scores(fitted, row[None]) for row in windows[:40]])
    np.testing.assert_allclose(alone, graph[:40], atol=1e-7, rtol=0)
    if name not in ONE_SIDED:
        assert np.median(trained[len(normal) :]) > np.quantile(trained[: len(normal)], 0.9)


def test_missing_values_become_the_training_median() -> None:
    X = healthy()
    X[::9, 1] = np.nan
    X[:, 3] = np.nan
    fitted = fit(SCALER, SVM, X=X)
    assert fitted.before.fill is not None
    assert fitted.before.fill[1] == np.nanmedian(X[:, 1])
    assert fitted.before.fill[3] == 0
    assert any("training median" in note for note in fitted.notes)
    filled = np.where(np.isnan(X), fitted.before.fill, X)
    np.testing.assert_array_equal(fitted.raw_scores(X), fitted.raw_scores(filled))
    np.testing.assert_array_equal(graph_scores(fitted, X), graph_scores(fitted, filled))


def test_pipelines_that_take_missing_values_get_them() -> None:
    assert fit(*DETECTORS["imputer"]).before.fill is None
    assert fit(*DETECTORS["forest"]).before.fill is None
    assert fit(*DETECTORS["forest"]).notes == ()


def test_estimators_that_keep_their_rows_get_a_sample_of_them() -> None:
    X = healthy(rows=2 * MOST_KEPT_ROWS + 100)
    fitted = fit(SCALER, step("neighbors.LocalOutlierFactor"), X=X)
    assert fitted.notes[-1] == "LocalOutlierFactor keeps its rows: trained on 2,000 of 4,100 windows."
    again = fit(SCALER, step("neighbors.LocalOutlierFactor"), X=X)
    np.testing.assert_array_equal(fitted.raw_scores(X[:50]), again.raw_scores(X[:50]))


def test_the_seed_reaches_steps_that_take_one() -> None:
    forest = step("ensemble.IsolationForest", n_estimators=10)
    same, other = fit(forest, seed=1), fit(forest, seed=2)
    X = healthy(3, 50)
    np.testing.assert_array_equal(fit(forest, seed=1).raw_scores(X), same.raw_scores(X))
    assert (same.raw_scores(X) != other.raw_scores(X)).any()
    given = step("ensemble.IsolationForest", n_estimators=10, random_state=1)
    np.testing.assert_array_equal(fit(given, seed=2).raw_scores(X), same.raw_scores(X))


def test_a_forest_at_the_end_has_its_smaller_forms() -> None:
    fitted, X = fit(*DETECTORS["forest"]), healthy(2, 200)
    forms = {one.name: one for one in fitted.candidates(X)}
    assert set(forms) == {"codebook8", "int8"}
    for form in forms.values():
        graph = GraphBuilder()
        form.add(graph, "X", "score")
        infos = tensor_info("X", "f4", ("n", COLUMNS)), tensor_info("score", "f4", ("n", 1))
        small = Graph(graph.model("small", infos[:1], infos[1:])).run(X, ["score"])[0][:, 0]
        np.testing.assert_allclose(small, fitted.raw_scores(X), atol=0.02)
    assert list(fit(SCALER, SVM).candidates(X)) == []


def test_what_scikit_learn_warns_of_is_noted() -> None:
    X = healthy()
    X[:, 4] = X[:, 3]
    notes = fit(SCALER, step("covariance.EllipticEnvelope"), X=X).notes
    assert any("not full rank" in note for note in notes)


@pytest.mark.parametrize(
    ("steps", "says"),
    [
        ([StepSpec("os.system")], "no estimator of scikit-learn"),
        ([StepSpec("OneClassSVM")], "sklearn.svm.OneClassSVM"),
        ([step("svm.OneClasSVM")], "Did you mean 'sklearn.svm.OneClassSVM'"),
        ([step("svn.OneClassSVM")], "Did you mean 'sklearn.svm.OneClassSVM'"),
        ([step("svm._classes")], "no estimator"),
        ([step("preprocessing.scale")], "no estimator"),
        ([step("svm.OneClassSVM", nuu=0.1)], r"no parameter 'nuu'.*Did you mean 'nu'"),
        ([step("svm.OneClassSVM", nu=2.0)], "OneClassSVM refuses a parameter"),
        ([step("neighbors.LocalOutlierFactor", novelty=False)], "gives no anomaly score"),
        ([SCALER], "gives no anomaly score"),
        ([step("svm.SVC")], "learns from labels"),
        ([SVM, SCALER], "transforms nothing"),
        ([step("decomposition.PCA", n_components=50), SVM], "cannot be trained on 600 windows of 5 features"),
        ([step("compose.ColumnTransformer"), SVM], "cannot be made"),
    ],
)
def test_steps_that_are_refused(steps: list[StepSpec], says: str) -> None:
    with pytest.raises(SpecError, match=says) as caught:
        fit(*steps)
    assert caught.value.exit_code == 3
    assert caught.value.advice


@pytest.mark.parametrize(
    ("steps", "says"),
    [
        ((step("impute.KNNImputer"), SCALER, SVM), "KNNImputer cannot become a graph.*local_domain"),
        ((step("decomposition.FastICA", n_components=2), SVM), "FastICA cannot become a graph"),
        ((SCALER, step("neighbors.KernelDensity")), "KernelDensity cannot become a graph"),
    ],
)
def test_steps_that_no_graph_can_say(steps: tuple[StepSpec, ...], says: str) -> None:
    with pytest.raises(ConversionError, match=says) as caught:
        fit(*steps)
    assert caught.value.exit_code == 7
    assert "StandardScaler" in caught.value.advice


def test_a_conversion_to_other_numbers_is_refused() -> None:
    """skl2onnx 1.20 maps a constant column of a QuantileTransformer to 1, scikit-learn to 0."""
    X = healthy()
    X[:, 2] = 4.0
    quantiles = step("preprocessing.QuantileTransformer", n_quantiles=10)
    with pytest.raises(ConversionError, match=r"gives other numbers.*VarianceThreshold"):
        fit(quantiles, SVM, X=X)
    fitted = fit(step("feature_selection.VarianceThreshold"), quantiles, SVM, X=X)
    np.testing.assert_allclose(graph_scores(fitted, X), fitted.raw_scores(X), atol=1e-6)


def test_with_many_rows_a_refusal_comes_before_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    from sklearn.decomposition import FastICA

    rows: list[int] = []
    trained = FastICA.fit
    monkeypatch.setattr(FastICA, "fit", lambda self, X, y=None: rows.append(len(X)) or trained(self, X))
    with pytest.raises(ConversionError):
        fit(step("decomposition.FastICA", n_components=2), SVM, X=healthy(rows=9_000))
    assert rows == [MOST_KEPT_ROWS]


LEAST = '[model]\nname = "m"\n[data]\nreadings = "r.parquet"\nsignals = ["a"]\n[detector]\n'


def load(folder: Path, text: str) -> DetectorSpec:
    (folder / "model.toml").write_text(LEAST + text)
    spec = load_spec(folder / "model.toml")
    json.dumps(spec.to_dict())
    return spec.detector


def test_model_toml_names_the_steps(tmp_path: Path) -> None:
    detector = load(
        tmp_path,
        'kind = "sklearn"\nsteps = [{ use = "sklearn.preprocessing.StandardScaler" }, '
        '{ use = "sklearn.svm.OneClassSVM", parameters = { nu = 0.01 } }]\n',
    )
    assert detector.steps == (SCALER, step("svm.OneClassSVM", nu=0.01))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('kind = "sklearn"\n', "steps must name at least one estimator"),
        ('steps = [{ use = "sklearn.svm.OneClassSVM" }]\n', "Set detector.kind = 'sklearn'"),
        (
            'kind = "sklearn"\nsteps = ["sklearn.svm.OneClassSVM"]\n',
            r"must be tables, each begun with \[\[detector\.steps\]\]",
        ),
        ('kind = "sklearn"\nsteps = [{ us = "sklearn.svm.OneClassSVM" }]\n', r"steps\[0\].use is missing"),
        ('kind = "sklearn"\nsteps = [{ use = "a", parameter = {} }]\n', "Did you mean 'parameters'"),
        ('kind = "sklearn"\nsteps = [{ use = "a", parameters = 3 }]\n', "must be a table"),
    ],
)
def test_steps_in_model_toml_that_are_refused(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(SpecError, match=says):
        load(tmp_path, text)


def test_a_pipeline_becomes_a_bundle(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The whole way, context and missing values included; its baseline is a forest, whatever the steps are made for."""
    assert run_command(["simulate", "--out", str(tmp_path / "fleet"), "--devices", "16", "--days", "5"]) == 0
    key = tmp_path / "targets.key"
    assert run_command(["keys", "create", "--role", "targets", "--out", str(key), "--no-passphrase"]) == 0
    capsys.readouterr()
    (tmp_path / "model.toml").write_text(
        '[model]\nname = "m"\n[data]\nreadings = "fleet/readings.parquet"\nlabels = "fleet/labels.parquet"\n'
        'signals = ["battery_temperature", "battery_drain", "memory_free"]\ncontext = ["charging"]\n'
        "[window]\nslots = 6\n[calibration]\nalarms_per_device_day = 0.5\n[detector]\n"
        'kind = "sklearn"\nsteps = [{ use = "sklearn.preprocessing.StandardScaler" }, '
        '{ use = "sklearn.decomposition.PCA", parameters = { n_components = 5 } }]\n'
    )
    arguments = ["build", "--config", str(tmp_path / "model.toml"), "--out", str(tmp_path / "out"), "--json"]
    assert run_command([*arguments, "--targets-key", str(key)]) == 0
    (model,) = json.loads(capsys.readouterr().out)["models"]
    figures = model["parity"]["candidates"]["fp32"]["sets"]["held out"]
    assert figures["max_raw_difference"] <= 1e-6
    assert figures["label_flips"] == 0
    assert any("training median" in note for note in model["notes"])
    assert run_command(["verify", str(tmp_path / "out" / "bundles" / model["path"]), "--public-key", f"{key}.pub"]) == 0

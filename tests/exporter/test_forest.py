"""forest_to_onnx scores as scikit-learn does, whatever the forest and the data look like."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pandas as pd
import pytest
import scipy.sparse
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.ensemble import IsolationForest, RandomForestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from exporter import forest_to_onnx
from exporter.errors import ConversionError
from exporter.graph.path_forest import average_path_length, round_down

BOTH = pytest.mark.parametrize("ml_opset", [5, 3])
ROWS = 1500
ADBENCH = ("12_fault", "20_letter", "23_mammography", "27_PageBlocks", "2_annthyroid", "30_satellite", "32_shuttle", "6_cardio")  # fmt: skip
FLEETS = ("cmapss", "backblaze2019", "smd", "asd")


def run(model: onnx.ModelProto, X: np.ndarray) -> np.ndarray:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: np.asarray(X, np.float32)})[0]


def assert_same(forest: IsolationForest, X: np.ndarray, ml_opset: int = 5) -> None:
    scores = run(forest_to_onnx(forest, ml_opset), X)
    expected = -forest.score_samples(X)
    assert scores.shape == (len(X), 1)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores[:, 0], expected, rtol=0, atol=1e-6)
    cut = -forest.offset_
    clear = np.abs(expected - cut) > 1e-6  # at the cut itself even float32 against float64 may differ
    assert np.array_equal(scores[clear, 0] > cut, expected[clear] > cut)


def without(X: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    return np.where(rng.random(X.shape) < share, np.nan, X)


def shared_rows(folder: Path, name: str) -> np.ndarray:
    if name in FLEETS:
        import pyarrow.parquet as pq

        table = pq.read_table(folder / name / "readings.parquet").to_pandas()
        X = table.drop(columns=["device_id", "timestamp", "cohort"]).to_numpy(np.float64)
    else:
        X = np.load(folder / "adbench" / f"{name}.npz", allow_pickle=False)["X"].astype(np.float64)
    return X[np.random.default_rng(1).permutation(len(X))[: 3 * ROWS]]


@BOTH
@pytest.mark.parametrize("name", [*ADBENCH, *FLEETS])
def test_real_data_as_it_is_and_with_values_removed(shared_data: Path, name: str, ml_opset: int) -> None:
    X = shared_rows(shared_data, name)
    train, test = X[: len(X) // 2], X[len(X) // 2 :][:ROWS]
    rng = np.random.default_rng(2)
    forest = IsolationForest(n_estimators=60, random_state=0, contamination=0.05).fit(train)
    assert_same(forest, test, ml_opset)
    # Missing values reach a forest that never saw any, and one that did.
    assert_same(forest, without(test, 0.05, rng), ml_opset)
    seen = IsolationForest(n_estimators=60, random_state=0).fit(without(train, 0.05, rng))
    assert_same(seen, without(test, 0.05, rng), ml_opset)


@BOTH
@pytest.mark.parametrize(
    "options",
    [
        {"max_features": 0.4},
        {"max_features": 1},
        {"bootstrap": True},
        {"bootstrap": True, "max_features": 0.5, "max_samples": 0.9},
        {"max_samples": 1},
        {"max_samples": 2},
        {"max_samples": 0.013},
        {"max_samples": 1.0},
        {"n_estimators": 1},
    ],
    ids=str,
)
def test_every_kind_of_forest(options: dict[str, float], ml_opset: int) -> None:
    rng = np.random.default_rng(3)
    X = rng.lognormal(0, 3, (400, 5))
    forest = IsolationForest(random_state=4, **{"n_estimators": 30, **options}).fit(X)
    assert_same(forest, without(X, 0.1, rng), ml_opset)


@BOTH
def test_thousands_of_trees_stay_within_a_millionth(ml_opset: int) -> None:
    rng = np.random.default_rng(8)
    X = rng.normal(size=(600, 4))
    forest = IsolationForest(n_estimators=2300, max_samples=64, random_state=1).fit(X)
    assert_same(forest, without(X, 0.1, rng), ml_opset)


@BOTH
def test_one_node_trees(ml_opset: int) -> None:
    constant = IsolationForest(n_estimators=5, random_state=0).fit(np.ones((50, 3)))
    assert {tree.tree_.node_count for tree in constant.estimators_} == {1}
    assert_same(constant, np.array([[1.0, 1, 1], [9, 9, 9], [np.nan] * 3]), ml_opset)
    rng = np.random.default_rng(5)
    X = np.where(rng.random((200, 2)) < 0.01, 1.0, 0.0)
    mixed = IsolationForest(n_estimators=40, max_samples=20, random_state=0).fit(X)
    assert len({tree.tree_.node_count for tree in mixed.estimators_}) > 1
    assert_same(mixed, X, ml_opset)


@BOTH
def test_values_on_the_thresholds_themselves(ml_opset: int) -> None:
    rng = np.random.default_rng(6)
    forest = IsolationForest(n_estimators=20, random_state=0).fit(rng.normal(size=(300, 3)) * 1e7)
    columns = []
    for column in range(3):
        thresholds = np.concatenate([t.tree_.threshold[t.tree_.feature == column] for t in forest.estimators_])
        below = round_down(thresholds)
        columns.append(
            np.concatenate([below, np.nextafter(below, np.float32(np.inf)), thresholds.astype(np.float32)])[:400]
        )
    assert_same(forest, np.stack([np.resize(column, 400) for column in columns], axis=1), ml_opset)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    seed=st.integers(0, 2**16),
    rows=st.integers(1, 80),
    columns=st.integers(1, 6),
    missing=st.sampled_from([0.0, 0.05, 0.5]),
    scale=st.sampled_from([1e-30, 1e-3, 1.0, 1e13]),
    bootstrap=st.booleans(),
    ml_opset=st.sampled_from([3, 5]),
)
def test_any_forest(
    seed: int, rows: int, columns: int, missing: float, scale: float, bootstrap: bool, ml_opset: int
) -> None:
    rng = np.random.default_rng(seed)
    X = without(rng.normal(size=(rows, columns)) * scale, missing, rng)
    X[0] = scale  # scikit-learn refuses a column without any value
    forest = IsolationForest(n_estimators=8, bootstrap=bootstrap, random_state=seed, max_features=rng.uniform(0.2, 1))
    assert_same(forest.fit(X), without(rng.normal(size=(64, columns)) * scale, missing, rng), ml_opset)


def test_the_model_is_valid_onnx_with_one_tree_node() -> None:
    forest = IsolationForest(n_estimators=10, random_state=0).fit(np.random.default_rng(0).normal(size=(99, 4)))
    for ml_opset, operator in ((5, "TreeEnsemble"), (3, "TreeEnsembleRegressor")):
        model = forest_to_onnx(forest, ml_opset)
        onnx.checker.check_model(model, full_check=True)
        assert [node.op_type for node in model.graph.node] == ["Neg", "Concat", operator, "Mul", "Exp"]


def test_refusals() -> None:
    with pytest.raises(ConversionError, match="not fitted"):
        forest_to_onnx(IsolationForest())
    forest = IsolationForest(n_estimators=2).fit(np.zeros((3, 1)))
    for ml_opset in (4, "5", 5.0, None):
        with pytest.raises(ConversionError, match=r"ai\.onnx\.ml"):
            forest_to_onnx(forest, ml_opset)  # type: ignore[arg-type]
    X = np.random.default_rng(0).normal(size=(30, 2))
    pipeline = make_pipeline(StandardScaler(), IsolationForest(n_estimators=2)).fit(X)
    for other in (pipeline, RandomForestClassifier(2).fit(X, X[:, 0] > 0), IsolationForest, None):
        with pytest.raises(ConversionError, match="Only an IsolationForest"):
            forest_to_onnx(other)  # type: ignore[arg-type]


@BOTH
def test_forests_as_people_have_them(ml_opset: int) -> None:
    rng = np.random.default_rng(9)
    X = rng.normal(size=(300, 4))
    grown = IsolationForest(n_estimators=10, warm_start=True, random_state=0).fit(X)
    assert_same(grown.set_params(n_estimators=20).fit(X[:100]), X, ml_opset)
    for rows in (
        pd.DataFrame(X, columns=list("abcd")),
        rng.integers(-(10**13), 10**13, (300, 3)),
        rng.random((300, 3)) < 0.3,
        rng.choice([-0.0, 0.0, 1e-45, -1e-45, 1.0], (300, 3)),
        rng.choice([-3.4e38, 0.0, 1e38, 3.4e38], (300, 3)),
    ):
        assert_same(IsolationForest(n_estimators=10, random_state=0).fit(rows), rows, ml_opset)
    sparse = scipy.sparse.random(300, 5, 0.2, random_state=0, format="csr")
    assert_same(IsolationForest(n_estimators=10, random_state=0).fit(sparse), sparse.toarray(), ml_opset)


def test_average_path_length_is_scikit_learns() -> None:
    from sklearn.ensemble._iforest import _average_path_length

    counts = np.array([0, 1, 2, 3, 4, 256, 100_000])
    np.testing.assert_allclose(average_path_length(counts), _average_path_length(counts), rtol=1e-15)


def test_round_down_never_goes_up() -> None:
    values = np.random.default_rng(0).normal(size=1000) * 10.0 ** np.arange(-40, 36, 0.076)
    down = round_down(values)
    assert (down.astype(np.float64) <= values).all()
    assert (np.nextafter(down, np.float32(np.inf)).astype(np.float64) > values).all()


def test_importing_exporter_loads_no_learning_library() -> None:
    code = "import exporter, sys; print(sorted({'sklearn', 'onnx', 'pandas', 'onnxruntime'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"

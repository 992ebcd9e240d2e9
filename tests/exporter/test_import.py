"""Models trained elsewhere: what comes in is checked, what goes out scores as the file does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper
from simulators.foreign_models import (
    DOUBLE,
    INT64,
    F,
    classifier,
    custom,
    distance,
    fit,
    info,
    model_of,
    own_scores,
    regressor,
    saved,
    tree_attributes,
    windows,
)

from exporter.cli import run_command
from exporter.config import OnnxSpec, load_spec
from exporter.detectors import graph_scores, notes_of
from exporter.detectors.imported import FittedImport
from exporter.errors import ConversionError, SpecError
from exporter.graph.nodes import GraphBuilder, tensor_info
from exporter.graph.running import Graph


def check(fitted: FittedImport, X: np.ndarray, expected: np.ndarray) -> None:
    """The detector orders windows as the figures of the file do, and its graph says the same."""
    trained = fitted.raw_scores(X)
    np.testing.assert_allclose(trained, fitted.squash(expected), atol=1e-6)
    np.testing.assert_allclose(graph_scores(fitted, X), trained, atol=1e-6)
    alone = np.concatenate([graph_scores(fitted, row[None]) for row in X[:20]])
    np.testing.assert_allclose(alone, trained[:20], atol=1e-6)


@pytest.mark.parametrize("opset", [9, 11, 13, 17, 18, 20, 22])
def test_a_network_of_any_opset(tmp_path: Path, opset: int) -> None:
    model, X = distance(opset=opset), windows(seed=1)
    fitted = fit(tmp_path, model, impute=True)
    check(fitted, X, np.abs(X.astype(np.float64)).sum(axis=1))
    converted = f"foreign.onnx was written for opset {opset} and converted to 18."
    assert (converted in notes_of(fitted)) == (opset != 18)
    assert "trained elsewhere" in notes_of(fitted)[0]


def test_the_direction_is_turned_once(tmp_path: Path) -> None:
    X = windows(seed=1)
    fitted = fit(tmp_path, distance(), higher_is="healthy", impute=True)
    check(fitted, X, -np.abs(X.astype(np.float64)).sum(axis=1))


def test_float64_and_batch_of_one_become_ours(tmp_path: Path) -> None:
    X = windows(seed=1)
    fitted = fit(tmp_path, distance(1, kind=DOUBLE), impute=True)
    check(fitted, X, np.abs(X.astype(np.float64)).sum(axis=1))
    assert any("batch of 1" in note for note in notes_of(fitted))


def test_whole_windows_are_reshaped(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("ReduceMax", ["x"], ["m"], axes=[1, 2], keepdims=0),
        helper.make_node("Abs", ["m"], ["y"]),
    ]
    model = model_of(nodes, [info("x", ["n", 2, 2])], [info("y", ["n"])], opset=17)
    X = windows(seed=1)
    check(fit(tmp_path, model, impute=True), X, np.abs(X.max(axis=1)).astype(np.float64))


def test_a_loop_and_a_branch_come_along(tmp_path: Path) -> None:
    """y = x summed, plus one as long as i < 3: a body with names of its own and of the graph around it."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["go_on"]),
            helper.make_node("Add", ["v", "one"], ["v_next"]),
        ],
        "body",
        [info("i", [], INT64), info("go", [], TensorProto.BOOL), info("v", ["n"])],
        [info("go_on", [], TensorProto.BOOL), info("v_next", ["n"])],
    )
    nodes = [
        helper.make_node("ReduceSum", ["x", "axes"], ["s"], keepdims=0),
        helper.make_node("Loop", ["three", "", "s"], ["y"], body=body),
        helper.make_node("Neg", ["s"], ["unused"]),
    ]
    constants = {
        "axes": np.array([1], np.int64),
        "three": np.array(3, np.int64),
        "one": np.array([1], np.float32),
    }
    body.node[0].input[0] = "go"
    model = model_of(nodes, [info("x", ["n", F])], [info("y", ["n"]), info("unused", ["n"])], constants)
    X = windows(seed=1)
    fitted = fit(tmp_path, model, output="y", impute=True)
    check(fitted, X, own_scores(model, X, "y").astype(np.float64))
    assert "Neg" not in {node.op_type for node in fitted.foreign.model.graph.node}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"aggregate_function": "AVERAGE"},
        {"aggregate_function": "MIN"},
        {"aggregate_function": "MAX"},
        {"base_values": [-3.0]},
    ],
)
def test_regression_trees_with_missing_values(tmp_path: Path, changes: dict[str, Any]) -> None:
    model, X = regressor(**changes), windows(seed=1, missing=True)
    fitted = fit(tmp_path, model)
    check(fitted, X, own_scores(model, X, "variable")[:, 0].astype(np.float64))
    assert {node.op_type for node in fitted.foreign.model.graph.node} & {"TreeEnsemble"}


@pytest.mark.parametrize("column", [0, 1])
@pytest.mark.parametrize(
    ("classes", "changes"),
    [
        (1, {"post_transform": "LOGISTIC"}),
        (1, {"post_transform": "NONE"}),
        (1, {"post_transform": "NONE", "positive": True}),
        (2, {"post_transform": "NONE"}),
        (2, {"post_transform": "SOFTMAX"}),
        (1, {"post_transform": "LOGISTIC", "base_values": [0.3]}),
        (2, {"post_transform": "LOGISTIC"}),
    ],
)
def test_classification_trees(tmp_path: Path, classes: int, changes: dict[str, Any], column: int) -> None:
    changes = dict(changes)
    if changes.pop("positive", False):
        weights = tree_attributes(6, "class", classes=classes)["class_weights"]
        changes["class_weights"] = [abs(value) / 10 for value in weights]
    model, X = classifier(classes=classes, **changes), windows(seed=1)
    fitted = fit(tmp_path, model, output="probabilities", column=column)
    check(fitted, X, own_scores(model, X, "probabilities")[:, column].astype(np.float64))


def test_missing_values_become_means_when_asked(tmp_path: Path) -> None:
    X = windows(missing=True)
    with pytest.raises(ConversionError, match=r"no finite score for \d+ of 300 healthy windows .*--impute"):
        fit(tmp_path, distance(), X)
    with pytest.raises(ConversionError, match=r"no score for a window with a missing value.*--impute"):
        fit(tmp_path, distance(), windows())
    fitted = fit(tmp_path, distance(), X, impute=True)
    filled = np.where(np.isnan(X), np.nanmean(X, axis=0, dtype=np.float64).astype(np.float32), X)
    check(fitted, X, np.abs(filled.astype(np.float64)).sum(axis=1))


def settings_of(folder: Path, detector: str = "") -> Path:
    path = folder / "model.toml"
    path.write_text(
        '[model]\nname = "imported"\n[data]\nreadings = "fleet/readings.parquet"\nlabels = "fleet/labels.parquet"\n'
        'signals = ["battery_temperature", "memory_free"]\n[window]\nslots = 4\n[calibration]\n'
        f"alarms_per_device_day = 0.2\n{detector}"
    )
    return path


def test_model_toml_names_the_model(tmp_path: Path) -> None:
    table = '[detector]\nkind = "onnx"\nonnx = { path = "m.onnx", output = "p", higher_is = "healthy", column = 1 }\n'
    spec = load_spec(settings_of(tmp_path, table))
    assert spec.detector.onnx == OnnxSpec(tmp_path / "m.onnx", None, "p", "healthy", 1)
    assert spec.to_dict()["detector"]["onnx"]["path"] == "m.onnx"
    with pytest.raises(SpecError, match=r"onnx\.higher_is"):
        load_spec(settings_of(tmp_path, table.replace("healthy", "better")))
    with pytest.raises(SpecError, match="path is missing"):
        load_spec(settings_of(tmp_path, '[detector]\nkind = "onnx"\n'))


def test_import_from_the_command_line_refuses_before_it_reads(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = saved(tmp_path, custom())
    common = ["--config", str(settings_of(tmp_path)), "--out", str(tmp_path / "out"), "--higher-is", "anomalous"]
    assert run_command(["import", str(path), *common]) == 7
    assert "com.example.FusedThing" in capsys.readouterr().err
    assert run_command(["import", str(tmp_path / "none.onnx"), *common]) == 3
    assert run_command(["import", str(path), *common[:4]]) == 2
    assert not (tmp_path / "out").exists()


def test_import_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From a file of somebody else to a verified bundle that scores as the file does."""
    assert run_command(["simulate", "--out", str(tmp_path / "fleet"), "--devices", "16", "--days", "5"]) == 0
    key = tmp_path / "targets.key"
    assert run_command(["keys", "create", "--role", "targets", "--out", str(key), "--no-passphrase"]) == 0
    path = saved(tmp_path, distance())
    arguments = ["import", str(path), "--config", str(settings_of(tmp_path)), "--out", str(tmp_path / "out")]
    arguments += ["--targets-key", str(key), "--higher-is", "anomalous", "--json"]
    assert run_command(arguments) == 7
    assert "--impute" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert run_command([*arguments, "--impute"]) == 0
    (model,) = json.loads(capsys.readouterr().out)["models"]
    assert model["parity"]["candidates"]["fp32"]["sets"]["held out"]["label_flips"] == 0
    assert model["parity"]["candidates"]["fp32"]["sets"]["held out"]["max_raw_difference"] <= 1e-6
    assert any("foreign.onnx (sha256 " in note for note in model["notes"])
    bundle = tmp_path / "out" / "bundles" / model["path"]
    assert run_command(["verify", str(bundle), "--public-key", f"{key}.pub"]) == 0


def test_a_network_has_integer_forms_and_trees_have_none(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    nodes = [
        helper.make_node("Gemm", ["x", "w", "b"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Gemm", ["r", "v", "c"], ["o"]),
        helper.make_node("Sub", ["o", "x"], ["d"]),
        helper.make_node("Mul", ["d", "d"], ["s"]),
        helper.make_node("ReduceSum", ["s", "axes"], ["y"], keepdims=0),
    ]
    constants = {
        "w": rng.normal(size=(F, 16)).astype(np.float32),
        "b": np.zeros(16, np.float32),
        "v": rng.normal(size=(16, F)).astype(np.float32),
        "c": np.zeros(F, np.float32),
        "axes": np.array([1], np.int64),
    }
    X = windows(800, seed=1)
    fitted = fit(tmp_path, model_of(nodes, [info("x", ["n", F])], [info("y", ["n"])], constants), impute=True)
    forms = {one.name: one for one in fitted.candidates(windows(500))}
    assert {"int8 static per channel minmax", "int8 dynamic"} <= set(forms)
    trained = fitted.raw_scores(X)
    for form in forms.values():
        graph = GraphBuilder()
        form.add(graph, "X", "score")
        model = graph.model("small", [tensor_info("X", "f4", ("n", F))], [tensor_info("score", "f4", ("n", 1))])
        assert np.corrcoef(Graph(model).run(X, ["score"])[0][:, 0], trained)[0, 1] > 0.98
        assert form.precision == "int8"
        assert any(name.startswith("Relu") for name in form.float_nodes)
    assert list(fit(tmp_path, regressor()).candidates(windows())) == []

"""Models trained elsewhere: what comes in is checked, what goes out scores as the file does."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from edge_runtime.errors import StellaError
from exporter.cli import run_command
from exporter.config import DetectorSpec, OnnxSpec, load_spec
from exporter.detectors import graph_scores, make_detector, notes_of
from exporter.detectors.imported import FittedImport
from exporter.errors import ConversionError, SpecError
from exporter.importing import MOST_BYTES, read_foreign

F = 4
FLOAT, DOUBLE, INT64 = TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.INT64
Info = onnx.ValueInfoProto


def info(name: str, shape: list[Any] | None, kind: int = FLOAT) -> Info:
    return helper.make_tensor_value_info(name, kind, shape)


def model_of(
    nodes: list[onnx.NodeProto],
    inputs: list[Info],
    outputs: list[Info],
    constants: dict[str, np.ndarray] | None = None,
    *,
    opset: int = 18,
    ml: int = 3,
    others: tuple[str, ...] = (),
) -> onnx.ModelProto:
    tensors = [numpy_helper.from_array(value, name) for name, value in (constants or {}).items()]
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("ai.onnx.ml", ml)]
    imports += [helper.make_opsetid(domain, 1) for domain in others]
    graph = helper.make_graph(nodes, "foreign", inputs, outputs, tensors)
    return helper.make_model(graph, opset_imports=imports, ir_version=8)


def distance(batch: Any = "n", *, opset: int = 18, kind: int = FLOAT) -> onnx.ModelProto:
    """The sum of absolute values: rank 1, as networks of PyTorch give their error."""
    axes = {"axes": np.array([1], np.int64)} if opset >= 13 else {}
    reduce = (
        helper.make_node("ReduceSum", ["a", "axes"], ["y"], keepdims=0)
        if axes
        else helper.make_node("ReduceSum", ["a"], ["y"], keepdims=0, axes=[1])
    )
    nodes = [helper.make_node("Abs", ["x"], ["a"]), reduce]
    return model_of(nodes, [info("x", [batch, F], kind)], [info("y", [batch], kind)], axes, opset=opset)


def tree_attributes(trees: int, leaves: str, *, classes: int = 1, seed: int = 0) -> dict[str, Any]:
    """Trees of two splits, the last one a bare leaf; each leaf adds to every class."""
    rng = np.random.default_rng(seed)
    nodes: dict[str, list[Any]] = {
        key: []
        for key in ("treeids", "nodeids", "featureids", "modes", "values", "truenodeids", "falsenodeids",
                    "missing_value_tracks_true")
    }  # fmt: skip
    weights: dict[str, list[Any]] = {"treeids": [], "nodeids": [], "ids": [], "weights": []}
    for tree in range(trees):
        shape = [(1, 2), (3, 4), None, None, None] if tree < trees - 1 else [None]
        for number, branch in enumerate(shape):
            row = (tree, number, int(rng.integers(F)), "BRANCH_LT" if tree % 2 else "BRANCH_LEQ",
                   float(rng.normal()), *(branch or (0, 0)), int(rng.integers(2)))  # fmt: skip
            row = row if branch else (*row[:3], "LEAF", 0.0, 0, 0, 0)
            for key, value in zip(nodes, row, strict=True):
                nodes[key].append(value)
            for target in range(classes) if branch is None else ():
                for key, value in zip(weights, (tree, number, target, float(rng.normal())), strict=True):
                    weights[key].append(value)
    return {f"nodes_{key}": value for key, value in nodes.items()} | {
        f"{leaves}_{key}": value for key, value in weights.items()
    }


def regressor(**changes: Any) -> onnx.ModelProto:
    """As onnxmltools exports XGBoost: ai.onnx.ml only, base value, missing values tracked."""
    attributes = tree_attributes(6, "target") | {"n_targets": 1, "base_values": [0.25], **changes}
    node = helper.make_node("TreeEnsembleRegressor", ["X"], ["variable"], domain="ai.onnx.ml", **attributes)
    return model_of([node], [info("X", [None, F])], [info("variable", [None, 1])])


def classifier(*, classes: int = 1, zipmap: bool = False, **changes: Any) -> onnx.ModelProto:
    """As onnxmltools exports LightGBM: scores of one class, a label beside, and ZipMap unless it is switched off."""
    attributes = tree_attributes(6, "class", classes=classes) | {"classlabels_int64s": [0, 1], **changes}
    nodes = [
        helper.make_node("TreeEnsembleClassifier", ["X"], ["l", "p"], domain="ai.onnx.ml", **attributes),
        helper.make_node("Identity", ["l"], ["label"]),
    ]
    probabilities = info("probabilities", [None, 2])
    if zipmap:
        nodes.append(
            helper.make_node("ZipMap", ["p"], ["probabilities"], domain="ai.onnx.ml", classlabels_int64s=[0, 1])
        )
        kind = helper.make_map_type_proto(INT64, helper.make_tensor_type_proto(FLOAT, []))
        probabilities = helper.make_value_info("probabilities", helper.make_sequence_type_proto(kind))
    else:
        nodes.append(helper.make_node("Identity", ["p"], ["probabilities"]))
    return model_of(nodes, [info("X", [None, F])], [info("label", [None], INT64), probabilities])


def windows(rows: int = 300, seed: int = 0, *, missing: bool = False) -> np.ndarray:
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(rows, F)).astype(np.float32)
    if missing:
        X[rng.random(X.shape) < 0.1] = np.nan
    return X


def saved(folder: Path, model: onnx.ModelProto | bytes) -> Path:
    path = folder / "foreign.onnx"
    path.write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
    return path


def fit(folder: Path, model: onnx.ModelProto | bytes, X: np.ndarray | None = None, **named: Any) -> FittedImport:
    spec = OnnxSpec(saved(folder, model), **named)
    fitted = make_detector(DetectorSpec("onnx", onnx=spec)).fit(windows() if X is None else X)
    assert isinstance(fitted, FittedImport)
    return fitted


def own_scores(model: onnx.ModelProto, X: np.ndarray, output: str) -> np.ndarray:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run([output], {session.get_inputs()[0].name: X})[0]


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


def external(folder: Path) -> onnx.ModelProto:
    model = distance()
    onnx.external_data_helper.set_external_data(model.graph.initializer[0], "weights.bin")
    model.graph.initializer[0].data_location = TensorProto.EXTERNAL
    model.graph.initializer[0].ClearField("raw_data")
    return model


def changed(change: Callable[[onnx.ModelProto], None]) -> onnx.ModelProto:
    model = distance()
    change(model)
    return model


def two_inputs() -> onnx.ModelProto:
    nodes = [helper.make_node("Add", ["x", "z"], ["y"])]
    return model_of(nodes, [info("x", ["n", F]), info("z", ["n", F])], [info("y", ["n", F])])


def one_node(operator: str, shape: list[Any], output: list[Any], kind: int = FLOAT, **more: Any) -> onnx.ModelProto:
    node = helper.make_node(operator, ["x"], ["y"], **more)
    return model_of([node], [info("x", shape)], [info("y", output, kind)])


def custom() -> onnx.ModelProto:
    node = helper.make_node("FusedThing", ["x"], ["y"], domain="com.example")
    return model_of([node], [info("x", ["n", F])], [info("y", ["n", F])], others=("com.example",))


def wrong_batch() -> onnx.ModelProto:
    """Adds up over the batch, which a batch of 1 does not show."""
    nodes = [
        helper.make_node("ReduceSum", ["x", "axes"], ["r"], keepdims=0),
        helper.make_node("Expand", ["r", "s"], ["y"]),
    ]
    return model_of(
        nodes,
        [info("x", [1, F])],
        [info("y", [1, 1])],
        {"axes": np.array([0, 1], np.int64), "s": np.array([1, 1], np.int64)},
    )


REFUSED: dict[str, tuple[onnx.ModelProto, dict[str, Any], str]] = {
    "custom operators": (custom(), {}, r"com\.example\.FusedThing"),
    "external data": (external(Path()), {}, "keeps its weights in another file"),
    "several inputs": (two_inputs(), {}, r"has 2 inputs \(x, z\)"),
    "a vector": (one_node("Abs", ["n"], ["n"]), {}, "input of 1 dimensions"),
    "an image": (one_node("Abs", ["n", 1, 2, 2], ["n"]), {}, "input of 4 dimensions"),
    "whole numbers": (
        model_of([helper.make_node("Abs", ["x"], ["y"])], [info("x", ["n", F], INT64)], [info("y", ["n", F], INT64)]),
        {}, "takes no float32",
    ),
    "free features": (one_node("Abs", ["n", "f"], ["n", "f"]), {}, "leaves open how many values x has"),
    "fixed batch": (distance(8), {}, "batches of exactly 8"),
    "hidden batch": (wrong_batch(), {"impute": True}, "gives score as|scores otherwise|gives y as"),
    "other size": (one_node("Abs", ["n", 7], ["n", 7]), {}, "takes 7 values a window, and the settings make 4"),
    "many columns": (one_node("Abs", ["n", F], ["n", F]), {"impute": True}, r"gives y as \[\d+, 4\]"),
    "two columns": (classifier(), {"output": "probabilities"}, "--column 0 or --column 1"),
    "maps": (classifier(zipmap=True), {"output": "probabilities"}, "zipmap=False"),
    "labels": (classifier(), {"output": "label"}, "whole numbers or labels"),
    "never a number": (one_node("ReduceMax", ["n", F], ["n", 1], axes=[1]), {}, "breaks a rule"),
    "a rule broken": (changed(lambda m: m.graph.node[1].input.insert(0, "nothing")), {}, "breaks a rule of ONNX"),
    "an unknown version": (changed(lambda m: m.opset_import[0].CopyFrom(helper.make_opsetid("", 999))), {},
                           "opset 999|breaks a rule"),
    "an unknown mode": (classifier(nodes_modes=["BRANCH_ODD", *["LEAF"] * 25]), {"output": "probabilities", "column": 1},
                        "BRANCH_ODD|cannot load"),
    "ragged trees": (regressor(nodes_featureids=[0]), {}, "lists of different lengths for their nodes"),
    "weights of nothing": (regressor(target_nodeids=[77] * 16), {}, "name a node that is not there"),
    "a transform of a regressor": (regressor(post_transform="LOGISTIC"), {}, "transform LOGISTIC"),
    "base values of two classes": (classifier(classes=2, base_values=[0.1, 0.2]),
                                   {"output": "probabilities", "column": 1}, "2 base values"),
    "a probit": (classifier(post_transform="PROBIT"), {"output": "probabilities", "column": 1}, "transform PROBIT"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_models_that_are_refused(tmp_path: Path, name: str) -> None:
    model, named, says = REFUSED[name]
    with pytest.raises(ConversionError, match=says) as caught:
        fit(tmp_path, model, **named)
    assert caught.value.exit_code == 7
    assert caught.value.advice


def test_infinite_scores_are_refused_with_how_many(tmp_path: Path) -> None:
    nodes = [helper.make_node("Log", ["x"], ["l"]), helper.make_node("ReduceSum", ["l", "axes"], ["y"], keepdims=0)]
    model = model_of(nodes, [info("x", ["n", F])], [info("y", ["n"])], {"axes": np.array([1], np.int64)})
    X = np.abs(windows())
    X[:7, 0] = 0
    with pytest.raises(ConversionError, match=r"no finite score for 7 of 300 healthy windows \(0 of these"):
        fit(tmp_path, model, X)


@pytest.mark.parametrize(
    ("content", "named", "says"),
    [
        (b"not a model at all", {}, "is no ONNX model"),
        (b"", {}, "is no ONNX model"),
        (distance(), {"input": "X"}, r"no input 'X'.*'x'"),
        (distance(), {"output": "z"}, r"no output 'z'"),
        (classifier(), {}, "has 2 outputs.*label, probabilities"),
    ],
)
def test_files_and_names_that_are_wrong(tmp_path: Path, content: Any, named: dict[str, Any], says: str) -> None:
    with pytest.raises(SpecError, match=says) as caught:
        read_foreign(OnnxSpec(saved(tmp_path, content), **named))
    assert caught.value.exit_code == 3


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(["network", "trees", "classes"]), st.data())
def test_a_file_with_changed_bytes_is_refused_or_scores(
    tmp_path_factory: pytest.TempPathFactory, kind: str, data: st.DataObject
) -> None:
    """Whatever a transfer or a stranger made of it: a sentence, never a traceback."""
    model, more = {
        "network": (distance(), {"impute": True}),
        "trees": (regressor(), {}),
        "classes": (classifier(post_transform="LOGISTIC"), {"output": "probabilities", "column": 1}),
    }[kind]
    content = bytearray(model.SerializeToString())
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=4)):
        content[place] = data.draw(st.integers(0, 255))
    with suppress(StellaError):
        fitted = fit(tmp_path_factory.mktemp("changed"), bytes(content), **more)
        assert np.isfinite(graph_scores(fitted, windows(5))).all()


def test_a_file_that_is_not_there_or_too_large(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="Cannot read the model"):
        read_foreign(OnnxSpec(tmp_path / "none.onnx"))
    with (tmp_path / "large.onnx").open("wb") as stream:
        stream.truncate(MOST_BYTES + 1)
    with pytest.raises(SpecError, match="larger than 64 MiB"):
        read_foreign(OnnxSpec(tmp_path / "large.onnx"))


def test_external_data_is_not_even_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path, external(tmp_path))
    (tmp_path / "weights.bin").write_bytes(np.array([1], np.int64).tobytes())
    opened: list[Path] = []
    real = Path.open
    monkeypatch.setattr(Path, "open", lambda self, *rest, **more: opened.append(self) or real(self, *rest, **more))
    with pytest.raises(ConversionError):
        read_foreign(OnnxSpec(path))
    assert opened == [path]


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

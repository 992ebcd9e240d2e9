"""Models as other libraries export them, made by hand: a network's error, and trees as LightGBM and XGBoost give them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from exporter.config import DetectorSpec, OnnxSpec
from exporter.detectors import make_detector
from exporter.detectors.imported import FittedImport

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


def custom() -> onnx.ModelProto:
    node = helper.make_node("FusedThing", ["x"], ["y"], domain="com.example")
    return model_of([node], [info("x", ["n", F])], [info("y", ["n", F])], others=("com.example",))

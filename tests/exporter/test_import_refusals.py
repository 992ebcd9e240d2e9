"""Foreign models that cannot be used: every one ends in a sentence and its exit code, and no other file is opened."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from simulators.foreign_models import (
    INT64,
    F,
    classifier,
    custom,
    distance,
    fit,
    info,
    model_of,
    regressor,
    saved,
    tree_attributes,
    windows,
)

from edge_runtime.errors import StellaError
from exporter.config import OnnxSpec
from exporter.detectors import graph_scores
from exporter.errors import ConversionError, SpecError
from exporter.importing import MOST_BYTES, read_foreign


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


def one_node(operator: str, shape: list[Any], output: list[Any], **more: Any) -> onnx.ModelProto:
    node = helper.make_node(operator, ["x"], ["y"], **more)
    return model_of([node], [info("x", shape)], [info("y", output)])


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


def relative_to_the_batch() -> onnx.ModelProto:
    """The sum of a window less the mean sum of its batch: as a normalisation left in training mode."""
    nodes = [
        helper.make_node("ReduceSum", ["x", "axes"], ["s"], keepdims=0),
        helper.make_node("ReduceMean", ["s"], ["m"], keepdims=1),
        helper.make_node("Sub", ["s", "m"], ["y"]),
    ]
    return model_of(nodes, [info("x", ["n", F])], [info("y", ["n"])], {"axes": np.array([1], np.int64)})


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
    "hidden batch": (wrong_batch(), {"impute": True}, "scores otherwise|gives y as"),
    "a score of the batch": (relative_to_the_batch(), {"impute": True}, "each window alone"),
    "a column of one": (distance(), {"impute": True, "column": 1}, "Leave --column out"),
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
    "trees in a circle": (regressor(nodes_truenodeids=[1, 1, *tree_attributes(6, "target")["nodes_truenodeids"][2:]]),
                          {}, "two parents"),
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

"""Tiny window models made by hand, so that device tests need no training.

The raw score is the mean size of all cells that are there (0 when none is): a window of 2s scores 2. The anomaly score
is raw / (1 + raw), the threshold is raw >= 1. With context the last signal says what the device does (0 or 1), and
the cells are residuals against the mean and spread of that regime.
"""

from __future__ import annotations

import hashlib

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edge_runtime.bundle_store import ActiveBundle
from edge_runtime.contract.golden import GoldenSpec
from edge_runtime.contract.manifest import Manifest, Regimes, Signal, Threshold
from edge_runtime.contract.window import WindowRule

HOUR_MS = 3_600_000
REGIMES = Regimes(
    centroids=((0.0,), (1.0,)),
    context_means=(0.0,),
    context_spreads=(1.0,),
    means=((0.0, 0.0), (10.0, 100.0)),
    spreads=((1.0, 1.0), (1.0, 10.0)),
)


def tiny_manifest(*, slots: int = 4, context: bool = False, incident_gap: int = 3, minimum: int = 2) -> Manifest:
    signals = [Signal("battery", "percent", "signal"), Signal("radio", "dBm", "signal")]
    if context:
        signals.append(Signal("charging", "", "context"))
    return Manifest(
        model="tiny",
        version="1",
        release_number=1,
        cohort=None,
        precision="fp32",
        signals=tuple(signals),
        window=WindowRule(slots, HOUR_MS, 6 * HOUR_MS, min(minimum, slots)),
        features=("size",),
        threshold=Threshold(0.5, 1.0, None),
        incident_gap=incident_gap,
        histogram=(100, *[0] * 14),
        regimes=REGIMES if context else None,
        references=2,
        files={},
        runtime={"onnxruntime": ">=1.20", "opset": 18},
    )


def tiny_model(*, slots: int = 4, context: bool = False) -> bytes:
    """Return the ONNX model."""
    signals = 3 if context else 2
    nodes, constants = (
        [],
        [_const("half", np.float32(0.5)), _const("one", np.float32(1)), _const("zero", np.float32(0))],
    )
    outputs = [_value("anomaly_score", 1), _value("raw_score", 1), _value("is_anomaly", 1, TensorProto.BOOL)]
    outputs.append(_value("features", 1))
    cells = "window"
    if context:
        constants += [
            _const("means", np.float32(REGIMES.means)),
            _const("spreads", np.float32(REGIMES.spreads)),
            _const("from0", np.int64([0])),
            _const("from2", np.int64([2])),
            _const("to3", np.int64([3])),
            _const("last_axis", np.int64([2])),
        ]
        nodes += [
            helper.make_node("Slice", ["window", "from0", "from2", "last_axis"], ["raw_cells"]),
            helper.make_node("Slice", ["window", "from2", "to3", "last_axis"], ["context"]),
            helper.make_node("Squeeze", ["context", "last_axis"], ["context2"]),
            helper.make_node("Greater", ["context2", "half"], ["on"]),
            helper.make_node("Cast", ["on"], ["regime"], to=TensorProto.INT64),
            helper.make_node("Gather", ["means", "regime"], ["mean"], axis=0),
            helper.make_node("Gather", ["spreads", "regime"], ["spread"], axis=0),
            helper.make_node("Sub", ["raw_cells", "mean"], ["centred"]),
            helper.make_node("Div", ["centred", "spread"], ["scaled"]),
            # A missing context makes the whole reading missing.
            helper.make_node("Sub", ["context", "context"], ["nan_or_zero"]),
            helper.make_node("Add", ["scaled", "nan_or_zero"], ["residuals"]),
        ]
        outputs.append(helper.make_tensor_value_info("regime", TensorProto.INT64, ["n", slots]))
        cells = "residuals"
    constants += [_const("axes", np.int64([1, 2])), _const("row", np.int64([-1, 1]))]
    nodes += [
        helper.make_node("IsNaN", [cells], ["missing"]),
        helper.make_node("Abs", [cells], ["sizes"]),
        helper.make_node("Where", ["missing", "zero", "sizes"], ["known"]),
        helper.make_node("Where", ["missing", "zero", "one"], ["there"]),
        helper.make_node("ReduceSum", ["known", "axes"], ["total"], keepdims=0),
        helper.make_node("ReduceSum", ["there", "axes"], ["count"], keepdims=0),
        helper.make_node("Max", ["count", "one"], ["divisor"]),
        helper.make_node("Div", ["total", "divisor"], ["mean_size"]),
        helper.make_node("Reshape", ["mean_size", "row"], ["raw_score"]),
        helper.make_node("Add", ["raw_score", "one"], ["more"]),
        helper.make_node("Div", ["raw_score", "more"], ["anomaly_score"]),
        helper.make_node("GreaterOrEqual", ["raw_score", "one"], ["is_anomaly"]),
        helper.make_node("Identity", ["raw_score"], ["features"]),
    ]
    window = helper.make_tensor_value_info("window", TensorProto.FLOAT, ["n", slots, signals])
    graph = helper.make_graph(nodes, "tiny", [window], outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def tiny_bundle(
    *, slots: int = 4, context: bool = False, incident_gap: int = 3, minimum: int = 2, salt: str = ""
) -> ActiveBundle:
    """Return a bundle as the device sees an active one; another salt gives another digest."""
    manifest = tiny_manifest(slots=slots, context=context, incident_gap=incident_gap, minimum=minimum)
    references = np.full((2, slots, len(manifest.signals)), 0.1, dtype="<f4")
    if context:
        references[..., 2] = 0.0
    files = {
        "model.onnx": tiny_model(slots=slots, context=context),
        "references.f32": references.tobytes(),
        "manifest.json": manifest.to_bytes(),
    }
    digest = hashlib.sha256(manifest.to_bytes() + salt.encode()).hexdigest()
    return ActiveBundle(digest, manifest, files)


def tiny_golden(windows: np.ndarray) -> tuple[GoldenSpec, bytes]:
    """Return golden windows with the outputs that the plain model gives."""
    sizes = np.abs(windows)
    raw = np.nan_to_num(np.nanmean(sizes, axis=(1, 2))).astype(np.float32)
    parts = [windows, raw / (1 + raw), raw, raw >= 1]
    return GoldenSpec(*windows.shape), b"".join(np.asarray(part, dtype="<f4").tobytes() for part in parts)


def _const(name: str, value: np.generic | np.ndarray) -> onnx.TensorProto:
    return numpy_helper.from_array(np.asarray(value), name)


def _value(name: str, width: int, kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, ["n", width])

"""A built model of the right shape in a millisecond: two signals, one of context, and a graph that adds up."""

from __future__ import annotations

import struct
from functools import cache
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from edge_runtime.contract.golden import GoldenSpec
from edge_runtime.contract.histogram import BINS
from edge_runtime.contract.manifest import Regimes, Signal, Threshold
from edge_runtime.contract.window import WindowRule
from exporter.built import Build, BuiltModel
from exporter.provenance import Provenance

SLOTS, SIGNALS, GOLDEN_WINDOWS, REFERENCES = 3, 2, 4, 2
THRESHOLD = 0.5


@cache
def tiny_graph(*, signals: int = SIGNALS) -> bytes:
    """raw = sum of all values, anomaly = sigmoid(raw), verdict = raw > .5."""
    nodes = [
        helper.make_node("ReduceSum", ["window", "axes"], ["summed"], keepdims=0),
        helper.make_node("Unsqueeze", ["summed", "last"], ["raw_score"]),
        helper.make_node("Sigmoid", ["raw_score"], ["anomaly_score"]),
        helper.make_node("Greater", ["raw_score", "threshold"], ["is_anomaly"]),
    ]
    outputs = [
        helper.make_tensor_value_info(name, kind, ["batch", 1])
        for name, kind in (
            ("anomaly_score", TensorProto.FLOAT),
            ("raw_score", TensorProto.FLOAT),
            ("is_anomaly", TensorProto.BOOL),
        )
    ]
    constants = [
        onnx.numpy_helper.from_array(np.array([1, 2], np.int64), "axes"),
        onnx.numpy_helper.from_array(np.array([1], np.int64), "last"),
        onnx.numpy_helper.from_array(np.array(THRESHOLD, np.float32), "threshold"),
    ]
    window = helper.make_tensor_value_info("window", TensorProto.FLOAT, ["batch", SLOTS, signals])
    graph = helper.make_graph(nodes, "tiny", [window], outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return bytes(model.SerializeToString())


def _golden() -> bytes:
    windows = np.linspace(-1, 1, GOLDEN_WINDOWS * SLOTS * SIGNALS, dtype=np.float32)
    windows = windows.reshape(GOLDEN_WINDOWS, SLOTS, SIGNALS)
    raw = windows.sum(axis=(1, 2), dtype=np.float32).reshape(-1, 1)
    anomaly = (1 / (1 + np.exp(-raw))).astype(np.float32)
    flags = (raw > THRESHOLD).astype(np.float32)
    return b"".join(part.astype("<f4").tobytes() for part in (windows, anomaly, raw, flags))


def _form(precision: str, difference: float, missed: tuple[str, ...] = ()) -> dict[str, Any]:
    fidelity = {
        "windows": 8, "max_raw_difference": difference, "mean_raw_difference": difference / 2, "spearman": 1.0,
        "label_flips": 0, "label_flip_share": 0.0, "auc": 0.99, "auc_change": 0.0,
    }  # fmt: skip
    return {
        "precision": precision, "about": "One sentence.", "float_nodes": [], "bytes": 2000,
        "bytes_deflated": 900 if precision == "fp32" else 600, "missed": list(missed), "sets": {"held out": fidelity},
    }  # fmt: skip


def _cost(deflated: int) -> dict[str, Any]:
    times = {"1": 20.0, "100": 2.0, "10000": 1.0}
    return {"bytes": 2000, "bytes_deflated": deflated, "load_ms": 3.0, "window_us": times, "verdict": "Said why."}


def tiny_card_data(points: int = 5) -> dict[str, Any]:
    """What the plots of a card show."""
    scores = np.linspace(0.1, 0.9, points).tolist()
    return {
        "windows": 50,
        "held_out": True,
        "scores": {
            "edges": [0.0, 0.25, 0.5, 1.0],
            "groups": {
                "healthy, in training": [5, 3, 1],
                "healthy, held out": [4, 4, 0],
                "faulty, held out": [0, 1, 6],
            },
        },
        "fidelity": {"trained": scores, "graphs": {"fp32": scores, "codebook8": scores}},
        "contributions": {
            "signals": ["heat"],
            "groups": {"anomalies": {"windows": 3, "mean": [0.2]}, "healthy windows": {"windows": 4, "mean": [0.01]}},
        },
    }


def tiny_model(cohort: str | None = None, **changes: Any) -> BuiltModel:
    """A built model for one cohort."""
    values: dict[str, Any] = {
        "cohort": cohort,
        "form": "fp32",
        "precisions": {"fp32": "fp32", "codebook8": "codebook8"},
        "candidates": {"fp32": tiny_graph(), "codebook8": tiny_graph()},
        "detector": "isolation_forest",
        "signals": (Signal("heat", "degC", "signal"), Signal("charging", "0/1", "context")),
        "context": ("charging",),
        "window_rule": WindowRule(SLOTS, 60_000, 180_000, 2),
        "features": ("heat_last", "heat_mean"),
        "threshold": Threshold(0.9, THRESHOLD, 0.02),
        "incident_gap": 3,
        "histogram": tuple(range(BINS)),
        "regimes": Regimes(((0.0,), (1.0,)), (0.5,), (0.5,), ((1.0,), (2.0,)), ((1.0,), (1.0,))),
        "references": struct.pack(f"<{REFERENCES * SLOTS * SIGNALS}f", *range(REFERENCES * SLOTS * SIGNALS)),
        "reference_count": REFERENCES,
        "golden_json": GoldenSpec(GOLDEN_WINDOWS, SLOTS, SIGNALS).to_bytes(),
        "golden_f32": _golden(),
        "parity": {
            "chosen": "fp32",
            "reason": "No smaller form keeps the goals and its speed.",
            "candidates": {"fp32": _form("fp32", 2e-7), "codebook8": _form("codebook8", 2e-4)},
        },
        "costs": {"fp32": _cost(900), "codebook8": _cost(600)},
        "evaluation": {"auc": 0.99, "baseline": {"auc": 0.95}},
        "convert_seconds": 0.05,
        "notes": ("Signal heat is fine.",),
        "card_data": tiny_card_data(),
    }
    return BuiltModel(**{**values, **changes})


def tiny_provenance(**changes: Any) -> Provenance:
    """Where it comes from."""
    values: dict[str, Any] = {
        "data_digest": "0" * 64,
        "readings": 1234,
        "devices": {"trained": 6, "held_out": 5},
        "settings": {"model": {"name": "fleet"}},
    }
    return Provenance(**{**values, **changes})


def tiny_build(*cohorts: str) -> Build:
    """A build of the default model and one for each named cohort."""
    return Build(
        models=tuple(tiny_model(cohort) for cohort in (None, *cohorts)),
        notes=("2 readings were set aside: text where numbers should be.",),
        data_digest="0" * 64,
        timings={"train": 0.1},
        devices={"trained": 6, "held_out": 5},
        readings=1234,
    )

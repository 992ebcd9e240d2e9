"""The one graph of a bundle: window in, features, raw score, anomaly score and verdict out."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx

from edge_runtime.contract.manifest import Regimes
from exporter.calibration import Calibration
from exporter.graph.calibration import add_calibration
from exporter.graph.features import FeaturePlan, add_features, window_info
from exporter.graph.nodes import GraphBuilder, tensor_info

# As exporter.detectors.protocol has it; repeated because graphs know no detector.
AddDetector = Callable[[GraphBuilder, str, str], str]


def assemble(
    plan: FeaturePlan,
    regimes: Regimes | None,
    add_detector: AddDetector,
    calibration: Calibration,
    raw_threshold: float,
) -> onnx.ModelProto:
    """Put the graph together.

    Args:
        plan: Which features.
        regimes: What is normal in which context, or None without context.
        add_detector: Adds the detector's nodes.
        calibration: From raw score to anomaly score.
        raw_threshold: Raw score from which a window is an anomaly.

    Returns:
        A model with input ``window`` [batch, W, S] float32 and outputs ``anomaly_score`` and ``raw_score`` [batch, 1]
        float32, ``is_anomaly`` [batch, 1] bool, ``features`` [batch, F] float32 and, with context, ``regime``
        [batch, W] int64.
    """
    graph = GraphBuilder()
    features = add_features(graph, plan, regimes, "window")
    raw_score = add_detector(graph, features, "raw_score")
    add_calibration(graph, calibration, raw_score, name="anomaly_score")
    graph.add("GreaterOrEqual", raw_score, graph.constant(np.float32(raw_threshold)), name="is_anomaly")
    outputs = [
        tensor_info("anomaly_score", np.float32, ("batch", 1)),
        tensor_info("raw_score", np.float32, ("batch", 1)),
        tensor_info("is_anomaly", np.bool_, ("batch", 1)),
        tensor_info("features", np.float32, ("batch", len(plan.names))),
    ]
    if regimes is not None:
        outputs.append(tensor_info("regime", np.int64, ("batch", plan.slots)))
    return graph.model("stella_edge", [window_info(plan)], outputs)

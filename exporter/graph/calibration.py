"""The calibration map as ONNX nodes: a strictly increasing broken line from raw score to anomaly score, in float64."""

from __future__ import annotations

import numpy as np
import onnx

from exporter.calibration import Calibration
from exporter.graph.nodes import GraphBuilder


def add_calibration(graph: GraphBuilder, calibration: Calibration, raw_score: str, *, name: str = "") -> str:
    """Add the map.

    The line is the sum over its pieces of slope * (how far the score reaches into the piece). Each summand grows with
    the score or stays, so the sum is increasing in float64 whatever the rounding; comparing and gathering the piece
    would not be at the knots.

    Args:
        graph: Where to add.
        calibration: Its knots.
        raw_score: Name of a [batch, 1] float32 tensor.
        name: Name of the result; made up when empty.

    Returns:
        Name of the anomaly score: [batch, 1] float32 in [0, 1].
    """
    add, constant = graph.add, graph.constant
    xs, ys = np.array(calibration.raw_scores), np.array(calibration.anomaly_scores)
    widths = np.diff(xs)
    score = add("Cast", raw_score, to=onnx.TensorProto.DOUBLE)
    beyond = add("Sub", score, constant(xs[:-1]))
    reached = add("Min", add("Max", beyond, constant(np.zeros(1))), constant(widths))
    pieces = add("Mul", reached, constant(np.diff(ys) / widths))
    total = add("ReduceSum", pieces, constant(np.array([1], np.int64)), keepdims=1)
    # Rounding may carry the last piece past 1 by one step of float64.
    capped = add("Min", total, constant(np.float64(1)))
    return add("Cast", capped, to=onnx.TensorProto.FLOAT, name=name)

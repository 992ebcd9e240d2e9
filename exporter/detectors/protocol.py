"""What every detector family offers: fit, a raw score, and forms of itself as ONNX nodes.

Raw scores lie in [0, 1] and higher is more anomalous, whatever the training library's own scores look like: libraries
differ in sign and in scale, and that is settled once, here. A forest's score has that range by itself; every other
family passes through ``exporter.graph.squash``, which keeps the order::

    fitted = make_detector(spec.detector).fit(features)
    fitted.raw_scores(features)                          # (n,) float64 in [0, 1]
    fitted.add_to(graph, "features", "raw_score")        # the same as ONNX nodes
    for candidate in fitted.candidates(features): ...    # smaller or faster forms, to be measured
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from exporter.graph.nodes import GraphBuilder, tensor_info
from exporter.graph.running import Graph

FeatureMatrix = npt.NDArray[np.float32]
Scores = npt.NDArray[np.float64]
Precision = Literal["fp32", "codebook8", "int8"]
# Adds a detector's nodes: the graph, the features' name ([batch, F] float32) and the name that its raw score
# ([batch, 1] float32 in [0, 1]) must get; returns that name.
AddDetector = Callable[[GraphBuilder, str, str], str]


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """One form in which a detector could ship.

    Attributes:
        name: Short and unique among a model's candidates, such as ``int8 static per channel entropy``.
        precision: What the manifest will say.
        add: Adds its nodes.
        about: What was done, in one sentence.
        float_nodes: Operators that stayed float, such as ``MatMul /layer3``; empty for fp32.
    """

    name: str
    precision: Precision
    add: AddDetector
    about: str
    float_nodes: tuple[str, ...] = field(default=())


class FittedDetector(Protocol):
    """A trained detector."""

    def raw_scores(self, features: FeatureMatrix) -> Scores:
        """Return the raw scores of (n, F) float32 features by the training library: (n,) in [0, 1]."""

    def add_to(self, graph: GraphBuilder, features: str, name: str) -> str:
        """Add its exact form: from [batch, F] float32 to a raw score [batch, 1] float32 of this name."""

    def candidates(self, features: FeatureMatrix) -> Iterator[Candidate]:
        """Yield its other forms.

        Args:
            features: (n, F) float32 features of healthy training windows, to calibrate on.
        """


class Detector(Protocol):
    """A detector before training."""

    def fit(self, features: FeatureMatrix) -> FittedDetector:
        """Train on (n, F) float32 features of healthy windows, NaN = missing."""


def notes_of(fitted: FittedDetector) -> tuple[str, ...]:
    """Return what a trained detector has to say for the report: its ``notes``, where the family makes any."""
    return tuple(getattr(fitted, "notes", ()))


def graph_scores(
    fitted: FittedDetector, features: FeatureMatrix, *, threads: int | None = None
) -> npt.NDArray[np.float32]:
    """Return raw scores by the exact graph instead of the training library, which is many times faster.

    Args:
        fitted: The detector.
        features: (n, F) float32.
        threads: Blocks that run at the same time; all cores when None.

    Returns:
        (n,) float32, equal to ``raw_scores`` within what ``exporter.proof`` demands of the exact graph.
    """
    return form_scores(fitted.add_to, features, threads=threads)


def form_scores(add: AddDetector, features: FeatureMatrix, *, threads: int | None = None) -> npt.NDArray[np.float32]:
    """Return raw scores by one form of a detector, exact or not.

    Args:
        add: Adds its nodes.
        features: (n, F) float32.
        threads: Blocks that run at the same time; all cores when None.

    Returns:
        (n,) float32.
    """
    graph = GraphBuilder()
    add(graph, "X", "score")
    columns = features.shape[1]
    model = graph.model("detector", [tensor_info("X", "f4", ("n", columns))], [tensor_info("score", "f4", ("n", 1))])
    return np.asarray(Graph(model, threads=threads).run(features, ["score"])[0][:, 0], np.float32)

"""Detectors: what turns features into a raw score, higher being more anomalous.

scikit-learn's own scores run the other way; the sign is turned here, once. A detector that can add itself to an ONNX
graph is all that training and assembly know::

    fitted = make_detector(spec.detector).fit(features)
    fitted.raw_scores(features)         # (n,) float64, in [0, 1]
    fitted.add_to(graph, "features", "raw_score")
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
from sklearn.ensemble import IsolationForest

from exporter.config import DetectorSpec
from exporter.graph.forest import add_forest
from exporter.graph.nodes import GraphBuilder, tensor_info
from exporter.graph.path_forest import PathForest, flatten_forest
from exporter.graph.running import Graph

FeatureMatrix = npt.NDArray[np.float32]


class FittedDetector(Protocol):
    """A trained detector."""

    @property
    def bounded(self) -> bool:
        """Whether raw scores lie in [0, 1]; others are at least 0."""

    def raw_scores(self, features: FeatureMatrix) -> npt.NDArray[np.float64]:
        """Return the raw scores of (n, F) float32 features by the training library: (n,), higher is more anomalous."""

    def add_to(self, graph: GraphBuilder, features: str, name: str) -> str:
        """Add its nodes: from [batch, F] float32 to a raw score [batch, 1] float32 of this name."""


class Detector(Protocol):
    """A detector before training."""

    def fit(self, features: FeatureMatrix) -> FittedDetector:
        """Train on (n, F) float32 features of healthy windows, NaN = missing."""


@dataclass(frozen=True, slots=True, eq=False)
class FittedForest:
    """A trained isolation forest; its raw score is 2 ** (-mean path length / c(n)), in (0, 1].

    Attributes:
        forest: scikit-learn's forest.
        trees: The same as arrays.
    """

    forest: IsolationForest
    trees: PathForest

    @property
    def bounded(self) -> bool:
        """True: the score is a power of two with an exponent of at most 0."""
        return True

    def raw_scores(self, features: FeatureMatrix) -> npt.NDArray[np.float64]:
        """Return ``-score_samples``: (n,) float64."""
        return -np.asarray(self.forest.score_samples(features), np.float64)

    def fast_scores(self, features: FeatureMatrix) -> npt.NDArray[np.float32]:
        """Return the same within 1e-6 by the converted forest, many times faster: (n,) float32."""
        graph = GraphBuilder()
        add_forest(graph, self.trees, "X", name="score")
        columns = self.trees.n_features
        model = graph.model("forest", [tensor_info("X", "f4", ("n", columns))], [tensor_info("score", "f4", ("n", 1))])
        return np.asarray(Graph(model).run(features, ["score"])[0][:, 0], np.float32)

    def add_to(self, graph: GraphBuilder, features: str, name: str) -> str:
        """Add one TreeEnsemble, Mul and Exp."""
        return add_forest(graph, self.trees, features, name=name)


@dataclass(frozen=True, slots=True)
class ForestDetector:
    """An isolation forest before training."""

    spec: DetectorSpec

    def fit(self, features: FeatureMatrix) -> FittedForest:
        """Train on (n, F) float32 features, n >= 1, NaN = missing."""
        wanted = self.spec.max_samples
        forest = IsolationForest(
            n_estimators=self.spec.trees,
            max_samples="auto" if wanted is None else min(wanted, len(features)),
            max_features=self.spec.max_features,
            random_state=self.spec.seed,
        ).fit(features)
        return FittedForest(forest, flatten_forest(forest))


def make_detector(spec: DetectorSpec) -> ForestDetector:
    """Return the detector that ``model.toml`` asks for; config has checked its kind."""
    return ForestDetector(spec)

"""Isolation forest: scikit-learn trains it, one TreeEnsemble node scores it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from sklearn.ensemble import IsolationForest

from exporter.detectors.protocol import Candidate, FeatureMatrix, Scores
from exporter.graph.forest import add_forest
from exporter.graph.nodes import GraphBuilder
from exporter.graph.path_forest import PathForest, flatten_forest
from exporter.graph.tensor_forest import add_tensor_forest
from exporter.quantization.codebook import codebook8
from exporter.quantization.forest_codes import encode_forest
from exporter.spec import DetectorSpec


@dataclass(frozen=True, slots=True, eq=False)
class FittedForest:
    """A trained isolation forest; its raw score is 2 ** (-mean path length / c(n)), in (0, 1].

    Attributes:
        forest: scikit-learn's forest.
        trees: The same as arrays.
    """

    forest: IsolationForest
    trees: PathForest

    def raw_scores(self, features: FeatureMatrix) -> Scores:
        """Return ``-score_samples`` of (n, F) float32 features: (n,) float64."""
        return -np.asarray(self.forest.score_samples(features), np.float64)

    def add_to(self, graph: GraphBuilder, features: str, name: str) -> str:
        """Add one TreeEnsemble, Mul and Exp."""
        return add_forest(graph, self.trees, features, name=name)

    def candidates(self, features: FeatureMatrix) -> Iterator[Candidate]:
        """Yield the smaller forms of the forest."""
        yield from forest_candidates(self.trees, features)


def forest_candidates(trees: PathForest, features: FeatureMatrix) -> Iterator[Candidate]:
    """Yield the smaller forms of any forest of path lengths.

    Args:
        trees: The forest.
        features: (n, F) float32 features of training windows.
    """
    small = codebook8(trees, features)
    codes = encode_forest(small)
    yield Candidate(
        "codebook8",
        "codebook8",
        lambda graph, features, name: add_forest(graph, small, features, name=name),
        "Thresholds and leaf values from 256 levels each, held as float32: smaller to send, not in memory.",
        ("TreeEnsemble",),
    )
    yield Candidate(
        "int8",
        "int8",
        lambda graph, features, name: add_tensor_forest(graph, codes, features, name=name),
        "The same levels as tables of 8-bit codes, spread out when loaded and walked by core operators alone.",
        ("Greater", "Mul", "Exp"),
    )


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

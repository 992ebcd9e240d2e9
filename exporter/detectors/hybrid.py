"""Hybrid: a cohort's own forest and the forest of all devices, scored together and calibrated together.

A cohort of a few devices knows its own normal, and too little of it; the fleet knows more, of others. Both forests
judge the same features, and the raw score is 2 to the minus weighted mean of their normalised path lengths, that is
the weighted geometric mean of their scores. Path lengths add up, so both are one TreeEnsemble.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from exporter.detectors.forest import FittedForest, ForestDetector, forest_candidates
from exporter.detectors.protocol import Candidate, FeatureMatrix, Scores
from exporter.graph.forest import add_forest
from exporter.graph.nodes import GraphBuilder
from exporter.graph.path_forest import LEAF, PathForest
from exporter.spec import DetectorSpec


@dataclass(frozen=True, slots=True, eq=False)
class FittedHybrid:
    """Two trained forests.

    Attributes:
        own: Trained on the cohort.
        shared: Trained on all devices.
        weight: Of the own one, in (0, 1).
        trees: Both as one forest.
    """

    own: FittedForest
    shared: FittedForest
    weight: float
    trees: PathForest

    def raw_scores(self, features: FeatureMatrix) -> Scores:
        """Return the weighted geometric mean of scikit-learn's two scores of (n, F) float32 features: (n,) float64."""
        own, shared = np.log(self.own.raw_scores(features)), np.log(self.shared.raw_scores(features))
        return np.asarray(np.exp(self.weight * own + (1.0 - self.weight) * shared), np.float64)

    def add_to(self, graph: GraphBuilder, features: str, name: str) -> str:
        """Add one TreeEnsemble, Mul and Exp."""
        return add_forest(graph, self.trees, features, name=name)

    def candidates(self, features: FeatureMatrix) -> Iterator[Candidate]:
        """Yield the smaller forms of both forests together."""
        yield from forest_candidates(self.trees, features)


@dataclass(frozen=True, slots=True)
class HybridDetector:
    """A cohort's hybrid before training: settings, and the forest of all devices."""

    spec: DetectorSpec
    shared: FittedForest

    def fit(self, features: FeatureMatrix) -> FittedHybrid:
        """Train the cohort's forest on (n, F) float32 features, n >= 1, NaN = missing."""
        own = ForestDetector(self.spec).fit(features)
        weight = self.spec.cohort_weight
        return FittedHybrid(
            own, self.shared, weight, join_forests((own.trees, weight), (self.shared.trees, 1 - weight))
        )


def join_forests(*weighted: tuple[PathForest, float]) -> PathForest:
    """Return several forests as one whose score is the weighted geometric mean of theirs.

    Args:
        *weighted: Forests on the same columns, each with its weight; weights add up to 1.
    """
    offsets = np.cumsum([0, *(trees.left.size for trees, _ in weighted)])
    counts = np.cumsum([0, *(trees.roots.size for trees, _ in weighted)])
    forests = [trees for trees, _ in weighted]

    def joined(name: str) -> npt.NDArray[np.generic]:
        return np.concatenate([getattr(trees, name) for trees in forests])

    def moved(name: str) -> npt.NDArray[np.int64]:
        children = [getattr(trees, name) for trees in forests]
        return np.concatenate(
            [np.where(part == LEAF, LEAF, part + start) for part, start in zip(children, offsets, strict=False)]
        )

    return PathForest(
        features=np.asarray(joined("features"), np.int64),
        splits=np.asarray(joined("splits"), np.float32),
        left=moved("left"),
        right=moved("right"),
        missing_left=np.asarray(joined("missing_left"), np.bool_),
        # exp(scale * sum of lengths): each forest's scale and weight go into its lengths.
        path_lengths=np.concatenate(
            [(trees.path_lengths * (weight * -trees.scale)).astype(np.float32) for trees, weight in weighted]
        ),
        roots=np.concatenate([trees.roots + start for trees, start in zip(forests, offsets, strict=False)]),
        tree_of=np.concatenate([trees.tree_of + start for trees, start in zip(forests, counts, strict=False)]),
        n_features=forests[0].n_features,
        scale=-1.0,
    )

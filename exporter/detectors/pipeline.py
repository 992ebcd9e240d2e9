"""Any scikit-learn pipeline whose steps become ONNX nodes: scaling, imputing, projecting, and a detector at its end.

scikit-learn gets float64 features and the graph computes in float64 as far as its operators allow, so that both say
the same. Estimators that refuse missing values get the training medians in their place, in the graph as well, unless
the pipeline imputes by itself.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import TensorProto
from sklearn.ensemble import IsolationForest
from sklearn.utils import get_tags
from sklearn.utils._param_validation import InvalidParameterError

from exporter.detectors.endings import Ending, make_ending
from exporter.detectors.estimators import make_estimators
from exporter.detectors.forest import forest_candidates
from exporter.detectors.protocol import AddDetector, Candidate, FeatureMatrix, Scores
from exporter.errors import ConversionError, SpecError
from exporter.graph.forest import add_forest
from exporter.graph.nodes import GraphBuilder
from exporter.graph.path_forest import PathForest, flatten_forest
from exporter.graph.sklearn_steps import ConvertedStep, add_step, convert_step, dense
from exporter.graph.squash import Squash, add_squash
from exporter.spec import DetectorSpec

Matrix = npt.NDArray[np.float64]
# Their time and size grow with the rows that they keep: 2,000 rows of 43 features are 0.7 MB of float64.
KEEPING_ROWS = ("LocalOutlierFactor", "OneClassSVM")
MOST_KEPT_ROWS = 2_000
# More rows than these tell nothing new of a scale, and a neighbour search over all of them takes minutes.
MOST_SCALE_ROWS = 5_000


@dataclass(frozen=True, slots=True, eq=False)
class Preparation:
    """What comes before the last step.

    Attributes:
        fill: (F,) what stands for missing values, or None where the steps take them.
        steps: Fitted steps, each beside its graph.
    """

    fill: npt.NDArray[np.float32] | None
    steps: tuple[tuple[Any, ConvertedStep], ...]

    def values(self, features: FeatureMatrix) -> Matrix:
        """Return (n, F) float32 features as they reach the last step: (n, F') float64."""
        values = _filled(features, self.fill)
        for step, _ in self.steps:
            values = dense(step.transform(values))
        return values

    def add(self, graph: GraphBuilder, features: str) -> str:
        """Add the same: [batch, F] float32 to [batch, F'] float64."""
        if self.fill is not None:
            features = graph.add("Where", graph.add("IsNaN", features), graph.constant(self.fill), features)
        values = graph.add("Cast", features, to=TensorProto.DOUBLE)
        for _, step in self.steps:
            values = add_step(graph, step, values)
        return values


@dataclass(frozen=True, slots=True, eq=False)
class FittedPipeline:
    """A trained pipeline.

    Attributes:
        before: All steps but the last.
        ending: The last step.
        squash: From its score to [0, 1].
        notes: Sentences for the report.
    """

    before: Preparation
    ending: Ending
    squash: Squash
    notes: tuple[str, ...]

    def raw_scores(self, features: FeatureMatrix) -> Scores:
        """Return scikit-learn's scores of (n, F) float32 features, squashed: (n,) float64."""
        return self.squash(self.ending.scores(self.before.values(features)))

    def add_to(self, graph: GraphBuilder, features: str, name: str) -> str:
        """Add imputation, steps, score and squash, in float64."""
        score = self.ending.add(graph, self.before.add(graph, features))
        return add_squash(graph, self.squash, score, name=name)

    def candidates(self, features: FeatureMatrix) -> Iterator[Candidate]:  # noqa: ARG002 - it has one form
        """Yield nothing: the pipeline has one form."""
        yield from ()


@dataclass(frozen=True, slots=True, eq=False)
class FittedForestPipeline:
    """A trained pipeline that ends in an isolation forest, whose score lies in (0, 1] by itself.

    Attributes:
        before: All steps but the last.
        forest: scikit-learn's forest.
        trees: The same as arrays.
        notes: Sentences for the report.
    """

    before: Preparation
    forest: IsolationForest
    trees: PathForest
    notes: tuple[str, ...]

    def raw_scores(self, features: FeatureMatrix) -> Scores:
        """Return ``-score_samples`` of (n, F) float32 features: (n,) float64."""
        return -np.asarray(self.forest.score_samples(self.before.values(features)), np.float64)

    def add_to(self, graph: GraphBuilder, features: str, name: str) -> str:
        """Add imputation, steps and one TreeEnsemble."""
        return add_forest(graph, self.trees, self._prepared(graph, features), name=name)

    def candidates(self, features: FeatureMatrix) -> Iterator[Candidate]:
        """Yield the smaller forms of the forest, behind the same steps."""
        for one in forest_candidates(self.trees, self.before.values(features).astype(np.float32)):
            yield replace(one, add=self._behind(one.add))

    def _behind(self, add_trees: AddDetector) -> AddDetector:
        return lambda graph, features, name: add_trees(graph, self._prepared(graph, features), name)

    def _prepared(self, graph: GraphBuilder, features: str) -> str:
        # scikit-learn's trees take float32, whatever the steps before them made.
        return graph.add("Cast", self.before.add(graph, features), to=TensorProto.FLOAT)


@dataclass(frozen=True, slots=True)
class PipelineDetector:
    """A pipeline before training."""

    spec: DetectorSpec

    def fit(self, features: FeatureMatrix) -> FittedPipeline | FittedForestPipeline:
        """Train on (n, F) float32 features, n >= 1, NaN = missing.

        With many rows a few of them come first, so that what cannot be converted is said before the long training.

        Raises:
            SpecError: A step that does not exist, does not fit its place or these features, or refuses a parameter.
            ConversionError: A step that does not become a graph, or scores that are no numbers.
        """
        if len(features) > 2 * MOST_KEPT_ROWS:
            self._fit(_sample(features, MOST_KEPT_ROWS, self.spec.seed))
        return self._fit(features)

    def _fit(self, features: FeatureMatrix) -> FittedPipeline | FittedForestPipeline:
        *others, last = make_estimators(self.spec.steps, self.spec.seed)
        fill = None if _takes_missing([*others, last]) else _medians(features)
        notes = [] if fill is None else ["Missing values become the training median of their feature."]
        values, steps = _filled(features, fill), []
        for estimator in others:
            notes += _train(estimator, values)
            steps.append((estimator, convert_step(estimator, values)))
            values = dense(estimator.transform(values))
        kept = values
        if type(last).__name__ in KEEPING_ROWS and len(values) > MOST_KEPT_ROWS:
            kept = _sample(values, MOST_KEPT_ROWS, self.spec.seed)
            notes.append(f"{type(last).__name__} keeps its rows: trained on {len(kept):,} of {len(values):,} windows.")
        notes += _train(last, kept)
        before = Preparation(fill, tuple(steps))
        if isinstance(last, IsolationForest):
            return FittedForestPipeline(before, last, flatten_forest(last), tuple(notes))
        ending = make_ending(last, values)
        scores = ending.scores(_sample(values, MOST_SCALE_ROWS, self.spec.seed))
        _check_finite(type(last).__name__, scores)
        return FittedPipeline(before, ending, Squash.fit(scores), tuple(notes))


def _check_finite(name: str, scores: Scores) -> None:
    bad = int((~np.isfinite(scores)).sum())
    if bad:
        raise ConversionError(
            f"{name} scores {bad:,} of {scores.size:,} healthy windows with what is no number.",
            advice="Signals that depend on each other are a known cause: put sklearn.decomposition.PCA before it.",
        )


def _train(estimator: Any, values: Matrix) -> list[str]:
    """Fit a step; returns what scikit-learn warned of, as notes."""
    name = type(estimator).__name__
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            estimator.fit(values)
        except InvalidParameterError as error:
            raise SpecError(f"detector.steps: {name} refuses a parameter: {error}", advice="Correct it.") from error
        except ValueError as error:
            raise SpecError(
                f"detector.steps: {name} cannot be trained on {len(values):,} windows of {values.shape[1]} features: "
                f"{error}",
                advice="Change its parameters, or the step before it.",
            ) from error
    return list(dict.fromkeys(f"{name}: {str(one.message).partition(chr(10))[0]}" for one in caught))


def _takes_missing(estimators: Sequence[Any]) -> bool:
    """Say whether missing values may enter: every step takes them, up to one that imputes or to the end."""
    for estimator in estimators:
        if not get_tags(estimator).input_tags.allow_nan:
            return False
        if type(estimator).__module__.startswith("sklearn.impute"):
            return True
    return True


def _medians(features: FeatureMatrix) -> npt.NDArray[np.float32]:
    """Median of each feature; 0 where training saw no value."""
    known = ~np.isnan(features).all(axis=0)
    fill = np.zeros(features.shape[1], np.float32)
    fill[known] = np.nanmedian(features[:, known], axis=0)
    return fill


def _filled(features: FeatureMatrix, fill: npt.NDArray[np.float32] | None) -> Matrix:
    whole = features if fill is None else np.where(np.isnan(features), fill, features)
    return whole.astype(np.float64)


def _sample(values: npt.NDArray[Any], rows: int, seed: int) -> npt.NDArray[Any]:
    """Return at most so many rows, drawn by the seed, in their order."""
    if len(values) <= rows:
        return values
    return values[np.sort(np.random.default_rng(seed).choice(len(values), rows, replace=False))]

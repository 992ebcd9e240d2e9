"""The last step of a scikit-learn pipeline: its own score, higher is more anomalous, and the same as float64 nodes.

scikit-learn's ``score_samples`` runs the other way, so it is negated here, once. Where skl2onnx has no converter
(EllipticEnvelope), none in float64 (OneClassSVM: onnxruntime's SVMRegressor is float32 only), a slow one
(LocalOutlierFactor) or another output (PCA's reconstruction), the score is a few nodes of our own; the rest goes
through skl2onnx::

    ending = make_ending(estimator, X)          # X as it reaches the step
    ending.scores(X)                            # (n,) float64 by scikit-learn
    ending.add(graph, "x")                      # the same, [batch, 1] float64
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from sklearn.covariance import EllipticEnvelope
from sklearn.neighbors import LocalOutlierFactor
from sklearn.svm import OneClassSVM

from exporter.detectors.estimators import CLUSTERING, RECONSTRUCTING
from exporter.graph.nodes import GraphBuilder
from exporter.graph.sklearn_steps import ConvertedStep, add_step, convert_step

Matrix = npt.NDArray[np.float64]
Scores = npt.NDArray[np.float64]


class Ending(Protocol):
    """A fitted last step."""

    def scores(self, values: Matrix) -> Scores:
        """Return its scores of (n, F) values by scikit-learn: (n,), any range, higher is more anomalous."""

    def add(self, graph: GraphBuilder, values: str) -> str:
        """Add its score: from [batch, F] float64 to [batch, 1] float64."""


def make_ending(estimator: Any, values: Matrix) -> Ending:
    """Return the score of a fitted last step.

    Args:
        estimator: Fitted; one that ``make_estimators`` lets through.
        values: (n, F) float64, the training rows as they reach it.

    Raises:
        ConversionError: skl2onnx does not convert it, or converts it to other scores.
    """
    if isinstance(estimator, EllipticEnvelope):
        return _Distance(estimator)
    if isinstance(estimator, OneClassSVM) and estimator.kernel in _KERNELS:
        return _Support(estimator)
    if isinstance(estimator, LocalOutlierFactor) and estimator.effective_metric_ == "euclidean":
        return _Neighbours(estimator)
    if type(estimator).__name__ in RECONSTRUCTING:
        spread = values.std(axis=0)
        return _Reconstruction(estimator, np.where(spread > 0, spread, 1.0))
    if type(estimator).__name__ in CLUSTERING:
        return _NearestCentre(estimator, convert_step(estimator, values, output="scores"))
    return _converted(estimator, values)


@dataclass(frozen=True, slots=True, eq=False)
class _Distance:
    """Mahalanobis distance: the root of (x - location) P (x - location)', P the precision.

    scikit-learn's score is its square. The root keeps the order and spares the range of float32, for healthy rows of a
    rare regime lie millions of spreads away by the square.
    """

    estimator: Any

    def scores(self, values: Matrix) -> Scores:
        return np.asarray(np.sqrt(-self.estimator.score_samples(values)), np.float64)

    def add(self, graph: GraphBuilder, values: str) -> str:
        add, constant = graph.add, graph.constant
        centred = add("Sub", values, constant(np.asarray(self.estimator.location_, np.float64)))
        turned = add("MatMul", centred, constant(np.asarray(self.estimator.get_precision(), np.float64)))
        return add("Sqrt", add("ReduceSum", add("Mul", turned, centred), _columns(graph), keepdims=1))


@dataclass(frozen=True, slots=True, eq=False)
class _Support:
    """Minus the weighted sum of the kernel between a row and the support vectors (Schoelkopf et al. 2001)."""

    estimator: Any

    def scores(self, values: Matrix) -> Scores:
        return -np.asarray(self.estimator.score_samples(values), np.float64)

    def add(self, graph: GraphBuilder, values: str) -> str:
        vectors = np.asarray(self.estimator.support_vectors_, np.float64)
        kernel = _KERNELS[self.estimator.kernel](graph, self.estimator, values, vectors)
        weights = -np.asarray(self.estimator.dual_coef_, np.float64).reshape(-1, 1)
        return graph.add("MatMul", kernel, graph.constant(weights))


@dataclass(frozen=True, slots=True, eq=False)
class _Neighbours:
    """Local outlier factor by Euclidean distance (Breunig et al. 2000).

    skl2onnx converts it to a loop over rows, 40 times slower at batch 1 than these products and TopK.
    """

    estimator: Any

    def scores(self, values: Matrix) -> Scores:
        return -np.asarray(self.estimator.score_samples(values), np.float64)

    def add(self, graph: GraphBuilder, values: str) -> str:
        add, constant = graph.add, graph.constant
        rows, count = np.asarray(self.estimator._fit_X, np.float64), self.estimator.n_neighbors_
        # Rounding can carry the square of nothing below 0.
        squares = add("Max", _squared_distances(graph, values, rows), constant(np.float64(0)))
        nearest, places = graph.top(squares, count)
        reach = add(
            "Max",
            add("Sqrt", nearest),
            add("Gather", constant(self.estimator._distances_fit_X_[:, count - 1]), places),
        )
        # scikit-learn adds 1e-10, so that copies of a training row have a density.
        sparsity = add("Add", add("ReduceMean", reach, _columns(graph), keepdims=1), constant(np.float64(1e-10)))
        density = add("Gather", constant(np.asarray(self.estimator._lrd, np.float64)), places)
        return add("Mul", add("ReduceMean", density, _columns(graph), keepdims=1), sparsity)


@dataclass(frozen=True, slots=True, eq=False)
class _Reconstruction:
    """Root mean square error of ``inverse_transform(transform(x))``, in training spreads of each column.

    Attributes:
        estimator: A projection with orthonormal ``components_``.
        spread: (F,) training spread of each column; 1 where there is none.
    """

    estimator: Any
    spread: npt.NDArray[np.float64]

    def scores(self, values: Matrix) -> Scores:
        rebuilt = self.estimator.inverse_transform(self.estimator.transform(values))
        return np.asarray(np.sqrt((((values - rebuilt) / self.spread) ** 2).mean(axis=1)), np.float64)

    def add(self, graph: GraphBuilder, values: str) -> str:
        add, constant = graph.add, graph.constant
        components = np.asarray(self.estimator.components_, np.float64)
        centred = add("Sub", values, constant(np.asarray(getattr(self.estimator, "mean_", 0.0), np.float64)))
        codes = add("MatMul", centred, constant(components.T))
        missed = add("Sub", centred, add("MatMul", codes, constant(components)))
        relative = add("Div", missed, constant(self.spread))
        return add("Sqrt", add("ReduceMean", add("Mul", relative, relative), _columns(graph), keepdims=1))


@dataclass(frozen=True, slots=True, eq=False)
class _NearestCentre:
    """Distance to the nearest centre: the smallest column of ``transform``."""

    estimator: Any
    step: ConvertedStep

    def scores(self, values: Matrix) -> Scores:
        return np.asarray(self.estimator.transform(values).min(axis=1), np.float64)

    def add(self, graph: GraphBuilder, values: str) -> str:
        distances = add_step(graph, self.step, values)
        return graph.add("ReduceMin", distances, _columns(graph), keepdims=1)


@dataclass(frozen=True, slots=True, eq=False)
class _Converted:
    """A score that skl2onnx converts: ``score_samples``, or the ``decision_function`` which differs by a constant."""

    method: Callable[[Matrix], npt.NDArray[np.float64]]
    step: ConvertedStep

    def scores(self, values: Matrix) -> Scores:
        return -np.asarray(self.method(values), np.float64)

    def add(self, graph: GraphBuilder, values: str) -> str:
        return graph.add("Neg", add_step(graph, self.step, values))


def _converted(estimator: Any, values: Matrix) -> _Converted:
    # skl2onnx names the output of an outlier detector's decision_function ``scores`` and that of a density's
    # score_samples as scikit-learn does.
    decides = hasattr(estimator, "decision_function")
    method = estimator.decision_function if decides else estimator.score_samples
    step = convert_step(estimator, values, method, output="scores" if decides else "score_samples")
    return _Converted(method, step)


def _linear(graph: GraphBuilder, _: OneClassSVM, values: str, vectors: Matrix) -> str:
    return graph.add("MatMul", values, graph.constant(vectors.T))


def _affine(graph: GraphBuilder, estimator: OneClassSVM, values: str, vectors: Matrix) -> str:
    scaled = graph.add("MatMul", values, graph.constant(vectors.T * estimator._gamma))
    return graph.add("Add", scaled, graph.constant(np.float64(estimator.coef0)))


def _sigmoid(graph: GraphBuilder, estimator: OneClassSVM, values: str, vectors: Matrix) -> str:
    return graph.add("Tanh", _affine(graph, estimator, values, vectors))


def _polynomial(graph: GraphBuilder, estimator: OneClassSVM, values: str, vectors: Matrix) -> str:
    degree = graph.constant(np.float64(estimator.degree))
    return graph.add("Pow", _affine(graph, estimator, values, vectors), degree)


def _radial(graph: GraphBuilder, estimator: OneClassSVM, values: str, vectors: Matrix) -> str:
    apart = _squared_distances(graph, values, vectors)
    return graph.add("Exp", graph.add("Mul", apart, graph.constant(np.float64(-estimator._gamma))))


def _squared_distances(graph: GraphBuilder, values: str, rows: Matrix) -> str:
    """Return |x - r| ** 2 by its three products, both sides moved to the rows' mean first: [batch, n] float64."""
    add, constant = graph.add, graph.constant
    centre = rows.mean(axis=0)
    moved, others = add("Sub", values, constant(centre)), rows - centre
    square = add("ReduceSumSquare", moved, _columns(graph), keepdims=1)
    crossed = add("Add", square, add("MatMul", moved, constant(-2.0 * others.T)))
    return add("Add", crossed, constant((others**2).sum(axis=1)[None]))


def _columns(graph: GraphBuilder) -> str:
    return graph.constant(np.array([1], np.int64))


_KERNELS: dict[str, Callable[[GraphBuilder, OneClassSVM, str, Matrix], str]] = {
    "linear": _linear,
    "poly": _polynomial,
    "rbf": _radial,
    "sigmoid": _sigmoid,
}

"""scikit-learn estimators by import path: from the steps of ``model.toml`` to unfitted estimators, or a clear refusal.

Only ``sklearn.*`` is imported: other names would run any code that a settings file asks for, and skl2onnx converts
nothing else.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

from sklearn.base import BaseEstimator
from sklearn.utils import get_tags
from sklearn.utils.discovery import all_estimators

from exporter.errors import SpecError, did_you_mean
from exporter.spec import StepSpec

# Last steps that score without a score_samples of the kind wanted: by reconstruction error, by the nearest centre.
RECONSTRUCTING = ("PCA", "IncrementalPCA", "TruncatedSVD")
CLUSTERING = ("KMeans", "MiniBatchKMeans")
_SCORING = (
    "IsolationForest, OneClassSVM, SGDOneClassSVM, LocalOutlierFactor, EllipticEnvelope, GaussianMixture, "
    "BayesianGaussianMixture; PCA, IncrementalPCA and TruncatedSVD (reconstruction error); KMeans and MiniBatchKMeans "
    "(distance to the nearest centre)"
)


def make_estimators(steps: Sequence[StepSpec], seed: int) -> list[BaseEstimator]:
    """Make the estimators of a pipeline, unfitted.

    Args:
        steps: In order, at least one; the last one scores.
        seed: Their ``random_state`` where they take one and none is given.

    Returns:
        One estimator a step.

    Raises:
        SpecError: A path that leads to no estimator of scikit-learn, a parameter that it does not take, a step that
            needs labels, one before the last that does not transform, or a last one that gives no score.
    """
    estimators = [_make(step, seed) for step in steps]
    for step, estimator in zip(steps[:-1], estimators[:-1], strict=True):
        if not hasattr(estimator, "transform"):
            raise SpecError(
                f"detector.steps: {step.use} transforms nothing, so it can only be the last step.",
                advice="Leave out what follows it, or name a scaler, an imputer or PCA before it.",
            )
    last = estimators[-1]
    if not hasattr(last, "score_samples") and type(last).__name__ not in (*RECONSTRUCTING, *CLUSTERING):
        raise SpecError(
            f"detector.steps: the last step, {steps[-1].use}, gives no anomaly score for new windows.",
            advice=f"End with one of: {_SCORING}.",
        )
    return estimators


def _make(step: StepSpec, seed: int) -> BaseEstimator:
    kind = _find(step.use)
    known = sorted(kind._get_param_names())
    for name in step.parameters:
        if name not in known:
            raise SpecError(
                f"detector.steps: {step.use} has no parameter {name!r}.", advice=did_you_mean(name, known), key=name
            )
    parameters = {name: _value(value) for name, value in step.parameters.items()}
    if "random_state" in known:
        parameters.setdefault("random_state", seed)
    if kind.__name__ == "LocalOutlierFactor":  # without it scikit-learn scores the training rows only
        parameters.setdefault("novelty", True)
    try:
        estimator = kind(**parameters)
    except TypeError as error:
        raise SpecError(f"detector.steps: {step.use} cannot be made: {error}.", advice=f"See {step.use}.") from error
    if get_tags(estimator).target_tags.required:
        raise SpecError(
            f"detector.steps: {step.use} learns from labels, and a detector is trained on healthy windows alone.",
            advice="Name an outlier detector, or train it elsewhere and use 'exporter import'.",
        )
    return estimator


def _value(value: Any) -> Any:
    """TOML has lists only, and scikit-learn wants tuples, such as for ``quantile_range``."""
    return tuple(_value(item) for item in value) if isinstance(value, list) else value


def _find(path: str) -> type[BaseEstimator]:
    module_name, _, name = path.rpartition(".")
    if module_name.partition(".")[0] != "sklearn":
        raise SpecError(
            f"detector.steps: {path!r} is no estimator of scikit-learn.",
            advice=f"{did_you_mean(path, _paths())} A model trained with another library comes in by "
            "'exporter import'.",
        )
    try:
        found = getattr(importlib.import_module(module_name), name, None)
    except ModuleNotFoundError:
        found = None
    if not (isinstance(found, type) and issubclass(found, BaseEstimator)):
        raise SpecError(
            f"detector.steps: there is no estimator {path!r} in the installed scikit-learn.",
            advice=did_you_mean(path, _paths()),
        )
    return found


def _paths() -> list[str]:
    """Return every estimator's public path: ``sklearn.svm._classes.OneClassSVM`` without its private part."""
    return [
        ".".join([*(part for part in kind.__module__.split(".") if not part.startswith("_")), name])
        for name, kind in all_estimators()
    ]

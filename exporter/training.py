"""Train one model on the windows of one group of devices: out-of-fold scores, calibration, threshold, detector.

The order (contract, Calibration):

1. Healthy windows: those labelled healthy, or all but the most anomalous ``assumed_contamination`` by out-of-fold
   score.
2. Out-of-fold raw scores of them, folds by device, never by row: each fold's means, spreads and detector come from
   the other devices alone.
3. Calibration and threshold on those scores.
4. The shipped detector, on all healthy windows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_runtime.contract.histogram import EDGES
from edge_runtime.contract.manifest import Regimes, Threshold
from exporter.alarms import threshold_for_rate
from exporter.calibration import Calibration, fit_calibration
from exporter.config import CalibrationSpec, DetectorSpec
from exporter.dataset import HEALTHY
from exporter.detectors import FittedDetector, graph_scores, make_detector
from exporter.errors import TelemetryError
from exporter.graph.features import FeaturePlan, feature_model, plan_features
from exporter.graph.running import Graph
from exporter.regimes import Clusters, find_clusters, fit_regimes
from exporter.window_sets import WindowSet

FOLDS = 5
LEAVE_ONE_OUT_BELOW = 10
# A signal that goes missing more rarely than this in training does not earn a feature for it.
SHARE_WORTH_A_FEATURE = 0.001


@dataclass(frozen=True, slots=True, eq=False)
class Trained:
    """A trained model, not yet a graph.

    Attributes:
        plan: Its features.
        clusters: Regimes of the context alone, or None without context.
        regimes: What is normal in which context, or None without context.
        detector: Trained on all healthy windows.
        calibration: From raw score to anomaly score.
        threshold: From which score on a window is an anomaly.
        histogram: 15 counts of out-of-fold anomaly scores.
        healthy: The windows it was trained on.
        features: (m, F) float32 of them.
        out_of_fold: (m,) float64, their out-of-fold raw scores.
        notes: Sentences for the report.
    """

    plan: FeaturePlan
    clusters: Clusters | None
    regimes: Regimes | None
    detector: FittedDetector
    calibration: Calibration
    threshold: Threshold
    histogram: tuple[int, ...]
    healthy: WindowSet
    features: npt.NDArray[np.float32]
    out_of_fold: npt.NDArray[np.float64]
    notes: tuple[str, ...]

    def feature_graph(self) -> Graph:
        """Return the feature graph, ready to run."""
        return Graph(feature_model(self.plan, self.regimes))


@dataclass(frozen=True, slots=True)
class Columns:
    """Columns of the window: the signals that are judged, and the context after them; and the wanted statistics."""

    signals: tuple[str, ...]
    context: tuple[str, ...]
    statistics: tuple[str, ...]


def train(
    windows: WindowSet,
    columns: Columns,
    detector: DetectorSpec,
    calibration: CalibrationSpec,
    *,
    labelled: bool,
    clusters: Clusters | None = None,
) -> Trained:
    """Train one model.

    Args:
        windows: All windows of the training devices.
        columns: What the columns are, and which statistics are features.
        detector: Kind, size and seed.
        calibration: Alarm rate or threshold, and what counts as healthy.
        labelled: Whether labels say which windows are healthy.
        clusters: Regimes of the context where they are known already; else they are found.

    Returns:
        The model.

    Raises:
        TelemetryError: There is no healthy window, no reading with a whole context, too little for the wanted alarm
            rate, or all windows score the same.
        SpecError: A statistic is unknown.
    """
    group = windows.take(windows.labels == HEALTHY) if labelled else windows
    _check_healthy(group, columns)
    plan = plan_features(
        columns.statistics,
        signals=columns.signals,
        context=columns.context,
        slots=windows.rule.slots,
        shares=_signals_that_go_missing(group, columns.signals),
    )
    clusters = clusters or _clusters(group, plan, detector.seed)
    notes = _notes(group, columns)
    scores = out_of_fold_scores(group, plan, clusters, detector)
    dropped = 0.0 if labelled else calibration.assumed_contamination
    if dropped:
        group = group.take(scores <= np.quantile(scores, 1.0 - dropped))
        scores = out_of_fold_scores(group, plan, clusters, detector)
        notes.append(f"Without labels the most anomalous {dropped:.2%} of the windows were taken for faulty.")
    return _finish(group, plan, clusters, detector, calibration, scores, tuple(notes))


def _finish(
    group: WindowSet,
    plan: FeaturePlan,
    clusters: Clusters | None,
    detector: DetectorSpec,
    calibration: CalibrationSpec,
    scores: npt.NDArray[np.float64],
    notes: tuple[str, ...],
) -> Trained:
    """Calibrate on out-of-fold scores and train the shipped detector on all of the healthy windows."""
    fitted_map = fit_calibration(scores)
    threshold = _threshold(group, scores, fitted_map, calibration)
    regimes = _regimes(clusters, group, plan)
    features = _features(group, plan, regimes)
    return Trained(
        plan=plan,
        clusters=clusters,
        regimes=regimes,
        detector=make_detector(detector).fit(features),
        calibration=fitted_map,
        threshold=threshold,
        histogram=tuple(np.histogram(fitted_map(scores), bins=EDGES)[0].tolist()),
        healthy=group,
        features=features,
        out_of_fold=scores,
        notes=notes,
    )


def out_of_fold_scores(
    windows: WindowSet, plan: FeaturePlan, clusters: Clusters | None, detector: DetectorSpec
) -> npt.NDArray[np.float64]:
    """Score each window by a forest, means and spreads that saw nothing of its device.

    Args:
        windows: Healthy windows.
        plan: Their features.
        clusters: Regimes of the context of all devices: where they lie says nothing of any judged signal. The means and
            spreads within them are measured anew for each fold.
        detector: Kind, size and seed.

    Returns:
        (m,) raw scores.
    """
    scores = np.empty(len(windows), np.float64)
    for held in _folds(windows, detector.seed):
        rest = windows.take(~held)
        regimes = _regimes(clusters, rest, plan)
        fitted = make_detector(detector).fit(_features(rest, plan, regimes))
        scores[held] = graph_scores(fitted, _features(windows.take(held), plan, regimes))
    return scores


def _check_healthy(windows: WindowSet, columns: Columns) -> None:
    """Refuse windows that nothing can be learnt from."""
    if not len(windows):
        raise TelemetryError(
            "No window of the training devices is labelled healthy (0).",
            advice="Label some of their readings, or choose other devices with train.holdout.",
        )
    context = windows.newest[:, len(columns.signals) :]
    if columns.context and np.isnan(context).any(axis=1).all():
        raise TelemetryError(
            f"No healthy training reading has a value for all of its context ({', '.join(columns.context)}).",
            advice="Leave out of data.context what is never known.",
        )


def _folds(windows: WindowSet, seed: int) -> Iterator[npt.NDArray[np.bool_]]:
    """Yield masks of held-out windows: 5 folds of devices, or one device each below 10 devices.

    A single device has no other to be scored by; five stretches of its time stand in.
    """
    present = np.unique(windows.device)
    if present.size == 1:
        fold = np.arange(len(windows)) * FOLDS // max(1, len(windows))
        number = FOLDS
    else:
        number = present.size if present.size < LEAVE_ONE_OUT_BELOW else FOLDS
        of_device = np.empty(int(present.max()) + 1, np.int64)
        of_device[np.random.default_rng(seed).permutation(present)] = np.arange(present.size) % number
        fold = of_device[windows.device]
    for k in range(number):
        held = fold == k
        if held.any() and not held.all():
            yield held


def _clusters(windows: WindowSet, plan: FeaturePlan, seed: int) -> Clusters | None:
    if not plan.context:
        return None
    return find_clusters(windows.newest[:, len(plan.signals) :].astype(np.float64), seed)


def _regimes(clusters: Clusters | None, windows: WindowSet, plan: FeaturePlan) -> Regimes | None:
    if clusters is None:
        return None
    readings = windows.newest.astype(np.float64)
    return fit_regimes(clusters, readings[:, len(plan.signals) :], readings[:, : len(plan.signals)])


def _features(windows: WindowSet, plan: FeaturePlan, regimes: Regimes | None) -> npt.NDArray[np.float32]:
    return np.asarray(windows.run(Graph(feature_model(plan, regimes)), ["features"])[0], np.float32)


def _threshold(
    windows: WindowSet, scores: npt.NDArray[np.float64], fitted: Calibration, spec: CalibrationSpec
) -> Threshold:
    if spec.threshold is not None:
        raw, rate = np.float32(fitted.inverse(spec.threshold)), None
    else:
        rate = spec.alarms_per_device_day
        raw = np.float32(
            threshold_for_rate(windows, scores, alarms_per_device_day=rate, incident_gap=spec.incident_gap)
        )
    return Threshold(anomaly_score=float(np.float32(fitted(raw))), raw_score=float(raw), alarms_per_device_day=rate)


def _signals_that_go_missing(windows: WindowSet, signals: tuple[str, ...]) -> tuple[str, ...]:
    """Signals that are missing in some training readings and there in others."""
    missing = np.isnan(windows.newest[:, : len(signals)]).mean(axis=0) if len(windows) else np.zeros(len(signals))
    return tuple(
        name for name, share in zip(signals, missing.tolist(), strict=True) if SHARE_WORTH_A_FEATURE <= share < 1
    )


def _notes(windows: WindowSet, columns: Columns) -> list[str]:
    notes = []
    readings = windows.newest
    for i, name in enumerate((*columns.signals, *columns.context)):
        column = readings[:, i]
        there = column[~np.isnan(column)]
        if not there.size:
            notes.append(f"Signal {name!r} has no value in any healthy training reading.")
        elif there.min() == there.max():
            notes.append(f"Signal {name!r} is constant ({there[0]:g}) in all healthy training readings.")
    if np.unique(windows.device).size == 1:
        notes.append("One device only: calibrated on five stretches of its time, not on other devices.")
    return notes

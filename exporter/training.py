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

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_runtime.contract.histogram import EDGES
from edge_runtime.contract.manifest import Regimes, Threshold
from exporter.alarms import threshold_for_rate
from exporter.calibration import Calibration, fit_calibration
from exporter.config import CalibrationSpec, DetectorSpec
from exporter.dataset import HEALTHY
from exporter.detectors import FittedDetector, graph_scores, make_detector, notes_of
from exporter.errors import TelemetryError
from exporter.folds import Fold, Folds, fold_of_devices, stretches
from exporter.graph.features import FeaturePlan, feature_model, plan_features
from exporter.graph.running import Graph
from exporter.regimes import Clusters, find_clusters, fit_regimes
from exporter.window_sets import WindowSet

# A signal that goes missing more rarely than this in training does not earn a feature for it.
SHARE_WORTH_A_FEATURE = 0.001
# A forest of 300 trees draws 76,800 windows, and means and spreads are known to a third of a percent long before: of
# more windows a sample trains, drawn over all devices.
MOST_TRAINED = 100_000
# A quantile of .999 rests on 1,000 windows then; of more windows those of a sample of whole devices calibrate.
MOST_CALIBRATED = 1_000_000


@dataclass(frozen=True, slots=True, eq=False)
class Trained:
    """A trained model, not yet a graph.

    Attributes:
        plan: Its features.
        clusters: Regimes of the context alone, or None without context.
        regimes: What is normal in which context, or None without context.
        detector: Trained on all healthy windows, or a sample of them where they are very many.
        calibration: From raw score to anomaly score.
        threshold: From which score on a window is an anomaly.
        histogram: 15 counts of out-of-fold anomaly scores.
        healthy: The healthy windows that it was calibrated on.
        out_of_fold: (m,) float64, their out-of-fold raw scores.
        features: (k, F) float32 of the windows that the detector was trained on.
        folds: What the folds learnt, for the hybrid models of cohorts; None for other detectors.
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
    out_of_fold: npt.NDArray[np.float64]
    features: npt.NDArray[np.float32]
    folds: Folds | None
    notes: tuple[str, ...]

    def feature_graph(self) -> Graph:
        """Return the feature graph, ready to run."""
        return Graph(feature_model(self.plan, self.regimes))

    def base(self) -> Base:
        """Return what the hybrid models of cohorts build on.

        Raises:
            ValueError: It was not trained as a hybrid.
        """
        if self.folds is None:
            raise ValueError("only a hybrid keeps what its folds learnt")
        return Base(self.plan, self.clusters, self.regimes, self.detector, self.folds)


@dataclass(frozen=True, slots=True, eq=False)
class Base:
    """The model of all devices, as far as a cohort's hybrid model shares it: features, regimes, detector, folds."""

    plan: FeaturePlan
    clusters: Clusters | None
    regimes: Regimes | None
    detector: FittedDetector
    folds: Folds


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
    base: Base | None = None,
    calibrate: bool = True,
) -> Trained:
    """Train one model.

    Args:
        windows: All windows of the training devices.
        columns: What the columns are, and which statistics are features.
        detector: Kind, size and seed.
        calibration: Alarm rate or threshold, and what counts as healthy.
        labelled: Whether labels say which windows are healthy.
        clusters: Regimes of the context where they are known already; else they are found.
        base: For a cohort's hybrid model, the model of all devices.
        calibrate: False lets scores of the training windows themselves stand in for out-of-fold ones: several times
            as fast and as good for comparing detectors by the order of their scores, but no model to ship.

    Returns:
        The model.

    Raises:
        TelemetryError: There is no healthy window, no reading with a whole context, too little for the wanted alarm
            rate, or all windows score the same.
        SpecError: A statistic is unknown.
    """
    group = windows.take(windows.labels == HEALTHY) if labelled else windows
    _check_healthy(group, columns)
    if base is None:
        plan = plan_features(
            columns.statistics,
            signals=columns.signals,
            context=columns.context,
            slots=windows.rule.slots,
            # A foreign model takes the features that it was trained on, whatever goes missing here.
            shares=() if detector.onnx is not None else _signals_that_go_missing(group, columns.signals),
        )
        clusters = clusters or _clusters(group, plan, detector.seed)
    else:
        plan, clusters = base.plan, base.clusters
    learner = _Learner(plan, clusters, detector, base, calibrate)
    notes = _notes(group, columns)
    if not labelled and calibration.assumed_contamination:
        dropped = calibration.assumed_contamination
        scores, _ = learner.out_of_fold(group)
        group = group.take(scores <= np.quantile(scores, 1.0 - dropped))
        notes.append(f"Without labels the most anomalous {dropped:.2%} of the windows were taken for faulty.")
    return _finish(learner, group, calibration, notes)


def _finish(learner: _Learner, group: WindowSet, calibration: CalibrationSpec, notes: list[str]) -> Trained:
    """Calibrate on out-of-fold scores and train the shipped detector on the healthy windows."""
    judged = group.whole_devices(MOST_CALIBRATED, learner.spec.seed)
    notes += _size_notes(group, judged)
    scores, folds = learner.out_of_fold(group, judged)
    fitted_map = fit_calibration(scores)
    final = learner.learn(group)
    return Trained(
        plan=learner.plan,
        clusters=learner.clusters,
        regimes=final.regimes,
        detector=final.detector,
        calibration=fitted_map,
        threshold=_threshold(judged, scores, fitted_map, calibration),
        histogram=tuple(np.histogram(fitted_map(scores), bins=EDGES)[0].tolist()),
        healthy=judged,
        out_of_fold=scores,
        features=final.features,
        folds=folds if learner.spec.kind == "hybrid" else None,
        notes=(*notes, *notes_of(final.detector)),
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Learnt:
    regimes: Regimes | None
    detector: FittedDetector
    features: npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class _Learner:
    """Learns a detector of some windows: the plan and the clusters are settled, the rest comes from the windows."""

    plan: FeaturePlan
    clusters: Clusters | None
    spec: DetectorSpec
    base: Base | None
    leaves_out: bool = True

    def learn(self, windows: WindowSet, fold: int | None = None) -> _Learnt:
        """Train on healthy windows; ``fold`` names the part of the base that saw the same devices."""
        sample = windows.sample(MOST_TRAINED, self.spec.seed)
        if self.base is None:
            regimes, shared = _regimes(self.clusters, sample, self.plan), None
        elif fold is None:
            regimes, shared = self.base.regimes, self.base.detector
        else:
            learnt = self.base.folds.learnt[fold]
            regimes, shared = learnt.regimes, learnt.detector
        features = _features(sample, self.plan, regimes)
        return _Learnt(regimes, make_detector(self.spec, shared).fit(features), features)

    def out_of_fold(
        self, windows: WindowSet, judged: WindowSet | None = None
    ) -> tuple[npt.NDArray[np.float64], Folds | None]:
        """Score each window by a detector, means and spreads that saw nothing of its device.

        Args:
            windows: Healthy windows.
            judged: Those of them to score, whole devices; all when None.

        Returns:
            (m,) raw scores of the judged windows, and what the folds learnt, where folds are devices.
        """
        judged = windows if judged is None else judged
        # What learnt elsewhere learns nothing here: folds would only give its score five scales.
        if self.spec.onnx is not None or not self.leaves_out:
            return self._score(self.learn(windows), judged).astype(np.float64), None
        of_device = fold_of_devices(windows, self.spec.seed) if self.base is None else self.base.folds.of_device
        scores = np.empty(len(judged), np.float64)
        if of_device is None:
            for held in stretches(len(windows)):
                scores[held] = self._score(self.learn(windows.take(~held)), windows.take(held))
            return scores, None
        learnt = []
        for fold in range(int(of_device.max()) + 1):
            one = self.learn(windows.take(of_device[windows.device] != fold), fold)
            learnt.append(Fold(one.regimes, one.detector))
            held = of_device[judged.device] == fold
            scores[held] = self._score(one, judged.take(held))
        return scores, Folds(of_device, tuple(learnt))

    def _score(self, learnt: _Learnt, windows: WindowSet) -> npt.NDArray[np.float32]:
        return graph_scores(learnt.detector, _features(windows, self.plan, learnt.regimes))


def _check_healthy(windows: WindowSet, columns: Columns) -> None:
    """Refuse windows that nothing can be learnt from."""
    if not len(windows):
        raise TelemetryError(
            "No window of the training devices is labelled healthy (0).",
            advice="Label some of their readings, or choose other devices with train.holdout.",
        )
    context = windows.newest_of(slice(len(columns.signals), None))
    if columns.context and np.isnan(context).any(axis=1).all():
        raise TelemetryError(
            f"No healthy training reading has a value for all of its context ({', '.join(columns.context)}).",
            advice="Leave out of data.context what is never known.",
        )


def _clusters(windows: WindowSet, plan: FeaturePlan, seed: int) -> Clusters | None:
    if not plan.context:
        return None
    return find_clusters(windows.newest_of(slice(len(plan.signals), None)), seed)


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
    shares = [np.isnan(windows.newest_of(slice(i, i + 1))).mean() for i in range(len(signals))]
    return tuple(name for name, share in zip(signals, shares, strict=True) if SHARE_WORTH_A_FEATURE <= share < 1)


def _size_notes(group: WindowSet, judged: WindowSet) -> list[str]:
    notes = []
    if len(group) > MOST_TRAINED:
        notes.append(f"Of {len(group):,} healthy windows a sample of {MOST_TRAINED:,}, over all devices, trained.")
    if len(judged) < len(group):
        notes.append(
            f"Calibrated on the {len(judged):,} healthy windows of {np.unique(judged.device).size:,} devices, drawn "
            "from all."
        )
    return notes


def _notes(windows: WindowSet, columns: Columns) -> list[str]:
    notes = []
    for i, name in enumerate((*columns.signals, *columns.context)):
        column = windows.newest_of(slice(i, i + 1))
        there = column[~np.isnan(column)]
        if not there.size:
            notes.append(f"Signal {name!r} has no value in any healthy training reading.")
        elif there.min() == there.max():
            notes.append(f"Signal {name!r} is constant ({there[0]:g}) in all healthy training readings.")
    if np.unique(windows.device).size == 1:
        notes.append("One device only: calibrated on five stretches of its time, not on other devices.")
    return notes

"""One specification, trained and judged: a pure function of settings and evidence, so trials may run anywhere.

The evidence is made once for all trials, and all of them are judged on the same readings: those for which each has a
window. It is labels where there are any. Where there are none, faults are injected into the held-out telemetry, the
same ones for every trial.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score

from edge_runtime.errors import InputError
from exporter.config import ModelSpec
from exporter.dataset import FAULTY, HEALTHY, Device
from exporter.detectors import graph_scores
from exporter.errors import ConversionError, TelemetryError
from exporter.evidence.faults import KINDS, SEVERITIES, healthy_spreads, inject_faults
from exporter.evidence.grid import describe
from exporter.graph.assembly import assemble
from exporter.training import Base, Columns, Trained, train
from exporter.window_sets import WindowSet, cut_windows, window_rule

By = Literal["labels", "faults"]
HYBRID = "hybrid"
# A device with fewer readings says too little of its signals' spreads; the training devices' stand in.
_READINGS_FOR_SPREAD = 100
# Scores do not depend on the threshold: any will do, and none is refused for too little data.
_ANY_THRESHOLD = 0.5


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """The devices of one model.

    Attributes:
        name: A cohort, a device, or ``all``.
        trained: Readings to train on.
        judged: Readings to judge by; those labelled 0 or 1 count.
    """

    name: str
    trained: tuple[Device, ...]
    judged: tuple[Device, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """What every trial is judged by.

    Attributes:
        parts: One model each; a trial's figures are means over them.
        columns: Columns of the devices' readings.
        signals: Those that faults may change: none that any trial takes for context.
        by: Labels, or injected faults.
        learns_from_labels: Whether labels say which training readings are healthy.
        settle: Readings after an injected fault that are not judged: the longest window among the trials.
        seed: Of the injected faults.
    """

    parts: tuple[Part, ...]
    columns: tuple[str, ...]
    signals: tuple[str, ...]
    by: By
    learns_from_labels: bool
    settle: int = 0
    seed: int = 0

    @property
    def trained(self) -> tuple[Device, ...]:
        """The training devices of all parts, which settle the interval of a window."""
        return tuple(device for part in self.parts for device in part.trained)


@dataclass(frozen=True, slots=True, eq=False)
class Trial:
    """What one specification reached; or why it cannot be trained.

    Attributes:
        spec: The specification.
        refused: Why there are no figures; empty otherwise.
        quality: What it is ranked by: the AUC, a mean over parts and, with faults, over kinds; NaN when refused.
        average_precision: The same mean of the average precision.
        parts: AUC by part.
        faults: AUC by kind of fault and severity, means over parts; empty where labels judge.
        features: How many features a window gets.
        judged: Windows judged, faulty ones among them.
        seconds: What training and judging took.
        graph: The fp32 graph of the first part's model.
    """

    spec: ModelSpec
    refused: str = ""
    quality: float = float("nan")
    average_precision: float = float("nan")
    parts: Mapping[str, float] = field(default_factory=dict)
    faults: Mapping[str, Mapping[float, float]] = field(default_factory=dict)
    features: int = 0
    judged: tuple[int, int] = (0, 0)
    seconds: float = 0.0
    graph: bytes = b""

    @property
    def name(self) -> str:
        """What tells it from the others."""
        return describe(self.spec)

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as one JSON-ready object."""
        spec = self.spec
        settings = {
            "detector": spec.detector.kind,
            "slots": spec.window.slots,
            "statistics": list(spec.features.statistics),
            "context": list(spec.data.context),
        }
        if self.refused:
            return {**settings, "refused": self.refused}
        kinds = {kind: {f"{size:g}": auc for size, auc in sizes.items()} for kind, sizes in self.faults.items()}
        return {
            **settings,
            "refused": None,
            "auc": self.quality,
            "average_precision": self.average_precision,
            "auc_by_part": dict(self.parts),
            "auc_by_fault": kinds,
            "features": self.features,
            "windows": self.judged[0],
            "faulty_windows": self.judged[1],
            "seconds": round(self.seconds, 3),
        }


def run_trial(spec: ModelSpec, evidence: Evidence) -> Trial:
    """Train and judge one specification.

    Args:
        spec: The settings.
        evidence: What to train on and to judge by.

    Returns:
        The trial; a refused one where the settings do not fit the data.
    """
    began = time.perf_counter()
    try:
        outcomes = list(_outcomes(spec, evidence))
    except (InputError, ConversionError) as error:
        return Trial(spec, refused=error.message)
    first = outcomes[0]
    labels = np.array([outcome.judged for outcome in outcomes], np.int64).sum(axis=0)
    return Trial(
        spec,
        quality=float(np.mean([outcome.auc for outcome in outcomes])),
        average_precision=float(np.mean([outcome.average_precision for outcome in outcomes])),
        parts={part.name: outcome.auc for part, outcome in zip(evidence.parts, outcomes, strict=True)},
        faults=_mean_faults([outcome.faults for outcome in outcomes]),
        features=first.features,
        judged=(int(labels[0]), int(labels[1])),
        seconds=time.perf_counter() - began,
        graph=first.graph,
    )


def judged_windows(spec: ModelSpec, evidence: Evidence, devices: Sequence[Device]) -> WindowSet:
    """Return the windows of some devices that count: those whose newest reading is labelled 0 or 1.

    Raises:
        SpecError: The window rule is impossible.
    """
    windows = _windows(spec, devices, evidence)
    return windows.take((windows.labels == HEALTHY) | (windows.labels == FAULTY))


@dataclass(frozen=True, slots=True, eq=False)
class _Outcome:
    """A trial's figures of one part; ``judged`` are windows and faulty ones."""

    auc: float
    average_precision: float
    faults: dict[str, dict[float, float]]
    features: int
    judged: tuple[int, int]
    graph: bytes


def _outcomes(spec: ModelSpec, evidence: Evidence) -> Iterator[_Outcome]:
    """Train and judge a model for each part; a hybrid's parts build on a model of all of their devices."""
    base = None
    numbers = np.cumsum([0, *(len(part.trained) for part in evidence.parts)])
    windows = _windows(spec, [device for part in evidence.parts for device in part.trained], evidence)
    if spec.detector.kind == HYBRID and len(evidence.parts) > 1:
        base = _train(spec, windows, evidence, calibrate=True).base()
    for part, first, stop in zip(evidence.parts, numbers[:-1], numbers[1:], strict=True):
        own = windows.of_devices(np.arange(first, stop))
        if not len(own):
            rule = windows.rule
            raise TelemetryError(
                f"{part.name}: no device has {rule.minimum_readings} readings in {rule.slots} slots of "
                f"{rule.interval_ms / 1000:g} s.",
                advice="Try shorter windows.",
            )
        yield _outcome(spec, part, evidence, _train(spec, own, evidence, base))


def _outcome(spec: ModelSpec, part: Part, evidence: Evidence, trained: Trained) -> _Outcome:
    graph = assemble(
        trained.plan, trained.regimes, trained.detector.add_to, trained.calibration, trained.threshold.raw_score
    )
    judgements: dict[tuple[str, float], tuple[float, float]] = {}
    windows = faulty = 0
    for case, devices in _cases(part, evidence):
        chosen = judged_windows(spec, evidence, devices)
        judgements[case] = _judge(trained, chosen, part)
        windows += len(chosen)
        faulty += int(np.count_nonzero(chosen.labels == FAULTY))
    faults: dict[str, dict[float, float]] = {}
    for (kind, severity), (auc, _) in judgements.items():
        if kind:
            faults.setdefault(kind, {})[severity] = auc
    kinds = list(dict.fromkeys(kind for kind, _ in judgements))
    figures = [np.mean([pair for case, pair in judgements.items() if case[0] == kind], axis=0) for kind in kinds]
    auc, precision = np.mean(figures, axis=0).tolist()
    return _Outcome(auc, precision, faults, len(trained.plan.names), (windows, faulty), graph.SerializeToString())


def _windows(spec: ModelSpec, devices: Sequence[Device], evidence: Evidence) -> WindowSet:
    columns: Sequence[str] = evidence.columns
    if tuple(columns) != spec.data.columns:
        order = [columns.index(name) for name in spec.data.columns]
        devices = [replace(device, values=np.ascontiguousarray(device.values[:, order])) for device in devices]
    return cut_windows(devices, window_rule(spec.window, evidence.trained))


def _train(
    spec: ModelSpec, windows: WindowSet, evidence: Evidence, base: Base | None = None, *, calibrate: bool = False
) -> Trained:
    columns = Columns(spec.data.signals, spec.data.context, spec.features.statistics)
    calibration = replace(spec.calibration, threshold=_ANY_THRESHOLD)
    return train(
        windows,
        columns,
        spec.detector,
        calibration,
        labelled=evidence.learns_from_labels,
        base=base,
        calibrate=calibrate,
    )


def _cases(part: Part, evidence: Evidence) -> Iterator[tuple[tuple[str, float], tuple[Device, ...]]]:
    """Yield what is judged: the labelled devices under an empty kind, or each kind and severity of fault."""
    if evidence.by == "labels":
        yield ("", 0.0), part.judged
        return
    may_change = np.isin(evidence.columns, evidence.signals)
    fleet_wide = healthy_spreads(part.trained)
    for number, kind in enumerate(KINDS):
        for severity in SEVERITIES[kind]:
            devices = []
            for which, device in enumerate(part.judged):
                known = device.timestamps_ms.size >= _READINGS_FOR_SPREAD
                spreads = may_change * (healthy_spreads([device]) if known else fleet_wide)
                # The same places, signals and directions at every severity.
                rng = np.random.default_rng([evidence.seed, number, which])
                faulty = inject_faults(device, spreads, kind=kind, severity=severity, settle=evidence.settle, rng=rng)
                devices.append(faulty.device)
            yield (kind, severity), tuple(devices)


def _judge(trained: Trained, windows: WindowSet, part: Part) -> tuple[float, float]:
    """Return AUC and average precision of a model's scores."""
    if np.unique(windows.labels).size < 2:
        raise TelemetryError(
            f"{part.name}: there is nothing to judge by, of {len(windows)} windows "
            f"{np.count_nonzero(windows.labels == FAULTY)} are faulty.",
            advice="Hold out more devices, or judge the fleet as a whole.",
        )
    features = np.asarray(windows.run(trained.feature_graph(), ["features"])[0], np.float32)
    scores = graph_scores(trained.detector, features)
    faulty = windows.labels == FAULTY
    return float(roc_auc_score(faulty, scores)), float(average_precision_score(faulty, scores))


def _mean_faults(by_part: Sequence[Mapping[str, Mapping[float, float]]]) -> dict[str, dict[float, float]]:
    first = by_part[0]
    return {
        kind: {severity: float(np.mean([part[kind][severity] for part in by_part])) for severity in first[kind]}
        for kind in first
    }

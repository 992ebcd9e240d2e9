"""The steps behind ``build_models``: one group of devices to one ``BuiltModel``."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_runtime.contract.manifest import Signal
from exporter.built import BuiltModel
from exporter.candidates import Choice, Measured, choose
from exporter.card_data import card_data
from exporter.config import DetectorSpec, ModelSpec
from exporter.costs import measure_costs
from exporter.detectors import graph_scores
from exporter.evaluation import evaluate
from exporter.golden import Golden, make_golden
from exporter.graph.running import Graph
from exporter.holdout import learns_from_labels
from exporter.proof import Proof, inexact, measured_forms, parity_dict, prove
from exporter.quantization.network import FEWEST_ROWS
from exporter.references import choose_references
from exporter.spec import HELD_OUT, TRAINING
from exporter.training import Base, Columns, Trained, train
from exporter.window_sets import WindowSet

# Figures on held-out devices rest on so many windows at most, of whole devices.
MOST_EVALUATED = 1_000_000
# Graphs are timed on so many windows at most, and so many values: 100 MB.
MOST_TIMED, MOST_TIMED_VALUES = 20_000, 25_000_000
# A model this much worse than single readings is no model: windows without context do that (design, section 1).
BASELINE_MARGIN = 0.01
# Detectors whose integer forms are calibrated on windows.
NETWORKS = ("autoencoder", "onnx")
# The anomaly score orders as the raw score does (contract, Calibration).
AUC_TOLERANCE = 1e-4
# Steps of one model: train, prove, measure, golden windows, evaluate.
_LAPS = 5


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """The devices of one model.

    Attributes:
        cohort: Their cohort, or None for all.
        windows: Of the training devices, all labels.
        held_out: Of the held-out devices, all labels; empty when none are.
        proofs: More windows to prove the graph on, by the name of their data set.
    """

    cohort: str | None
    windows: WindowSet
    held_out: WindowSet
    proofs: Mapping[str, WindowSet] = field(default_factory=dict)

    @property
    def proof_sets(self) -> dict[str, WindowSet]:
        """Data sets of the proof: held-out windows, or those of training, and what ``[[prove]]`` names."""
        own = {HELD_OUT: self.held_out} if len(self.held_out) else {TRAINING: self.windows}
        return {name: windows for name, windows in (own | dict(self.proofs)).items() if len(windows)}


@dataclass(frozen=True, slots=True, eq=False)
class GroupBuild:
    """One model, what its steps took in seconds, and what cohorts' hybrid models need of it."""

    model: BuiltModel
    seconds: dict[str, float]
    base: Base | None


class _Laps:
    """Seconds by step, and how far it is."""

    def __init__(self, progress: Callable[[float], None]) -> None:
        self.seconds: dict[str, float] = {}
        self._progress = progress
        self._began = time.perf_counter()

    def lap(self, step: str) -> None:
        now = time.perf_counter()
        self.seconds[step] = now - self._began
        self._began = now
        self._progress(len(self.seconds) / _LAPS)


def build_group(
    spec: ModelSpec,
    group: Group,
    *,
    labelled: bool,
    base: Base | None = None,
    progress: Callable[[float], None] = lambda _: None,
) -> GroupBuild:
    """Build one model: train, convert, prove, choose a form, golden windows and references, measure.

    Args:
        spec: The settings.
        group: The devices.
        labelled: Whether labels say which windows are healthy.
        base: For a cohort's hybrid model, the model of all devices.
        progress: Called with the share of the steps that is done.

    Returns:
        The model.

    Raises:
        TelemetryError: The data cannot support the alarm rate, or all windows score the same.
        ConversionError: No golden window can be found, or the graph gives no number for some windows.
        SpecError: A statistic is unknown.
    """
    columns = Columns(spec.data.signals, spec.data.context, spec.features.statistics)
    watch = _Laps(progress)
    learns = learns_from_labels(spec.train, labelled=labelled)
    trained = train(group.windows, columns, spec.detector, spec.calibration, labelled=learns, base=base)
    watch.lap("train")
    proof = prove(group.proof_sets, trained)
    watch.lap("prove")
    measured = measured_forms(proof, measure_costs(proof.content, _some(group)))
    choice = choose(measured, spec.goals, spec.release.precision)
    watch.lap("measure")
    others = group.held_out if len(group.held_out) else group.windows
    # Forms that miss their goals judge some windows otherwise, and must not keep those from being golden.
    shippable = tuple(one.content for one in measured if not one.missed(spec.goals))
    golden = make_golden(trained, others, proof.content[choice.name], shippable)
    references = choose_references(trained)
    watch.lap("golden windows")
    evaluation = _evaluate(spec, group, trained, Graph(proof.content[choice.name]), labelled=labelled)
    watch.lap("evaluate")
    built = _whole(spec, group, trained, proof, measured, choice, golden, references, evaluation)
    return GroupBuild(built, watch.seconds, trained.base() if trained.folds is not None else None)


def _whole(
    spec: ModelSpec,
    group: Group,
    trained: Trained,
    proof: Proof,
    measured: tuple[Measured, ...],
    choice: Choice,
    golden: Golden,
    references: npt.NDArray[np.float32],
    evaluation: dict[str, Any],
) -> BuiltModel:
    return BuiltModel(
        cohort=group.cohort,
        form=choice.name,
        precisions={one.name: one.precision for one in proof.forms},
        candidates=proof.content,
        detector=spec.detector.kind,
        signals=_signals(spec),
        context=spec.data.context,
        window_rule=group.windows.rule,
        features=trained.plan.names,
        threshold=trained.threshold,
        incident_gap=spec.calibration.incident_gap,
        histogram=trained.histogram,
        regimes=trained.regimes,
        references=references.astype("<f4").tobytes(),
        reference_count=len(references),
        golden_json=golden.json,
        golden_f32=golden.blob,
        parity=parity_dict(spec, proof, measured, choice, held_out=len(group.held_out) > 0),
        costs={one.name: one.cost.to_dict() | {"verdict": choice.verdicts[one.name]} for one in measured},
        evaluation=evaluation,
        convert_seconds=proof.convert_seconds,
        notes=(*trained.notes, *_form_notes(spec, trained), *_quality_notes(evaluation)),
        below_goals=(*inexact(spec, proof), *choice.missed, *_unordered(evaluation)),
        card_data=_card_data(spec, group, trained, proof, references),
    )


def _card_data(
    spec: ModelSpec, group: Group, trained: Trained, proof: Proof, references: npt.NDArray[np.float32]
) -> dict[str, Any]:
    held_out = len(group.held_out) > 0
    judged = group.held_out if held_out else group.windows
    return card_data(trained, judged, proof.content, references, _signals(spec), held_out=held_out)


def _signals(spec: ModelSpec) -> tuple[Signal, ...]:
    units = spec.data.units
    judged = (Signal(name, units.get(name, ""), "signal") for name in spec.data.signals)
    context = (Signal(name, units.get(name, ""), "context") for name in spec.data.context)
    return (*judged, *context)


def _some(group: Group) -> npt.NDArray[np.float32]:
    """Return windows to time graphs on: enough that no call sees the ones of the call before."""
    windows = group.held_out if len(group.held_out) else group.windows
    slots, columns = windows.shape
    return windows.sample(max(1, min(MOST_TIMED, MOST_TIMED_VALUES // (slots * columns))), 0).windows()


def _evaluate(spec: ModelSpec, group: Group, trained: Trained, graph: Graph, *, labelled: bool) -> dict[str, Any]:
    """Measure the shipped graph on held-out devices, and a model of single readings beside it."""
    windows, gap = group.held_out.whole_devices(MOST_EVALUATED, spec.detector.seed), spec.calibration.incident_gap
    if not len(windows):
        return {}
    raw, score, verdicts = windows.run(graph, ["raw_score", "anomaly_score", "is_anomaly"])
    figures = evaluate(
        windows,
        np.asarray(raw[:, 0], np.float64),
        np.asarray(score[:, 0], np.float64),
        np.asarray(verdicts[:, 0], np.bool_),
        incident_gap=gap,
        labelled=labelled,
    )
    if windows.rule.slots == 1:
        return {**figures, "baseline": {"slots": 1, **figures}}
    columns = Columns(spec.data.signals, spec.data.context, ("last",))
    single = train(
        group.windows.newest_only(),
        columns,
        _of_any_size(spec.detector),
        spec.calibration,
        labelled=learns_from_labels(spec.train, labelled=labelled),
        clusters=trained.clusters,
    )
    alone = windows.newest_only()
    features = np.asarray(alone.run(single.feature_graph(), ["features"])[0], np.float32)
    scores = graph_scores(single.detector, features).astype(np.float64)
    anomalous = scores >= single.threshold.raw_score
    baseline = evaluate(alone, scores, single.calibration(scores), anomalous, incident_gap=gap, labelled=labelled)
    return {**figures, "baseline": {"slots": 1, **baseline}}


def _of_any_size(detector: DetectorSpec) -> DetectorSpec:
    """Return what judges single readings: an isolation forest where the detector is made for its number of features."""
    return DetectorSpec(seed=detector.seed) if detector.kind in ("sklearn", "onnx") else detector


def _unordered(evaluation: dict[str, Any]) -> tuple[str, ...]:
    """Return whether calibration lost the order of the scores, as a sentence."""
    auc, raw = evaluation.get("auc"), evaluation.get("auc_raw_score")
    if auc is None or raw is None or abs(auc - raw) <= AUC_TOLERANCE:
        return ()
    return (f"The AUC of the anomaly score is {auc:.4f}, that of the raw score {raw:.4f}.",)


def _form_notes(spec: ModelSpec, trained: Trained) -> tuple[str, ...]:
    """Say why a network has no integer forms, where that is for lack of windows."""
    windows = len(trained.features)
    if spec.detector.kind not in NETWORKS or windows >= FEWEST_ROWS:
        return ()
    return (f"No int8 form was made: its ranges need {FEWEST_ROWS} healthy windows, and there are {windows}.",)


def _quality_notes(evaluation: dict[str, Any]) -> tuple[str, ...]:
    """Say what is no lack of fidelity, and yet a reason to think again."""
    auc = evaluation.get("auc")
    single = None if auc is None else evaluation["baseline"]["auc"]
    if single is None or auc >= single - BASELINE_MARGIN:
        return ()
    return (
        f"Single readings do better: AUC {single:.4f} against {auc:.4f}. Add context, shorten window.slots, or let "
        "'exporter compare' look for better settings.",
    )

"""The steps behind ``build_models``: one group of devices to one ``BuiltModel``."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_runtime.contract.manifest import Signal
from edge_runtime.contract.window import WindowRule
from exporter.built import BuiltModel
from exporter.config import ModelSpec
from exporter.detectors import graph_scores
from exporter.detectors.protocol import AddDetector
from exporter.evaluation import evaluate
from exporter.golden import Golden, make_golden
from exporter.graph.assembly import assemble
from exporter.graph.running import Graph
from exporter.parity import FP32_MOST_DIFFERENCE, Parity, choose_precision, compare_graph, keeps_scores
from exporter.references import choose_references
from exporter.training import Columns, Trained, train
from exporter.window_sets import WindowSet

# scikit-learn scores some 30,000 windows a second: enough to prove parity to the third digit of a percent.
MOST_PARITY_WINDOWS = 20_000
# A model this much worse than single readings is no model: windows without context do that (design, section 1).
BASELINE_MARGIN = 0.01
# The anomaly score orders as the raw score does (contract, Calibration).
AUC_TOLERANCE = 1e-4
# Steps of one model: train, prove, golden windows, evaluate.
_LAPS = 4


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """The devices of one model.

    Attributes:
        cohort: Their cohort, or None for all.
        windows: Of the training devices, all labels.
        held_out: Of the held-out devices, all labels; empty when none are.
    """

    cohort: str | None
    windows: WindowSet
    held_out: WindowSet


@dataclass(frozen=True, slots=True, eq=False)
class _Proof:
    parity: Parity
    candidates: dict[str, bytes]
    convert_seconds: float


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
    spec: ModelSpec, group: Group, *, labelled: bool, progress: Callable[[float], None] = lambda _: None
) -> tuple[BuiltModel, dict[str, float]]:
    """Build one model: train, convert, prove, choose golden windows and references, measure.

    Args:
        spec: The settings.
        group: The devices.
        labelled: Whether labels say which windows are healthy.
        progress: Called with the share of the steps that is done.

    Returns:
        The model, and seconds by step.

    Raises:
        TelemetryError: The data cannot support the alarm rate, or all windows score the same.
        ConversionError: No golden window can be found.
        SpecError: A statistic is unknown.
    """
    columns = Columns(spec.data.signals, spec.data.context, spec.features.statistics)
    watch = _Laps(progress)
    trained = train(group.windows, columns, spec.detector, spec.calibration, labelled=labelled)
    watch.lap("train")
    proof = _prove(spec, group, trained)
    model = proof.candidates[proof.parity.chosen]
    watch.lap("prove")
    others = group.held_out if len(group.held_out) else group.windows
    golden = make_golden(trained, others, model, tuple(proof.candidates.values()))
    references = choose_references(trained)
    watch.lap("golden windows")
    evaluation = _evaluate(spec, group, trained, Graph(model), labelled=labelled)
    watch.lap("evaluate")
    return _whole(spec, group, trained, proof, golden, references, evaluation), watch.seconds


def _whole(
    spec: ModelSpec,
    group: Group,
    trained: Trained,
    proof: _Proof,
    golden: Golden,
    references: npt.NDArray[np.float32],
    evaluation: dict[str, Any],
) -> BuiltModel:
    return BuiltModel(
        cohort=group.cohort,
        precision=proof.parity.chosen,
        model_onnx=proof.candidates[proof.parity.chosen],
        candidates=proof.candidates,
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
        parity=proof.parity.to_dict(),
        evaluation=evaluation,
        convert_seconds=proof.convert_seconds,
        notes=trained.notes,
        below_goals=_missed_goals(proof.parity, evaluation),
    )


def _signals(spec: ModelSpec) -> tuple[Signal, ...]:
    units = spec.data.units
    judged = (Signal(name, units.get(name, ""), "signal") for name in spec.data.signals)
    context = (Signal(name, units.get(name, ""), "context") for name in spec.data.context)
    return (*judged, *context)


def _graph_bytes(trained: Trained, add_detector: AddDetector) -> bytes:
    model = assemble(
        trained.plan,
        trained.regimes,
        add_detector,
        trained.calibration,
        trained.threshold.raw_score,
    )
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def _prove(spec: ModelSpec, group: Group, trained: Trained) -> _Proof:
    """Make both graphs and compare them with the trained forest on held-out windows."""
    began = time.perf_counter()
    candidates = {"fp32": _graph_bytes(trained, trained.detector.add_to)}
    convert_seconds = time.perf_counter() - began
    for candidate in trained.detector.candidates(trained.features):
        candidates[candidate.name] = _graph_bytes(trained, candidate.add)
    held_out = len(group.held_out) > 0
    windows = group.held_out if held_out else group.windows
    step = max(1, -(-len(windows) // MOST_PARITY_WINDOWS))
    windows = windows.take(np.arange(0, len(windows), step))
    expected: npt.NDArray[np.float64] | None = None
    graphs = {}
    for precision, content in candidates.items():
        raw, verdicts, features = windows.run(Graph(content), ["raw_score", "is_anomaly", "features"])
        if expected is None:
            expected = trained.detector.raw_scores(np.asarray(features, np.float32))
        graphs[precision] = compare_graph(
            expected,
            np.asarray(raw[:, 0], np.float64),
            expected >= trained.threshold.raw_score,
            np.asarray(verdicts[:, 0], np.bool_),
            windows.labels,
            content,
        )
    chosen, reason = choose_precision(spec.release.precision, graphs)
    before = graphs["fp32"]
    auc = None if before.auc is None or before.auc_change is None else before.auc - before.auc_change
    return _Proof(Parity(len(windows), held_out, auc, graphs, chosen, reason), candidates, convert_seconds)


def _evaluate(spec: ModelSpec, group: Group, trained: Trained, graph: Graph, *, labelled: bool) -> dict[str, Any]:
    """Measure the shipped graph on held-out devices, and a model of single readings beside it."""
    windows, gap = group.held_out, spec.calibration.incident_gap
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
        _newest_only(group.windows),
        columns,
        spec.detector,
        spec.calibration,
        labelled=labelled,
        clusters=trained.clusters,
    )
    alone = _newest_only(windows)
    features = np.asarray(alone.run(single.feature_graph(), ["features"])[0], np.float32)
    scores = graph_scores(single.detector, features).astype(np.float64)
    anomalous = scores >= single.threshold.raw_score
    baseline = evaluate(alone, scores, single.calibration(scores), anomalous, incident_gap=gap, labelled=labelled)
    return {**figures, "baseline": {"slots": 1, **baseline}}


def _newest_only(windows: WindowSet) -> WindowSet:
    """Return the same windows cut down to their newest reading, so that both are judged on the same readings."""
    rule = WindowRule(1, windows.rule.interval_ms, windows.rule.largest_gap_ms, 1)
    return replace(windows, indices=np.ascontiguousarray(windows.indices[:, -1:]), rule=rule)


def _missed_goals(parity: Parity, evaluation: dict[str, Any]) -> tuple[str, ...]:
    goals = []
    exact = parity.graphs["fp32"]
    if exact.max_raw_difference > FP32_MOST_DIFFERENCE or exact.label_flips:
        goals.append(
            f"The fp32 graph differs from the trained model by up to {exact.max_raw_difference:.2g} in raw score, "
            f"with {exact.label_flips} other verdicts."
        )
    if parity.chosen == "codebook8" and not keeps_scores(parity.graphs["codebook8"]):
        goals.append(f"codebook8 keeps a rank correlation of only {parity.graphs['codebook8'].spearman:.5f}.")
    auc, raw = evaluation.get("auc"), evaluation.get("auc_raw_score")
    if auc is None or raw is None:
        return tuple(goals)
    if abs(auc - raw) > AUC_TOLERANCE:
        goals.append(f"The AUC of the anomaly score is {auc:.4f}, that of the raw score {raw:.4f}.")
    single = evaluation["baseline"]["auc"]
    if single is not None and auc < single - BASELINE_MARGIN:
        goals.append(
            f"Single readings do better: AUC {single:.4f} against {auc:.4f}. Add context, or shorten window.slots."
        )
    return tuple(goals)

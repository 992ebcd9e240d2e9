"""The proof of one model: every form of it beside what was trained, on windows that it was not trained on.

What it keeps is measured on every data set (``exporter.parity``), what it costs on this machine (``exporter.costs``);
``exporter.candidates`` chooses::

    proof = prove({"held out": windows}, trained)
    measured = measured_forms(proof, measure_costs(proof.content, some_windows))
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from exporter.candidates import FP32, Choice, Measured
from exporter.config import ModelSpec
from exporter.costs import Cost
from exporter.detectors import Candidate
from exporter.detectors.protocol import AddDetector
from exporter.errors import ConversionError
from exporter.graph.assembly import assemble
from exporter.graph.running import Graph
from exporter.parity import Fidelity, compare_graph, missed_exactness
from exporter.training import Trained
from exporter.window_sets import WindowSet

# scikit-learn scores some 30,000 windows a second: enough to prove parity to the third digit of a percent.
MOST_PARITY_WINDOWS = 20_000
# Scored one by one as well: a form whose ranges come from the block that it sees shows in a few.
ALONE_WINDOWS = 50
# Two libraries that add up in another order agree on the raw score so far (``goals.raw_difference``).
FOREST_WITHIN, OTHERS_WITHIN = 1e-6, 1e-4
FORESTS = ("isolation_forest", "hybrid")


@dataclass(frozen=True, slots=True, eq=False)
class Proof:
    """Every form with its fidelity by data set, before anything was timed.

    Attributes:
        forms: fp32 first.
        content: The graph of each form.
        fidelity: Of each form, by data set.
        auc: Of the trained model, by data set.
        convert_seconds: Time that the conversion to fp32 took.
    """

    forms: tuple[Candidate, ...]
    content: dict[str, bytes]
    fidelity: dict[str, dict[str, Fidelity]]
    auc: dict[str, float | None]
    convert_seconds: float


def _graph_bytes(trained: Trained, add_detector: AddDetector) -> bytes:
    model = assemble(trained.plan, trained.regimes, add_detector, trained.calibration, trained.threshold.raw_score)
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def prove(sets: Mapping[str, WindowSet], trained: Trained) -> Proof:
    """Make every form and compare it with the trained model.

    Args:
        sets: Windows by the name of their data set, at least one set; of many windows some are taken, evenly.
        trained: The model.

    Raises:
        ConversionError: A form gives no number for some windows.
    """
    began = time.perf_counter()
    content = {FP32: _graph_bytes(trained, trained.detector.add_to)}
    convert_seconds = time.perf_counter() - began
    exact = Candidate(FP32, "fp32", trained.detector.add_to, "The trained model, converted exactly.")
    forms = [exact]
    for candidate in trained.detector.candidates(trained.features):
        graph = _graph_bytes(trained, candidate.add)
        # Two ways of calibrating may find the same ranges: then there is one form, not two.
        if graph not in content.values():
            content[candidate.name] = graph
            forms.append(candidate)
    fidelity: dict[str, dict[str, Fidelity]] = {form.name: {} for form in forms}
    auc: dict[str, float | None] = {}
    for name, every in sets.items():
        step = max(1, -(-len(every) // MOST_PARITY_WINDOWS))
        windows = every.take(np.arange(0, len(every), step))
        features = np.asarray(windows.run(Graph(content[FP32]), ["features"])[0], np.float32)
        expected = trained.detector.raw_scores(features)
        for form in forms:
            one = _compare(trained, windows, expected, content[form.name], f"{form.name} on {name}")
            fidelity[form.name][name] = one
            if form is exact:
                auc[name] = None if one.auc is None or one.auc_change is None else one.auc - one.auc_change
    return Proof(tuple(forms), content, fidelity, auc, convert_seconds)


def _compare(
    trained: Trained, windows: WindowSet, expected: npt.NDArray[np.float64], content: bytes, what: str
) -> Fidelity:
    graph = Graph(content)
    raw, verdicts = windows.run(graph, ["raw_score", "is_anomaly"])
    scores = np.asarray(raw[:, 0], np.float64)
    lost = int(np.count_nonzero(~np.isfinite(scores)))
    if lost:
        raise ConversionError(
            f"The graph ({what}) gives no number for {lost} of {len(windows)} windows.",
            advice="Look for missing or extreme values that the detector cannot take; impute or scale them first.",
        )
    return compare_graph(
        expected,
        scores,
        expected >= trained.threshold.raw_score,
        np.asarray(verdicts[:, 0], np.bool_),
        windows.labels,
        _alone_difference(graph, windows, scores),
    )


def _alone_difference(graph: Graph, windows: WindowSet, scores: npt.NDArray[np.float64]) -> float:
    """Return how far raw scores of windows alone are from those of the same windows among others."""
    some = np.linspace(0, len(windows) - 1, min(len(windows), ALONE_WINDOWS)).astype(np.int64)
    alone = [graph.run(window[None], ["raw_score"])[0][0, 0] for window in windows.take(some).windows()]
    return float(np.abs(np.asarray(alone, np.float64) - scores[some]).max(initial=0.0))


def measured_forms(proof: Proof, costs: Mapping[str, Cost]) -> tuple[Measured, ...]:
    """Return every form with what it keeps and what it costs, fp32 first."""
    exact = _operators(proof.content[FP32])
    return tuple(
        Measured(
            name=form.name,
            precision=form.precision,
            about=form.about,
            float_nodes=form.float_nodes,
            content=proof.content[form.name],
            same_operators=_operators(proof.content[form.name]) == exact,
            fidelity=proof.fidelity[form.name],
            cost=costs[form.name],
        )
        for form in proof.forms
    )


def _operators(content: bytes) -> list[str]:
    return [node.op_type for node in onnx.load_model_from_string(content).graph.node]


def _exact_within(spec: ModelSpec) -> float:
    """Return how far the exact graph's raw scores may be from the trained model's."""
    if spec.goals.raw_difference is not None:
        return spec.goals.raw_difference
    return FOREST_WITHIN if spec.detector.kind in FORESTS else OTHERS_WITHIN


def inexact(spec: ModelSpec, proof: Proof) -> list[str]:
    """Return what keeps the fp32 graph from being the trained model, as sentences."""
    return missed_exactness(proof.fidelity[FP32], _exact_within(spec))


def parity_dict(
    spec: ModelSpec, proof: Proof, measured: tuple[Measured, ...], choice: Choice, *, held_out: bool
) -> dict[str, Any]:
    """Return ``parity.json``: what holds on every machine, so no timings."""
    return {
        "chosen": choice.name,
        "reason": choice.reason,
        "held_out": held_out,
        "auc": proof.auc,
        "goals": {
            "spearman_loss": spec.goals.spearman_loss,
            "label_flips": spec.goals.label_flips,
            "auc_loss": spec.goals.auc_loss,
            "raw_difference": _exact_within(spec),
        },
        "candidates": {
            one.name: {
                "precision": one.precision,
                "about": one.about,
                "float_nodes": list(one.float_nodes),
                "bytes": one.cost.bytes,
                "bytes_deflated": one.cost.bytes_deflated,
                "missed": [] if one.name == FP32 else one.missed(spec.goals),
                "sets": {name: fidelity.to_dict() for name, fidelity in one.fidelity.items()},
            }
            for one in measured
        },
    }

"""What the plots of the model card show: bounded samples of scores and contributions, JSON-ready.

Taken while the trained model is still there, since neither a bundle nor a work folder ever holds it. A few hundred
numbers are kept, however many windows there were.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_runtime.contract.manifest import Manifest, Signal
from edge_runtime.explanation import Explainer
from edge_runtime.scoring import Scorer
from exporter.dataset import FAULTY, HEALTHY
from exporter.graph.running import Graph
from exporter.training import Trained
from exporter.window_sets import WindowSet

# Windows that are scored for the plots: a bin of one in a thousand still shows.
MOST_WINDOWS = 5_000
BINS = 40
# Points of the fidelity plot: evenly over the ranks, and those that differ most in each graph.
MOST_POINTS, WORST_POINTS = 200, 10
# Explaining one window costs signals x references scores.
MOST_EXPLAINED = 60
_DIGITS = 5

Scores = npt.NDArray[np.float64]


def card_data(
    trained: Trained,
    windows: WindowSet,
    candidates: Mapping[str, bytes],
    references: npt.NDArray[np.float32],
    signals: tuple[Signal, ...],
    *,
    held_out: bool,
) -> dict[str, Any]:
    """Collect what the plots need.

    Args:
        trained: The trained model.
        windows: What it is judged on: of held-out devices, else those of training.
        candidates: Every graph by name, the exact one first.
        references: (R, W, S) float32, the reference windows of the bundle.
        signals: Columns of a window.
        held_out: Whether ``windows`` are of devices that training never saw.

    Returns:
        ``windows`` (how many were scored), ``held_out``, ``scores`` (histograms of raw scores by group), ``fidelity``
        (raw scores of the trained model and of each graph, window by window) and ``contributions`` (mean size of each
        signal's, over anomalies and over healthy windows).

    Raises:
        ScoringError: A graph cannot be run.
    """
    sample = windows.take(_evenly(len(windows), MOST_WINDOWS))
    exact = next(iter(candidates.values()))
    features, flags = sample.run(Graph(exact), ["features", "is_anomaly"])
    scores = np.asarray(trained.detector.raw_scores(np.asarray(features, np.float32)), np.float64)
    anomalous = np.asarray(flags[:, 0], np.bool_)
    graphs = {name: np.asarray(sample.run(Graph(one), ["raw_score"])[0][:, 0]) for name, one in candidates.items()}
    return {
        "windows": len(sample),
        "held_out": held_out,
        "scores": _histograms(trained.out_of_fold, scores, sample.labels if held_out else sample.labels[:0]),
        "fidelity": _fidelity(scores, graphs),
        "contributions": _contributions(trained, sample, anomalous, exact, references, signals),
    }


def _histograms(training: Scores, scores: Scores, labels: npt.NDArray[np.int8]) -> dict[str, Any]:
    """Return counts per bin: of training windows, and of held-out ones by label where any is labelled."""
    groups = {"healthy, in training": training}
    judged = (labels == HEALTHY) | (labels == FAULTY)
    if judged.any():
        groups |= {"healthy, held out": scores[labels == HEALTHY], "faulty, held out": scores[labels == FAULTY]}
    elif labels.size:
        groups |= {"unlabelled, held out": scores}
    groups = {name: values for name, values in groups.items() if values.size}
    every = np.concatenate(list(groups.values()))
    low, high = float(every.min()), float(every.max())
    edges = np.linspace(low, high if high > low else low + 1e-6, BINS + 1)
    return {
        "edges": _rounded(edges),
        "groups": {name: np.histogram(values, edges)[0].tolist() for name, values in groups.items()},
    }


def _fidelity(scores: Scores, graphs: Mapping[str, npt.NDArray[np.float32]]) -> dict[str, Any]:
    order = np.argsort(scores, kind="stable")
    chosen = set(order[_evenly(scores.size, MOST_POINTS)].tolist())
    for raw in graphs.values():
        chosen |= set(np.argsort(-np.abs(raw - scores), kind="stable")[:WORST_POINTS].tolist())
    rows = np.array(sorted(chosen), np.int64)
    return {
        "trained": _rounded(scores[rows]),
        "graphs": {name: _rounded(raw[rows]) for name, raw in graphs.items()},
    }


def _contributions(
    trained: Trained,
    sample: WindowSet,
    anomalous: npt.NDArray[np.bool_],
    exact: bytes,
    references: npt.NDArray[np.float32],
    signals: tuple[Signal, ...],
) -> dict[str, Any]:
    scorer = Scorer(exact)
    explainer = Explainer(scorer, _manifest(trained, references, signals), references.astype("<f4").tobytes())
    groups = {"anomalies": anomalous, "healthy windows": ~anomalous & (sample.labels != FAULTY)}
    means = {}
    for name, mask in groups.items():
        rows = np.flatnonzero(mask)
        windows = sample.take(rows[_evenly(rows.size, MOST_EXPLAINED)]).windows()
        if not len(windows):
            continue
        raw = scorer.raw_scores(windows)
        sizes = [np.abs(explainer.every_contribution(*one)) for one in zip(windows, raw.tolist(), strict=True)]
        means[name] = {"windows": len(windows), "mean": _rounded(np.mean(sizes, axis=0))}
    return {"signals": explainer.names, "groups": means}


def _manifest(trained: Trained, references: npt.NDArray[np.float32], signals: tuple[Signal, ...]) -> Manifest:
    """Return what an explainer reads of a manifest; the rest is not known before packing."""
    return Manifest(
        model="card",
        version="card",
        release_number=1,
        cohort=None,
        precision="fp32",
        signals=signals,
        window=trained.healthy.rule,
        features=trained.plan.names,
        threshold=trained.threshold,
        incident_gap=1,
        histogram=trained.histogram,
        regimes=trained.regimes,
        references=len(references),
        files={},
        runtime={},
    )


def _evenly(count: int, most: int) -> npt.NDArray[np.int64]:
    """Return at most ``most`` numbers below ``count``, evenly apart, the last one among them."""
    return np.unique(np.linspace(0, max(0, count - 1), min(count, most)).round().astype(np.int64))


def _rounded(values: npt.NDArray[np.floating[Any]]) -> list[float]:
    # Seven digits tell two float32 apart; a pixel needs three. Five keep a difference of 1e-5 visible.
    return [float(f"{value:.{_DIGITS}g}") for value in values.tolist()]

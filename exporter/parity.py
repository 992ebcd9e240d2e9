"""Proof that a graph scores as the trained model does, and the choice of precision that follows from it.

Windows of held-out devices go through scikit-learn (on the feature graph's features) and through each graph. Score
figures are on raw scores, flips are on verdicts (contract, Calibration).
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from sklearn.metrics import roc_auc_score

from exporter.dataset import FAULTY, HEALTHY

# The goals of the issue: the fp32 graph is the trained model, the codebook keeps its order and its verdicts.
FP32_MOST_DIFFERENCE = 1e-6
CODEBOOK_LEAST_SPEARMAN = 0.999
CODEBOOK_MOST_FLIPS = 0.002

Scores = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class GraphParity:
    """One graph against the trained model.

    Attributes:
        max_raw_difference: Largest difference of raw scores.
        mean_raw_difference: Mean difference of raw scores.
        spearman: Rank correlation of raw scores; 1 when all are equal.
        label_flips: Windows with another verdict.
        label_flip_share: The same as a share.
        auc: AUC of the graph's raw scores, or None without both labels.
        auc_change: That minus the trained model's, or None.
        bytes_deflated: Size of the graph as it travels.
    """

    max_raw_difference: float
    mean_raw_difference: float
    spearman: float
    label_flips: int
    label_flip_share: float
    auc: float | None
    auc_change: float | None
    bytes_deflated: int


@dataclass(frozen=True, slots=True)
class Parity:
    """All graphs against the trained model, on the same windows.

    Attributes:
        windows: How many.
        held_out: Whether they come from devices outside training.
        auc: AUC of the trained model, or None without both labels.
        graphs: By precision.
        chosen: The precision to ship.
        reason: Why, in one sentence.
    """

    windows: int
    held_out: bool
    auc: float | None
    graphs: Mapping[str, GraphParity]
    chosen: Literal["fp32", "codebook8"]
    reason: str

    def to_dict(self) -> dict[str, Any]:
        """Return ``parity.json``: the figures of each graph under the name of its precision."""
        value = asdict(self)
        return {**{key: item for key, item in value.items() if key != "graphs"}, **value["graphs"]}


def compare_graph(
    trained: Scores,
    graph: Scores,
    trained_verdicts: npt.NDArray[np.bool_],
    graph_verdicts: npt.NDArray[np.bool_],
    labels: npt.NDArray[np.int8],
    content: bytes,
) -> GraphParity:
    """Compare one graph with the trained model.

    Args:
        trained: (m,) raw scores of the training library.
        graph: (m,) raw scores of the graph.
        trained_verdicts: (m,) whether the trained score reaches the threshold.
        graph_verdicts: (m,) the graph's ``is_anomaly``.
        labels: (m,) 0 healthy, 1 faulty, others ignored.
        content: The graph, for its size.
    """
    difference = np.abs(trained - graph)
    flips = int(np.count_nonzero(trained_verdicts != graph_verdicts))
    before, after = area_under_curve(labels, trained), area_under_curve(labels, graph)
    return GraphParity(
        max_raw_difference=float(difference.max(initial=0.0)),
        mean_raw_difference=float(difference.mean()) if difference.size else 0.0,
        spearman=_spearman(trained, graph),
        label_flips=flips,
        label_flip_share=flips / max(1, trained.size),
        auc=after,
        auc_change=None if before is None or after is None else after - before,
        bytes_deflated=len(zlib.compress(content, 9)),
    )


def choose_precision(wanted: str, graphs: Mapping[str, GraphParity]) -> tuple[Literal["fp32", "codebook8"], str]:
    """Choose what to ship.

    Args:
        wanted: ``fp32``, ``codebook8``, or ``auto`` for the smaller one that keeps its scores.
        graphs: Both, by precision.

    Returns:
        The precision and why, in one sentence.
    """
    if wanted == "fp32":
        return "fp32", "model.toml asks for it."
    if wanted == "codebook8":
        return "codebook8", "model.toml asks for it."
    small = graphs["codebook8"]
    if not keeps_scores(small):
        return "fp32", (
            f"codebook8 falls short: rank correlation {small.spearman:.5f}, {small.label_flip_share:.3%} flips."
        )
    saved = 1 - small.bytes_deflated / graphs["fp32"].bytes_deflated
    if saved <= 0:
        return "fp32", "codebook8 would be no smaller."
    return "codebook8", f"It is {saved:.0%} smaller at a rank correlation of {small.spearman:.5f}."


def keeps_scores(parity: GraphParity) -> bool:
    """Say whether a codebook graph keeps order and verdicts well enough to ship."""
    return parity.spearman >= CODEBOOK_LEAST_SPEARMAN and parity.label_flip_share <= CODEBOOK_MOST_FLIPS


def area_under_curve(labels: npt.NDArray[np.int8], scores: npt.NDArray[np.floating]) -> float | None:
    """Return the AUC of scores over windows labelled 0 or 1, or None when one of the labels is not there."""
    judged = (labels == HEALTHY) | (labels == FAULTY)
    if np.unique(labels[judged]).size < 2:
        return None
    return float(roc_auc_score(labels[judged], scores[judged]))


def _spearman(a: Scores, b: Scores) -> float:
    from scipy.stats import rankdata

    if a.size < 2:
        return 1.0
    ranks_a, ranks_b = rankdata(a), rankdata(b)
    spread = ranks_a.std() * ranks_b.std()
    if spread == 0:
        return 1.0
    return float(((ranks_a - ranks_a.mean()) * (ranks_b - ranks_b.mean())).mean() / spread)

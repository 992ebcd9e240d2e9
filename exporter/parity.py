"""Proof that a graph scores as the trained model does: every form of it, on every data set given.

Windows of held-out devices go through the training library (on the feature graph's features) and through each graph.
Score figures are on raw scores, flips are on verdicts (contract, Calibration).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.metrics import average_precision_score, roc_auc_score

from edge_runtime.contract.golden import RAW_TOLERANCE
from exporter.dataset import FAULTY, HEALTHY
from exporter.spec import GoalSpec

Scores = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Fidelity:
    """One graph against the trained model, on one data set.

    Attributes:
        windows: How many windows.
        max_raw_difference: Largest difference of raw scores.
        mean_raw_difference: Mean difference of raw scores.
        spearman: Rank correlation of raw scores; 1 when all are equal.
        label_flips: Windows with another verdict.
        label_flip_share: The same as a share.
        auc: AUC of the graph's raw scores, or None without both labels.
        auc_change: That minus the trained model's, or None.
        alone_difference: Largest difference of a window's raw score when it is scored alone and in a block.
    """

    windows: int
    max_raw_difference: float
    mean_raw_difference: float
    spearman: float
    label_flips: int
    label_flip_share: float
    auc: float | None
    auc_change: float | None
    alone_difference: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return it as one JSON-ready object."""
        return asdict(self)

    def missed(self, goals: GoalSpec) -> list[str]:
        """Return the goals that a smaller form misses, as parts of a sentence."""
        found = []
        if 1 - self.spearman > goals.spearman_loss:
            found.append(f"a rank correlation of {self.spearman:.5f}, with {1 - goals.spearman_loss:g} wanted")
        if self.label_flip_share > goals.label_flips:
            found.append(f"{self.label_flip_share:.3%} other verdicts, with at most {goals.label_flips:.3%} wanted")
        if self.auc_change is not None and -self.auc_change > goals.auc_loss:
            found.append(f"an AUC lower by {-self.auc_change:.4f}, with at most {goals.auc_loss:g} wanted")
        if self.alone_difference > RAW_TOLERANCE:
            # A device scores windows one by one, and its golden windows together.
            found.append(f"raw scores that differ by {self.alone_difference:.2g} for a window alone and among others")
        return found


def compare_graph(
    trained: Scores,
    graph: Scores,
    trained_verdicts: npt.NDArray[np.bool_],
    graph_verdicts: npt.NDArray[np.bool_],
    labels: npt.NDArray[np.int8],
    alone_difference: float = 0.0,
) -> Fidelity:
    """Compare one graph with the trained model.

    Args:
        trained: (m,) raw scores of the training library.
        graph: (m,) raw scores of the graph.
        trained_verdicts: (m,) whether the trained score reaches the threshold.
        graph_verdicts: (m,) the graph's ``is_anomaly``.
        labels: (m,) 0 healthy, 1 faulty, others ignored.
        alone_difference: Largest difference of a window's raw score alone and in a block.
    """
    difference = np.abs(trained - graph)
    flips = int(np.count_nonzero(trained_verdicts != graph_verdicts))
    before, after = area_under_curve(labels, trained), area_under_curve(labels, graph)
    return Fidelity(
        windows=int(trained.size),
        max_raw_difference=float(difference.max(initial=0.0)),
        mean_raw_difference=float(difference.mean()) if difference.size else 0.0,
        spearman=spearman(trained, graph),
        label_flips=flips,
        label_flip_share=flips / max(1, trained.size),
        auc=after,
        auc_change=None if before is None or after is None else after - before,
        alone_difference=alone_difference,
    )


def missed_exactness(fidelity: Mapping[str, Fidelity], within: float) -> list[str]:
    """Return what keeps the exact graph from being the trained model, as sentences.

    Args:
        fidelity: Of the fp32 graph, by data set.
        within: Largest difference of a raw score.
    """
    return [
        f"The fp32 graph differs from the trained model by up to {one.max_raw_difference:.2g} in raw score on {name} "
        f"({within:g} allowed), with {one.label_flips} other verdicts."
        for name, one in fidelity.items()
        # A score nearer to the threshold than two libraries agree may turn; with equal scores none may.
        if one.max_raw_difference > within or one.label_flips > one.windows * within
    ]


def area_under_curve(labels: npt.NDArray[np.int8], scores: npt.NDArray[np.floating]) -> float | None:
    """Return the AUC of scores over windows labelled 0 or 1, or None when one of the labels is not there."""
    judged = _judged(labels)
    return None if judged is None else float(roc_auc_score(labels[judged], scores[judged]))


def average_precision(labels: npt.NDArray[np.int8], scores: npt.NDArray[np.floating]) -> float | None:
    """Return the average precision over windows labelled 0 or 1, or None when one of the labels is not there."""
    judged = _judged(labels)
    return None if judged is None else float(average_precision_score(labels[judged], scores[judged]))


def _judged(labels: npt.NDArray[np.int8]) -> npt.NDArray[np.bool_] | None:
    judged = (labels == HEALTHY) | (labels == FAULTY)
    return judged if np.unique(labels[judged]).size == 2 else None


def spearman(a: Scores, b: Scores) -> float:
    """Return the rank correlation of two sets of scores, equal values sharing their mean rank; 1 when all are equal."""
    from scipy.stats import rankdata

    if a.size < 2:
        return 1.0
    ranks_a, ranks_b = rankdata(a), rankdata(b)
    spread = ranks_a.std() * ranks_b.std()
    if spread == 0:
        return 1.0
    return float(((ranks_a - ranks_a.mean()) * (ranks_b - ranks_b.mean())).mean() / spread)

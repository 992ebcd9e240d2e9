"""Do contributions name the signals that were at fault? Measured where someone has written down which they were.

A segment of anomalous readings has a set of faulty signals, its truth. Signals are ranked by their contribution to the
segment's highest score, which is what a device records, and the first of them should be those of the truth. HitRate@P %
is the share of the truth found among the first P % x |truth| signals (Su et al., "Robust anomaly detection for
multivariate time series through stochastic recurrent neural network", KDD 2019, section 4.5: OmniAnomaly)::

    ranked = rank_signals(explainer, windows, raw_scores)
    hit_rate(ranked, truth, 1.5), chance_hit_rate(len(ranked), len(truth), 1.5)
"""

from __future__ import annotations

import math
from collections.abc import Sequence, Set

import numpy as np
import numpy.typing as npt

from edge_runtime.explanation import CONTEXT, Explainer


def rank_signals(
    explainer: Explainer, windows: npt.NDArray[np.float32], raw_scores: npt.NDArray[np.float32]
) -> tuple[str, ...]:
    """Rank the signals by how much of the highest raw score goes away with each.

    A mean over the windows of a segment names fewer of the signals at fault: its ends are hardly anomalous.

    Args:
        explainer: Of the model.
        windows: (m, W, S) float32 of one segment, m >= 1.
        raw_scores: (m,) of the windows.

    Returns:
        All judged signals, the largest contribution first; the context is no suspect.

    Raises:
        ScoringError: The model fails.
    """
    peak = int(np.argmax(raw_scores))
    found = explainer.every_contribution(windows[peak], float(raw_scores[peak]))
    ranked = (explainer.names[index] for index in np.argsort(-found, kind="stable"))
    return tuple(name for name in ranked if name != CONTEXT)


def hit_rate(ranked: Sequence[str], truth: Set[str], share: float) -> float:
    """Return HitRate@P %: the share of the truth among the first floor(P % x |truth|) signals.

    Args:
        ranked: Signals, the most suspected first.
        truth: At least one signal.
        share: P % as a fraction, such as 1.5.

    Returns:
        In [0, 1].
    """
    return len(truth & set(ranked[: _looked_at(len(ranked), len(truth), share)])) / len(truth)


def chance_hit_rate(signals: int, truth: int, share: float) -> float:
    """Return the expected hit rate of a random ranking.

    Each of the k signals looked at is one of the truth with probability |truth| / S, so k x |truth| / S hits are
    expected, and k / S of the truth.

    Args:
        signals: S.
        truth: How many of them are at fault.
        share: P % as a fraction.
    """
    return _looked_at(signals, truth, share) / signals


def _looked_at(signals: int, truth: int, share: float) -> int:
    return min(signals, math.floor(share * truth))

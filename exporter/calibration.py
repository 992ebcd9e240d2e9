"""From raw scores to anomaly scores: up to .999 the share of healthy windows that score lower, above it an order.

The knots follow the contract exactly. They are fitted on out-of-fold scores of healthy windows, so that the map says
what new healthy devices will score, not what the training devices did.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from exporter.errors import TelemetryError

# The contract's rule (Calibration): at most 64 quantiles, 20 scores between two, knots 1e-6 apart in raw score.
MOST_QUANTILES = 64
SCORES_BETWEEN = 20
CLOSEST = 1e-6
LAST_QUANTILE = 0.999
ENOUGH_FOR_LAST = 1000

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Calibration:
    """A strictly increasing broken line through knots, from (0, 0) to (1, 1).

    Attributes:
        raw_scores: x of the knots, ascending.
        anomaly_scores: y of the knots, ascending.
    """

    raw_scores: tuple[float, ...]
    anomaly_scores: tuple[float, ...]

    def __call__(self, raw_scores: npt.ArrayLike) -> FloatArray:
        """Return the anomaly scores of raw scores: any shape, float64.

        For figures in training; verdicts come from the graph.
        """
        return np.interp(np.asarray(raw_scores, np.float64), self.raw_scores, self.anomaly_scores)

    def inverse(self, anomaly_score: float) -> float:
        """Return the raw score that maps to an anomaly score below 1."""
        return float(np.interp(anomaly_score, self.anomaly_scores, self.raw_scores))


def fit_calibration(healthy_scores: npt.NDArray[np.floating]) -> Calibration:
    """Fit the map.

    Args:
        healthy_scores: (n,) out-of-fold raw scores of healthy windows in [0, 1], higher is more anomalous.

    Returns:
        The map. Its last healthy knot is the 99.9 % quantile at .999, or the worst score at n / (n + 1) when there
        are fewer than 1,000.

    Raises:
        TelemetryError: There are no scores, or all of them are equal.
    """
    scores = np.sort(np.asarray(healthy_scores, np.float64))
    n = scores.size
    if n == 0 or scores[-1] - scores[0] < CLOSEST:
        raise TelemetryError(
            "All healthy windows score the same: there is nothing to tell an anomaly by.",
            advice="Check that the signals vary, and that there are healthy readings of several devices.",
        )
    last = LAST_QUANTILE if n >= ENOUGH_FOR_LAST else n / (n + 1.0)
    knots: list[tuple[float, float]] = []
    above_x, above_share = 1.0, np.inf
    # From the top down, so that the last healthy knot is never the one that has to give way.
    shares = _shares(last)[::-1]
    places = np.quantile(scores, shares if n >= ENOUGH_FOR_LAST else shares / last)
    for share, x in zip(shares.tolist(), places.tolist(), strict=True):
        if above_x - x >= CLOSEST and x >= CLOSEST and (above_share - share) * n >= SCORES_BETWEEN:
            knots.append((x, share))
            above_x, above_share = x, share
    xs, ys = zip(*reversed(knots), strict=True)
    return Calibration((0.0, *xs, 1.0), (0.0, *ys, 1.0))


def _shares(last: float) -> FloatArray:
    """Return the quantiles that may become knots: even up to .9, then ever closer, where thresholds lie."""
    tail = 1.0 - np.geomspace(0.1, 1.0 - last, MOST_QUANTILES // 3) if last > 0.9 else np.array([last])
    body = np.linspace(0.0, min(0.9, last), MOST_QUANTILES - tail.size + 1)[1:]
    return np.unique(np.r_[body[body < tail[0]], tail])

"""The one set of edges for every histogram of anomaly scores: training, summaries, drift."""

from __future__ import annotations

from bisect import bisect_right

# Fine where verdicts are decided: up to .999 an anomaly score is the share of healthy windows below it.
EDGES: tuple[float, ...] = (
    0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 0.995, 0.999, 0.9999, 1.0,
)  # fmt: skip
BINS = len(EDGES) - 1


def bin_of(anomaly_score: float) -> int:
    """Return the bin of a score: bin i holds edges[i] <= score < edges[i + 1], the last one 1.0 as well.

    Args:
        anomaly_score: In [0, 1].

    Returns:
        0 to 14.

    Raises:
        ValueError: The score is outside [0, 1] or NaN.
    """
    if not 0.0 <= anomaly_score <= 1.0:
        raise ValueError(f"anomaly score {anomaly_score!r} is outside [0, 1]")
    return min(bisect_right(EDGES, anomaly_score) - 1, BINS - 1)

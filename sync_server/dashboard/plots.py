"""Plots for the pages: figures in, what the browser's plotting script draws out; see ``web_demo/src/dashboard``.

A plot travels as JSON in an attribute of its figure, so that the page's policy can forbid inline code. The same numbers
stand in a table beside it, for browsers without a script and for readers who want them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
_MOST_BARS = 120

Plot = dict[str, Any]
"""What ``plot_spec.ts`` calls a PlotSpec; JSON-ready."""
Ink = Literal["first", "second", "third", "limit"]


def series(
    label: str, values: Sequence[float | None], *, ink: Ink = "first", style: Literal["bars", "line", "limit"] = "bars"
) -> dict[str, Any]:
    """Return one row of bars or one line.

    Args:
        label: What the legend calls it.
        values: One a moment, None where nothing was measured.
        ink: Which of the plot's colours.
        style: Bars, a line, or a dashed line that is not to be crossed.
    """
    return {"label": label, "values": list(values), "ink": ink, "style": style}


def plot(
    starts_ms: Sequence[int],
    drawn: Sequence[Mapping[str, Any]],
    *,
    bucket_ms: int | None = None,
    scale: Literal["linear", "share", "nines"] = "linear",
    unit: str | None = None,
    marks: Sequence[tuple[int, str]] = (),
) -> Plot:
    """Return a plot over time.

    Args:
        starts_ms: UTC epoch milliseconds, increasing: starts of buckets, or moments.
        drawn: What :func:`series` returns, with a value for each start.
        bucket_ms: How long a bar's bucket is; None for moments.
        scale: Values as they are, shares in percent, or scores by nines.
        unit: Of linear values, for the labels.
        marks: Moments worth a vertical line, each with its name.
    """
    spec: Plot = {
        "x": [start // 1000 for start in starts_ms],
        "series": list(drawn),
        "y": {"kind": scale} | ({"unit": unit} if unit else {}),
    }
    if bucket_ms:
        spec["bucket"] = bucket_ms // 1000
    if marks:
        spec["marks"] = [{"at": moment // 1000, "label": label} for moment, label in marks]
    return spec


def count_plot(
    buckets: Sequence[Mapping[str, Any]], bucket_ms: int, field: str, label: str, ink: Ink = "first"
) -> Plot:
    """Return bars of one count of each bucket; buckets have ``started_at_ms``."""
    starts = [int(bucket["started_at_ms"]) for bucket in buckets]
    return plot(starts, [series(label, [int(bucket[field]) for bucket in buckets], ink=ink)], bucket_ms=bucket_ms)


def score_plot(buckets: Sequence[Mapping[str, Any]], bucket_ms: int) -> Plot:
    """Return bars of the highest score of each bucket, on a scale of nines; None where there was no anomaly."""
    starts = [int(bucket["started_at_ms"]) for bucket in buckets]
    scores = [bucket["score"] for bucket in buckets]
    return plot(starts, [series("highest score", scores, ink="second")], bucket_ms=bucket_ms, scale="nines")


def timeline(
    periods: Sequence[Mapping[str, Any]], points: Sequence[Mapping[str, Any]]
) -> tuple[int, list[dict[str, Any]]]:
    """Put one device's periods and anomalies into equal buckets.

    Args:
        periods: With ``period_start_ms``, ``windows``, ``anomalous``, oldest first.
        points: With ``observed_at_ms`` and ``anomaly_score``.

    Returns:
        Length of a bucket in ms, and buckets from the first period to the last, with ``windows``, ``anomalous`` and the
        highest score (None without an anomaly). Points outside are left out.
    """
    if not periods:
        return HOUR_MS, []
    first, last = int(periods[0]["period_start_ms"]), int(periods[-1]["period_start_ms"])
    hours = (last - first) // HOUR_MS + 1
    length = HOUR_MS * next(
        (step for step in (1, 3, 6, 24, 168) if hours <= step * _MOST_BARS), hours // _MOST_BARS + 1
    )
    begin = first - first % length
    buckets: list[dict[str, Any]] = [
        {"started_at_ms": begin + place * length, "windows": 0, "anomalous": 0, "score": None}
        for place in range((last - begin) // length + 1)
    ]
    for period in periods:
        bucket = buckets[(int(period["period_start_ms"]) - begin) // length]
        bucket["windows"] += period["windows"]
        bucket["anomalous"] += period["anomalous"]
    for point in points:
        place = (int(point["observed_at_ms"]) - begin) // length
        if 0 <= place < len(buckets):
            buckets[place]["score"] = max(buckets[place]["score"] or 0.0, float(point["anomaly_score"]))
    return length, buckets


def signal_shares(incidents: Sequence[Mapping[str, Any]], most: int = 8) -> list[tuple[str, float, int]]:
    """Return the signals behind incidents: (signal, mean contribution, percent of the largest), largest first.

    Args:
        incidents: With ``contributions``, pairs of signal and value; a signal that is not listed contributed nothing.
        most: Signals at most.
    """
    told = [incident for incident in incidents if incident["contributions"]]
    sums: dict[str, float] = {}
    for incident in told:
        for signal, value in incident["contributions"]:
            sums[signal] = sums.get(signal, 0.0) + float(value)
    ordered = sorted(sums.items(), key=lambda item: (-item[1], item[0]))[:most]
    largest = max((value for _, value in ordered), default=0.0)
    if largest <= 0:
        return []
    return [(name, value / len(told), round(100 * max(0.0, value) / largest)) for name, value in ordered]

"""Bars for the pages: numbers in, coordinates out. The SVG itself is a template; no script draws anything.

The drawing area is 1000 units wide and 100 high and is stretched to the page, so text stays outside of it, in HTML,
where it keeps its size on a phone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

WIDTH = 1000.0
HEIGHT = 100.0
_LEAST_HEIGHT = 1.5  # one anomaly beside ten thousand is still a line
_MOST_BARS = 120
HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar.

    Attributes:
        x: Left edge, 0 to 1000.
        y: Top edge, 0 (top) to 100.
        width: In the same units.
        height: In the same units; 0 draws nothing.
        title: What a pointer and a screen reader are told.
    """

    x: float
    y: float
    width: float
    height: float
    title: str


@dataclass(frozen=True, slots=True)
class Chart:
    """Bars with what stands beside them.

    Attributes:
        bars: In order, from left to right.
        top: Label of the upper edge.
        ticks: At most five labels of the lower edge, evenly spread.
    """

    bars: tuple[Bar, ...]
    top: str
    ticks: tuple[str, ...]


def bar_chart(values: Sequence[float], titles: Sequence[str], ticks: Sequence[str], *, top: float, label: str) -> Chart:
    """Return bars for values from 0 to ``top``.

    Args:
        values: One a bar, not negative.
        titles: One a bar.
        ticks: Labels below, already few.
        top: The value of the upper edge, above 0.
        label: How that value is written.
    """
    step = WIDTH / max(1, len(values))
    bars = []
    for place, (value, title) in enumerate(zip(values, titles, strict=True)):
        height = 0.0 if value <= 0 else max(_LEAST_HEIGHT, min(HEIGHT, HEIGHT * value / top))
        bars.append(
            Bar(
                round(place * step + step * 0.08, 2),
                round(HEIGHT - height, 2),
                round(step * 0.84, 2),
                round(height, 2),
                title,
            )
        )
    return Chart(tuple(bars), label, tuple(ticks))


def nice_top(highest: float) -> int:
    """Return the least of 1, 2, 5, 10, 20, 50 ... that is not below the highest value."""
    if highest <= 1:
        return 1
    power = 10 ** math.floor(math.log10(highest))
    return int(next(power * step for step in (1, 2, 5, 10) if power * step >= highest))


def time_label(moment_ms: int, bucket_ms: int) -> str:
    """Return the start of a bucket in UTC, to the hour for buckets shorter than a day."""
    moment = datetime.fromtimestamp(moment_ms / 1000, UTC)
    return f"{moment:%d %b %H:%M}" if bucket_ms < DAY_MS else f"{moment:%d %b %Y}"


def time_ticks(starts: Sequence[int], bucket_ms: int) -> tuple[str, ...]:
    """Return at most five labels, evenly spread over the buckets, the first and the last among them."""
    if not starts:
        return ()
    wanted = min(5, len(starts))
    places = [round(i * (len(starts) - 1) / max(1, wanted - 1)) for i in range(wanted)]
    return tuple(time_label(starts[place], bucket_ms) for place in places)


def count_chart(buckets: Sequence[Mapping[str, Any]], bucket_ms: int, field: str, noun: str) -> Chart:
    """Return the bars of one count over time, on a round scale that begins at 0."""
    values = [int(bucket[field]) for bucket in buckets]
    starts = [int(bucket["started_at_ms"]) for bucket in buckets]
    titles = [f"{time_label(start, bucket_ms)}: {value:,} {noun}" for start, value in zip(starts, values, strict=True)]
    top = nice_top(max(values, default=0))
    return bar_chart(values, titles, time_ticks(starts, bucket_ms), top=top, label=f"{top:,}")


def nines(score: float) -> float:
    """Return how many nines a score has, 0 to 5: .9 is 1, .999 is 3, 1 is 5.

    Anomaly scores of interest lie between .99 and 1, where a plain scale shows nothing. 5 is where the contract's
    histogram ends (.9999 and above).
    """
    return 5.0 if score >= 1 else min(5.0, -math.log10(1 - score))


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


def score_chart(buckets: Sequence[Mapping[str, Any]], bucket_ms: int) -> Chart:
    """Return the bars of the highest score in each bucket, on a scale of nines."""
    starts = [int(bucket["started_at_ms"]) for bucket in buckets]
    values = [0.0 if bucket["score"] is None else nines(bucket["score"]) for bucket in buckets]
    titles = [
        f"{time_label(start, bucket_ms)}: "
        + ("no anomaly" if bucket["score"] is None else f"score {bucket['score']:.5f}")
        for start, bucket in zip(starts, buckets, strict=True)
    ]
    return bar_chart(values, titles, time_ticks(starts, bucket_ms), top=5.0, label="1.0")


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

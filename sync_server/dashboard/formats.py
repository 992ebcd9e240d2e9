"""How values are written on pages: times in UTC, scores with their nines, ages in words."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

_UNITS = ((86_400, "day"), (3_600, "hour"), (60, "minute"))


def moment(value: datetime | int | None) -> str:
    """Return a server's time, or a device's claim in ms, to the minute in UTC."""
    if value is None:
        return "never"
    if isinstance(value, int):
        value = datetime.fromtimestamp(value / 1000, UTC)
    return f"{value.astimezone(UTC):%Y-%m-%d %H:%M}"


def iso(value: datetime | int) -> str:
    """Return the same for machines, as ``<time datetime>`` wants it."""
    if isinstance(value, int):
        value = datetime.fromtimestamp(value / 1000, UTC)
    return value.astimezone(UTC).isoformat(timespec="seconds")


def age(value: datetime | None, now: datetime) -> str:
    """Return how long ago something was: ``3 hours ago``."""
    if value is None:
        return "never"
    seconds = int((now - value).total_seconds())
    for length, unit in _UNITS:
        if seconds >= length:
            count = seconds // length
            return f"{count} {unit}{'' if count == 1 else 's'} ago"
    return "just now"


def duration(milliseconds: int) -> str:
    """Return a span in its largest two units: ``2 days 5 h``, ``14 min``."""
    minutes = max(0, milliseconds) // 60_000
    days, hours, rest = minutes // 1440, minutes // 60 % 24, minutes % 60
    if days:
        return f"{days} day{'' if days == 1 else 's'}" + (f" {hours} h" if hours else "")
    if hours:
        return f"{hours} h" + (f" {rest} min" if rest else "")
    return f"{rest} min" if rest else "under a minute"


def score(value: float | None) -> str:
    """Return an anomaly score with as many digits as its nines need; never rounded up to 1."""
    if value is None:
        return "unknown"
    if value >= 1:
        return "1.0"
    text = f"{value:.5f}"
    return "0.99999" if text.startswith("1") else text


def count(value: int | None) -> str:
    """Return a count with thousands apart."""
    return "unknown" if value is None else f"{value:,}"


FILTERS: dict[str, Callable[..., Any]] = {
    "moment": moment,
    "iso": iso,
    "age": age,
    "duration": duration,
    "score": score,
    "count": count,
}

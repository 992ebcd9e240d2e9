"""When to try again: full jitter under a growing cap, never before the server's Retry-After. Pure functions.

Example::

    delay = retry_delay(attempt=3, retry_after_seconds=None, draw=random.random())
"""

from __future__ import annotations

import math
from email.utils import parsedate_to_datetime

BASE_SECONDS = 2.0
CAP_SECONDS = 900.0
# A server may ask for more patience than our cap, but not for silence: a wrong Retry-After must not park a fleet.
MAX_RETRY_AFTER_SECONDS = 6 * 3600.0


def retry_delay(
    attempt: int,
    retry_after_seconds: float | None,
    draw: float,
    *,
    base_seconds: float = BASE_SECONDS,
    cap_seconds: float = CAP_SECONDS,
) -> float:
    """Return how long to wait after a failed attempt.

    Without Retry-After: a draw from 0 to min(cap, base * 2^(attempt-1)), "full jitter". With it: at least what the
    server asked for, and up to a tenth more, so that devices that were turned away together do not return together.

    Args:
        attempt: 1 after the first failure.
        retry_after_seconds: What the server asked for, or None.
        draw: A number in [0, 1), uniform.
        base_seconds: Cap after the first failure.
        cap_seconds: Largest cap.

    Returns:
        Seconds.

    Source: M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
    """
    # 2.0**64 is past any cap; the bound keeps a device that failed for years from overflowing a float.
    cap = min(cap_seconds, base_seconds * 2.0 ** min(max(attempt, 1) - 1, 64))
    if retry_after_seconds is None:
        return draw * cap
    asked = min(max(retry_after_seconds, 0.0), MAX_RETRY_AFTER_SECONDS)
    return asked + draw * max(cap if asked == 0 else 0.0, asked / 10)


def jittered(interval_seconds: float, draw: float) -> float:
    """Return a regular interval, 10 % shorter or longer, so that a fleet started together spreads out."""
    return interval_seconds * (0.9 + 0.2 * draw)


def parse_retry_after(text: str, now_seconds: float) -> float | None:
    """Read a Retry-After header: seconds or an HTTP date (RFC 9110, 10.2.3).

    Args:
        text: The header's value.
        now_seconds: The device's clock, UTC seconds.

    Returns:
        Seconds from now, at least 0; None when the header says neither.
    """
    text = text.strip()
    if text.isascii() and text.isdigit() and len(text) < 12:
        return float(text)
    try:
        seconds = parsedate_to_datetime(text).timestamp() - now_seconds
    except (ValueError, TypeError, OverflowError):
        return None
    return max(0.0, seconds) if math.isfinite(seconds) else None

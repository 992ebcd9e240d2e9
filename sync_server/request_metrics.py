"""What every answer of the server counts; apart from :mod:`sync_server.metrics`, which itself answers requests."""

from __future__ import annotations

import functools

from prometheus_client import Counter, Histogram

REQUESTS = Counter(
    "http_requests", "Requests answered, by route template and class of status.", ["method", "route", "status"]
)
DURATION = Histogram(
    "http_request_duration_seconds", "Time from the request's headers to the answer's.", ["method", "route"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)  # fmt: skip
_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"))


def count_request(method: str, route: str, status: int, seconds: float) -> None:
    """Count one answer.

    Args:
        method: The HTTP method; those that no route has count as ``other``.
        route: The route's template, never the path itself, which clients choose.
        status: The HTTP status.
        seconds: How long it took.
    """
    if method not in _METHODS:
        method = "other"
    answers, duration = _of(method, route, status // 100)
    answers.inc()
    duration.observe(seconds)


@functools.lru_cache(maxsize=2_048)
def _of(method: str, route: str, hundreds: int) -> tuple[Counter, Histogram]:
    """The counter and the histogram of one kind of answer; finding them costs as much as counting."""
    return REQUESTS.labels(method, route, f"{hundreds}xx"), DURATION.labels(method, route)

"""What Prometheus learns of upkeep: that it still turns, and which part of it fails."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

# Of the live workers the one that is furthest behind: each has its own thread. The label is also what keeps the process
# that starts the workers, and has no upkeep, from counting with a zero.
LAST_DONE = Gauge(
    "upkeep_last_done_timestamp_seconds", "When a part of upkeep last ended without a failure, Unix time.", ("part",),
    multiprocess_mode="livemin",
)  # fmt: skip
FAILURES = Counter("upkeep_failures", "Parts of upkeep that failed and are tried again at the next turn.", ("part",))

"""What Prometheus learns of advice. The hit rate of the cache is hits by all look-ups but ``off``."""

from __future__ import annotations

from prometheus_client import Counter, Histogram

# hit: a text that is valid; stale: an expired one, while it is written anew; miss: none yet, this request had it
# written; waiting: none yet, somebody has it written; failed: the endpoint failed a while ago; limited: too many calls
# in this hour or at once; off: no endpoint is named, or nothing signed tells what the incident is about.
LOOKUPS = Counter("advice_lookups", "Requests for advice, by what the cache had.", ("result",))
CALLS = Counter("advice_endpoint_calls", "Calls of the endpoint that writes advice.", ("outcome",))
CALL_SECONDS = Histogram(
    "advice_endpoint_duration_seconds", "Time of one call of the endpoint.", buckets=(0.25, 0.5, 1, 2, 5, 10, 20, 60)
)

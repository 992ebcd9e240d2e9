"""What the guards count."""

from __future__ import annotations

from prometheus_client import Counter

REFUSALS = Counter(
    "access_refusals", "Requests refused for who asked: tokens that are no good, kinds that may not, wrong log-ins.",
    ["code"],
)  # fmt: skip

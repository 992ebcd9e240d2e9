"""What webhooks count."""

from __future__ import annotations

from prometheus_client import Counter, Histogram

DELIVERIES = Counter(
    "webhook_deliveries", "Calls of webhooks by outcome: delivered, failed, dropped (given up or queue full).",
    ["outcome"],
)  # fmt: skip
DURATION = Histogram(
    "webhook_delivery_duration_seconds", "How long a call of a webhook took, failures included.",
    buckets=(0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20),
)  # fmt: skip

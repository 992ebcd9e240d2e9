"""What the ingest counts for Prometheus."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

BATCHES = Counter("ingest_batches", "Batches that were answered with what is held now.")
RECORDS = Counter(
    "ingest_records", "Records by outcome: stored, repeated (held before) or refused for good.", ["outcome"]
)
BYTES = Counter("ingest_bytes", "Bytes of the bodies of batches, as sent.")
REFUSED = Counter(
    "ingest_refused", "Uploads that were refused whole, by code: busy, quota_exceeded, bad_batch and others.", ["code"]
)
PHASE_SECONDS = Histogram(
    "ingest_phase_seconds", "Time of one batch by phase: read the body, wait for a place, decode, store.", ["phase"],
    buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)  # fmt: skip
IN_FLIGHT = Gauge("ingest_in_flight", "Batches being decoded or stored now.", multiprocess_mode="livesum")
DROPPED_PARTITIONS = Counter("ingest_dropped_partitions", "Partitions of results that were dropped for their age.")

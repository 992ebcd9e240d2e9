"""What the repository counts for Prometheus."""

from __future__ import annotations

from prometheus_client import Counter

METADATA_ANSWERS = Counter(
    "stella_metadata_answers",
    "Answers to GET and HEAD of metadata files, by status, from memory (the app was not asked for them).",
    ("status",),
)

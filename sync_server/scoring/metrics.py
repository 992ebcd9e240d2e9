"""What Prometheus learns of server-side scoring. Names and labels are part of what operators build alarms on."""

from __future__ import annotations

from prometheus_client import Counter, Histogram

ENGINE = "onnxruntime"
PROVIDER = "cpu"
_LABELS = ("engine", "provider", "batch_size")
# From one small forest in microseconds to a large batch.
_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
_BATCHES = ((1, "1"), (8, "2-8"), (64, "9-64"), (256, "65-256"))

INFERENCE_SECONDS = Histogram(
    "model_inference_duration_seconds", "Time of one call of a model, contributions left out.", _LABELS,
    buckets=_SECONDS,
)  # fmt: skip
# prometheus_client adds _total to a counter's name.
INFERENCES = Counter("model_inference", "Calls of a model.", (*_LABELS, "outcome"))
MODEL_LOADS = Counter("scoring_model_loads", "Bundles loaded and checked for scoring.", ("outcome",))
COMPARED = Counter("scoring_compared_windows", "Windows that were to be scored by a challenger.", ("outcome",))


def batch_label(windows: int) -> str:
    """Return the label of a batch of so many windows, one of five."""
    return next((label for most, label in _BATCHES if windows <= most), "more")

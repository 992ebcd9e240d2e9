"""A forest on a GPU, as exact trees and as integer tensors; on a machine without one the result says so."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime as ort

from benchmarks.harness import Report
from exporter.latency import BATCHES, PROVIDERS, Measured, Subject, measure

QUESTION = (
    "A forest of 300 trees on 25 features on a GPU beside one CPU thread, in every form that the exporter offers."
)
FEATURES, ROWS = 25, 10_000
TABLE = "Milliseconds a call by batch size"


def run(report: Report, *, quick: bool) -> None:
    """Measure every form on both, where there is a GPU that onnxruntime can use."""
    if PROVIDERS["cuda"] not in ort.get_available_providers():
        report.note(
            f"Not measured: onnxruntime {ort.__version__} has no CUDA provider here. Install onnxruntime-gpu in place"
            " of onnxruntime on a machine with an NVIDIA GPU."
        )
        return
    batches = BATCHES[:3] if quick else BATCHES
    rows = np.random.default_rng(0).normal(size=(ROWS, FEATURES)).astype(np.float32)
    measured = {
        (name, provider): measure(Subject(model, rows[:100]), provider=provider, batches=batches, threads=1)
        for name, model in forms(rows, 30 if quick else 300).items()
        for provider in ("cuda", "cpu")
    }
    report.table(
        TABLE,
        ("form and provider", *(f"{batch:,}" for batch in batches)),
        [[f"{name}, {provider}", *_medians(one)] for (name, provider), one in measured.items()],
    )
    for (name, provider), one in measured.items():
        if one.fallen_back:
            report.note(f"{name} on {provider}: the CPU ran {', '.join(one.fallen_back)}, which have no kernel there.")


def forms(rows: Any, trees: int) -> dict[str, bytes]:
    """Return the exact form of a forest and every candidate that the detector offers, as models of their own."""
    from sklearn.ensemble import IsolationForest

    from benchmarks.scoring import fitted_forms, model_of

    forest = IsolationForest(n_estimators=trees, random_state=0).fit(rows)
    return {name: model_of(add) for name, add in fitted_forms(forest, rows).items()}


def _medians(measured: Measured) -> list[float]:
    return [row.median_ms for row in measured.batches]

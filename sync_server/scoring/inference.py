"""Running a model: verdicts and contributions, counted and timed, bounded in what one request may cost."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from edge_runtime.errors import ScoringError
from edge_runtime.scoring import Verdicts
from sync_server.scoring.cutting import Cut
from sync_server.scoring.loading import LoadedModel
from sync_server.scoring.metrics import ENGINE, INFERENCE_SECONDS, INFERENCES, PROVIDER, batch_label

# A contribution costs as many windows as there are signals times references: 200 for 25 signals, measured 2.2 ms.
MAX_EXPLAINED = 16
# Values of the windows that explain one: 128 MB. Larger bundles get verdicts without contributions.
MAX_EXPLAIN_CELLS = 32 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Judged:
    """What a model says of the windows of a request that have readings enough.

    Attributes:
        rows: (m,) which of the request's windows were scored.
        verdicts: m verdicts.
        seconds: What the model took for all of them.
    """

    rows: tuple[int, ...]
    verdicts: Verdicts
    seconds: float


def judge(model: LoadedModel, cut: Cut) -> Judged:
    """Score those windows of a request that are no longer warming up, and tell the metrics.

    Raises:
        ScoringError: The model failed.
    """
    ready = np.flatnonzero(cut.filled >= model.manifest.window.minimum_readings)
    if not len(ready):
        none = np.empty(0, np.float32)
        return Judged((), Verdicts(none, none, np.empty(0, np.bool_)), 0.0)
    labels = (ENGINE, PROVIDER, batch_label(len(ready)))
    started = time.perf_counter()
    try:
        verdicts = model.scorer.score(cut.windows[ready])
    except ScoringError:
        INFERENCES.labels(*labels, "failed").inc()
        raise
    seconds = time.perf_counter() - started
    INFERENCE_SECONDS.labels(*labels).observe(seconds)
    INFERENCES.labels(*labels, "scored").inc()
    return Judged(tuple(ready.tolist()), verdicts, seconds)


def contributions(model: LoadedModel, cut: Cut, judged: Judged) -> dict[int, list[list[Any]]]:
    """Explain the anomalous windows of a request, the most anomalous ones first, at most 16.

    Returns:
        ``[[signal, contribution], ...]`` by the window's number in the request.

    Raises:
        ScoringError: The model failed.
    """
    manifest, verdicts = model.manifest, judged.verdicts
    columns = len(manifest.signals)
    if columns * manifest.references * manifest.window.slots * columns > MAX_EXPLAIN_CELLS:
        return {}
    anomalous = np.flatnonzero(verdicts.is_anomaly)
    worst = anomalous[np.argsort(-verdicts.raw_score[anomalous], kind="stable")][:MAX_EXPLAINED]
    found = {}
    for place in worst.tolist():
        row = judged.rows[place]
        parts = model.explainer.contributions(cut.windows[row], float(verdicts.raw_score[place]))
        found[row] = [list(part) for part in parts]
    return found

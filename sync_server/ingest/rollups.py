"""The hourly roll-up: sums over devices by hour, cohort, model and release, kept in the transaction of the batch.

Pages read these rows and never the results. Summaries bring windows and histograms, new incidents are counted in the
hour they began. Many devices share the row of the present hour, so it is kept in shards, one for each connection that
is at work: ``hourly_rollup_shards`` is a child of ``hourly_rollups``, and readers of the parent sum over both. Upkeep
folds the shards of hours that are over into the parent.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sqlalchemy import text
from sqlalchemy.orm import Session

from edge_runtime.contract.histogram import BINS
from edge_runtime.contract.result import Summary
from sync_server.ingest.records import Arrival
from sync_server.ingest.store_ddl import SUMS

HOUR_MS = 3_600_000


def fold(arrival: Arrival, summaries: Iterable[Summary]) -> list[dict[str, Any]]:
    """Return what a batch's summaries count, one row an hour (or day) and bundle.

    A time more than a day ahead of the server's clock counts in the hour of arrival: the device's clock is wrong, its
    windows are real.
    """
    rows: dict[tuple[int, str, str], dict[str, Any]] = {}
    for summary in summaries:
        moment = arrival.now_ms if arrival.is_ahead(summary.period_start_ms) else summary.period_start_ms
        length = HOUR_MS if summary.period == "hour" else 24 * HOUR_MS
        key = (moment - moment % length, summary.period, summary.bundle)
        row = rows.get(key)
        if row is None:
            names = ("started_at_ms", "period", "bundle")
            row = {**dict(zip(names, key, strict=True)), **dict.fromkeys(SUMS, 0), "histogram": [0] * BINS}
            rows[key] = row
        for name in ("windows", "anomalous", "warming_up", "late", "missing"):
            row[name] += getattr(summary, name)
        row["cells"] += summary.values
        row["histogram"] = [a + b for a, b in zip(row["histogram"], summary.histogram, strict=True)]
    return list(rows.values())

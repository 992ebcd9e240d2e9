"""The hourly roll-up: sums over devices by hour, cohort, model and release, kept in the transaction of the batch.

Pages read these rows and never the results. Summaries bring windows and histograms, new incidents are counted in the
hour they began. Many devices share the row of the present hour, so it is kept in shards, one for each connection that
is at work: ``hourly_rollup_shards`` is a child of ``hourly_rollups``, and readers of the parent sum over both. Upkeep
folds the shards of hours that are over into the parent.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import text
from sqlalchemy.orm import Session

from edge_runtime.contract.histogram import BINS
from edge_runtime.contract.result import Summary
from sync_server.ingest.records import Arrival
from sync_server.ingest.store_ddl import SUMS

HOUR_MS = 3_600_000
UNKNOWN_RELEASE = 0  # what windows of a bundle count under that this repository does not know
# Most devices have told of an hour when the next but one begins.
_OPEN_HOURS = 2
# A fold holds the rows that it moves until it is through: few enough that nobody waits for long.
_ROWS_AT_ONCE = 5_000

_KEY = "started_at_ms, period, cohort, model, release_number"
# In the order in which batches take them, and none that a batch holds: nobody waits for anybody. A batch that comes
# for a row that has just gone makes it anew.
_FOLD_SHARDS = text(f"""
    WITH due AS MATERIALIZED (
        SELECT s.ctid AS place FROM hourly_rollup_shards s
        WHERE s.started_at_ms + CASE s.period WHEN 'day' THEN 86400000 ELSE 3600000 END <= :over_ms
        ORDER BY {_KEY}, shard LIMIT {_ROWS_AT_ONCE} FOR UPDATE SKIP LOCKED
    ), gone AS (
        DELETE FROM hourly_rollup_shards s USING due WHERE s.ctid = due.place RETURNING s.*
    )
    INSERT INTO hourly_rollups AS h ({_KEY}, {", ".join(SUMS)}, histogram)
    SELECT {_KEY}, {", ".join(f"sum({name})" for name in SUMS)}, sum_histograms(histogram)
    FROM gone GROUP BY {_KEY} ORDER BY {_KEY}
    ON CONFLICT ({_KEY}) DO UPDATE SET {", ".join(f"{name} = h.{name} + excluded.{name}" for name in SUMS)},
        histogram = add_histograms(h.histogram, excluded.histogram)
""")  # noqa: S608 - put together from our own constants


def fold_shards(session: Session, *, now: datetime) -> None:
    """Add the shards of hours and days that are over to their row in the parent table, so that readers find one row."""
    over = now - timedelta(hours=_OPEN_HOURS - 1)
    session.execute(_FOLD_SHARDS, {"over_ms": int(over.timestamp() * 1000)})


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

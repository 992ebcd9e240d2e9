"""The hourly roll-up: sums over devices by hour, cohort, model and release, kept in the transaction of the batch.

Pages read these rows and never the results. Summaries bring windows and histograms, new incidents are counted in the
hour they began. Rows are taken in the order of their key, so that two batches never wait for each other in a circle;
it is the last but one thing a transaction does, because many devices share the row of the present hour.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import text
from sqlalchemy.orm import Session

from edge_runtime.contract.histogram import BINS
from edge_runtime.contract.result import AnyRecord, Summary
from sync_server.ingest.incidents import Key
from sync_server.ingest.records import Arrival

HOUR_MS = 3_600_000
UNKNOWN_RELEASE = 0
_SUMS = ("windows", "anomalous", "incidents", "warming_up", "late", "cells", "missing")

_UPSERT = text(f"""
    INSERT INTO hourly_rollups (started_at_ms, period, cohort, model, release_number, {", ".join(_SUMS)}, histogram)
    SELECT r.started_at_ms, r.period, :cohort, r.model, r.release_number, {", ".join(f"r.{n}" for n in _SUMS)},
        r.histogram
    FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS r(
        started_at_ms bigint, period text, model text, release_number bigint,
        {", ".join(f"{n} bigint" for n in _SUMS)}, histogram bigint[])
    ORDER BY r.started_at_ms, r.period, r.model, r.release_number
    ON CONFLICT (started_at_ms, period, cohort, model, release_number) DO UPDATE SET
        {", ".join(f"{n} = hourly_rollups.{n} + excluded.{n}" for n in _SUMS)},
        histogram = (SELECT array_agg(a + b ORDER BY place)
                     FROM unnest(hourly_rollups.histogram, excluded.histogram) WITH ORDINALITY AS t(a, b, place))
""")  # noqa: S608 - put together from our own constants
_BUNDLES = text("SELECT digest, model, release_number FROM bundles WHERE digest = ANY(:digests)")

Release = tuple[str, int]
"""Model and release number."""


def add_to_rollups(
    session: Session, arrival: Arrival, records: Sequence[AnyRecord], new_incidents: Sequence[Key]
) -> None:
    """Add what a batch's new records count to the roll-up, in at most two statements."""
    summaries = [record for record in records if isinstance(record, Summary)]
    digests = {summary.bundle for summary in summaries} | {bundle for bundle, _ in new_incidents}
    if not digests:
        return
    releases = {
        row.digest: (row.model, row.release_number) for row in session.execute(_BUNDLES, {"digests": list(digests)})
    }
    rows = fold(arrival, summaries, new_incidents, releases)
    session.execute(_UPSERT, {"cohort": arrival.cohort or "", "rows": json.dumps(list(rows))})


def fold(
    arrival: Arrival, summaries: Iterable[Summary], new_incidents: Iterable[Key], releases: Mapping[str, Release]
) -> Iterable[dict[str, Any]]:
    """Return one row a key.

    A time more than a day ahead of the server's clock counts in the hour of arrival: the device's clock is wrong, its
    windows are real. A bundle that this repository does not know counts as release 0 of the device's model.
    """
    rows: dict[tuple[int, str, str, int], dict[str, Any]] = {}

    def row_of(bundle: str, claimed_ms: int, period: str) -> dict[str, Any]:
        model, release = releases.get(bundle, (arrival.model, UNKNOWN_RELEASE))
        moment = arrival.now_ms if arrival.is_ahead(claimed_ms) else claimed_ms
        length = HOUR_MS if period == "hour" else 24 * HOUR_MS
        key = (moment - moment % length, period, model, release)
        names = ("started_at_ms", "period", "model", "release_number")
        empty = {**dict(zip(names, key, strict=True)), **dict.fromkeys(_SUMS, 0), "histogram": [0] * BINS}
        return rows.setdefault(key, empty)

    for summary in summaries:
        row = row_of(summary.bundle, summary.period_start_ms, summary.period)
        for name in ("windows", "anomalous", "warming_up", "late", "missing"):
            row[name] += getattr(summary, name)
        row["cells"] += summary.values
        row["histogram"] = [a + b for a, b in zip(row["histogram"], summary.histogram, strict=True)]
    for bundle, started in new_incidents:
        row_of(bundle, started, "hour")["incidents"] += 1
    return rows.values()

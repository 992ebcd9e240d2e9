"""How far the scores of each release have moved: population stability indices, from roll-ups and manifests.

The last day's scores of a release are compared with those of its training (the manifest's histogram) and with its own
first week in the field. Field differs from training in whatever the training data lacked, so the first figure tells
about the model, and the second whether something has changed since. Below 0.1 is read as stable, above 0.25 as another
population (Siddiqi, Credit Risk Scorecards, 2006).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import numpy as np
from sqlalchemy import text
from sqlalchemy.orm import Session

from edge_runtime.contract.histogram import BINS
from sync_server.ingest.rollups import HOUR_MS, UNKNOWN_RELEASE
from sync_server.rollouts.bounds import psi

DAY_MS = 24 * HOUR_MS
_NEWEST = text("SELECT max(started_at_ms) FROM hourly_rollups WHERE started_at_ms <= :now_ms")
# The releases with the most windows in the last day; 20 are more than one looks at.
_RELEASES = text("""
    SELECT r.model, r.release_number AS release, CAST(sum(r.windows) AS bigint) AS windows, p.first_ms, p.training
    FROM hourly_rollups r JOIN LATERAL (
        SELECT CAST(extract(epoch FROM min(b.published_at)) * 1000 AS bigint) AS first_ms,
            (array_agg(b.manifest -> 'histogram' ORDER BY b.cohort NULLS FIRST, b.digest))[1] AS training
        FROM bundles b WHERE b.model = r.model AND b.release_number = r.release_number) AS p ON true
    WHERE r.started_at_ms >= :from_ms AND r.started_at_ms < :to_ms AND r.release_number <> :unknown
    GROUP BY r.model, r.release_number, p.first_ms, p.training ORDER BY windows DESC, r.model, release DESC LIMIT 20
""")
_HISTOGRAM = text("""
    SELECT place, CAST(sum(n) AS bigint) AS windows
    FROM hourly_rollups, unnest(histogram) WITH ORDINALITY AS h(n, place)
    WHERE started_at_ms >= :from_ms AND started_at_ms < :to_ms AND model = :model AND release_number = :release
    GROUP BY place
""")


def drift(session: Session, *, now: datetime) -> dict[str, Any]:
    """Return the stability indices of the releases that scored in the last day with data.

    Returns:
        ``from_ms`` and ``to_ms`` of that day, None without data, and ``releases``, the busiest first, at most 20:
        ``model``, ``release``, ``windows``, ``training_psi`` and ``first_week_psi``. An index is None where one side
        has no windows, or where the day lies in the first week.
    """
    newest = session.execute(_NEWEST, {"now_ms": int(now.timestamp() * 1000)}).scalar_one()
    if newest is None:
        return {"from_ms": None, "to_ms": None, "releases": []}
    to_ms = newest + HOUR_MS
    day = {"from_ms": to_ms - DAY_MS, "to_ms": to_ms}
    rows = session.execute(_RELEASES, {**day, "unknown": UNKNOWN_RELEASE}).all()
    return {**day, "releases": [_release(session, row, day) for row in rows]}


def _release(session: Session, row: Any, day: dict[str, int]) -> dict[str, Any]:
    """Return what is said of one release; three statements at most."""
    of_release = {"model": row.model, "release": row.release}
    present = _histogram(session, of_release, day["from_ms"], day["to_ms"])
    first_week = None
    if row.first_ms is not None and row.first_ms + 7 * DAY_MS <= day["from_ms"]:
        begun = row.first_ms - row.first_ms % HOUR_MS
        first_week = stability_index(present, _histogram(session, of_release, begun, begun + 7 * DAY_MS))
    training = stability_index(present, row.training) if _is_histogram(row.training) else None
    return {**of_release, "windows": row.windows, "training_psi": training, "first_week_psi": first_week}


def _histogram(session: Session, of_release: dict[str, Any], from_ms: int, to_ms: int) -> list[int]:
    places = session.execute(_HISTOGRAM, {**of_release, "from_ms": from_ms, "to_ms": to_ms})
    counts: dict[int, int] = defaultdict(int, {row.place: row.windows for row in places})
    return [counts[place] for place in range(1, BINS + 1)]


def _is_histogram(value: object) -> bool:
    """Whether this is a histogram: rows of old servers hold no manifest."""
    return isinstance(value, list) and len(value) == BINS and all(isinstance(count, int) for count in value)


def stability_index(present: Sequence[int], expected: Sequence[int]) -> float | None:
    """Return the population stability index of two histograms, None if one is empty.

    Args:
        present: Counts, one a bin.
        expected: Counts, one a bin.
    """
    if not sum(present) or not sum(expected):
        return None
    shares, wanted = np.asarray(present, float) / sum(present), np.asarray(expected, float) / sum(expected)
    return float(psi(shares, wanted))

"""The fleet in figures, from the device table and the roll-ups; no query here reads results."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Self

from sqlalchemy import text
from sqlalchemy.orm import Session

from edge_runtime.contract import checks
from edge_runtime.contract.histogram import BINS, EDGES
from edge_runtime.contract.names import MAX_COHORT_CHARACTERS, check_name
from edge_runtime.errors import ContractError
from sync_server.ingest.rollups import HOUR_MS
from sync_server.paging import whole_number

MAX_HOURS = 24 * 366
DEFAULT_HOURS = 24 * 7
# Counts of incidents stop here: a person needs to know that it is many, not how many.
COUNTED = 1_000

# One pass over the devices: the row of all of them first, then those of each release.
_DEVICES = text("""
    SELECT model, channel, active_release AS release, max(active_version) AS version, count(*) AS devices,
           count(*) FILTER (WHERE last_seen_at >= :day) AS day,
           count(*) FILTER (WHERE last_seen_at < :day AND last_seen_at >= :week) AS week,
           count(*) FILTER (WHERE last_seen_at < :week) AS older,
           count(*) FILTER (WHERE stale) AS stale,
           count(*) FILTER (WHERE cloned_at IS NOT NULL) AS cloned,
           count(*) FILTER (WHERE dead_letters > 0) AS dead_letters,
           count(*) FILTER (WHERE update_outcome = 'refused') AS update_refused
    FROM devices WHERE revoked_at IS NULL GROUP BY GROUPING SETS ((), (model, channel, active_release))
    ORDER BY grouping(model) DESC, model, channel, active_release DESC NULLS LAST LIMIT 101
""")
_BEGUN = text("""
    SELECT CAST(coalesce(sum(incidents) FILTER (WHERE started_at_ms >= :day_ms), 0) AS bigint) AS day,
           CAST(coalesce(sum(incidents), 0) AS bigint) AS week
    FROM hourly_rollups WHERE started_at_ms >= :week_ms AND started_at_ms <= :now_ms
""")
_INCIDENTS = text("""
    SELECT s.status, (SELECT count(*) FROM (
               SELECT FROM incidents i WHERE i.status = s.status LIMIT :most) AS counted) AS incidents
    FROM unnest(ARRAY['open', 'acknowledged', 'resolved']) AS s(status)
""")
_NEWEST = text("SELECT max(started_at_ms) FROM hourly_rollups WHERE started_at_ms <= :now_ms")
_COUNTS = ("windows", "anomalous", "incidents", "warming_up", "late", "cells", "missing")
# Bins by their place, not unnested: a row of the roll-up would become fifteen, and all of them be sorted into groups.
_SUMS = {name: name for name in _COUNTS} | {f"bin_{place}": f"histogram[{place + 1}]" for place in range(BINS)}
_TREND = f"""
    SELECT CASE WHEN period = 'hour' OR :bucket_ms >= 86400000
                THEN (started_at_ms - :from_ms) / :bucket_ms END AS bucket,
           {", ".join(f"CAST(sum({column}) AS bigint) AS {name}" for name, column in _SUMS.items())}
    FROM hourly_rollups WHERE started_at_ms >= :from_ms AND started_at_ms < :to_ms
"""  # noqa: S608 - put together from our own constants
_CLAUSES = {
    "cohort": " AND cohort = :cohort",
    "model": " AND model = :model",
    "release": " AND release_number = :release",
}


@dataclass(frozen=True, slots=True)
class TrendQuery:
    """What a trend is asked for.

    Attributes:
        hours: How far back, 1 to 8784.
        cohort: Only this cohort, '' for devices without one, None for all.
        model: Only this model, None for all.
        release: Only this release number, None for all.
    """

    hours: int = DEFAULT_HOURS
    cohort: str | None = None
    model: str | None = None
    release: int | None = None

    @classmethod
    def from_query(cls, query: Mapping[str, str]) -> Self:
        """Read the parameters of a URL; empty ones are no restriction.

        Raises:
            ContractError: A parameter that does not exist, or a value out of bounds.
        """
        for name in query:
            if name not in ("hours", "cohort", "model", "release"):
                raise ContractError(
                    f"There is no parameter {name[:40]!r}.", advice="Use hours, cohort, model, release."
                )
        given = {name: value for name, value in query.items() if value != ""}
        return cls(
            hours=whole_number(given.get("hours", str(DEFAULT_HOURS)), "hours", least=1, most=MAX_HOURS),
            cohort=checks.text(given["cohort"], "cohort", most=MAX_COHORT_CHARACTERS) if "cohort" in given else None,
            model=check_name("model", given["model"]) if "model" in given else None,
            release=whole_number(given["release"], "release", least=0, most=2**53 - 1) if "release" in given else None,
        )

    @property
    def bucket_ms(self) -> int:
        """Length of one bar: an hour, 6 hours, a day or a week, so that there are at most about 60."""
        steps = ((48, 1), (24 * 14, 6), (24 * 60, 24))
        return HOUR_MS * next((step for most, step in steps if self.hours <= most), 24 * 7)


def stats(session: Session, *, now: datetime) -> dict[str, Any]:
    """Return the fleet's present state: devices by freshness and release, incidents by status and how many began.

    Counts of incidents by status stop at 1,000 (``counted_up_to``); those that began in the last 24 hours and 7 days
    come from roll-ups and are whole. Revoked devices do not count. Of releases it names at most 100.
    """
    total, *releases = session.execute(
        _DEVICES, {"day": now - timedelta(days=1), "week": now - timedelta(days=7)}
    ).mappings()
    incidents = {row.status: row.incidents for row in session.execute(_INCIDENTS, {"most": COUNTED})}
    now_ms = int(now.timestamp() * 1000)
    begun = session.execute(
        _BEGUN, {"now_ms": now_ms, "day_ms": now_ms - 24 * HOUR_MS, "week_ms": now_ms - 7 * 24 * HOUR_MS}
    )
    return {
        "devices": {
            "total": total["devices"],
            "freshness": {name: total[name] for name in ("day", "week", "older")},
            **{name: total[name] for name in ("stale", "cloned", "dead_letters", "update_refused")},
        },
        "releases": [
            {name: row[name] for name in ("model", "channel", "release", "version", "devices", "day")}
            for row in releases
        ],
        "incidents": {**incidents, "counted_up_to": COUNTED, "begun": dict(begun.mappings().one())},
    }


def trends(session: Session, query: TrendQuery, *, now: datetime) -> dict[str, Any]:
    """Return what the fleet scored over time, in equal buckets, empty ones included.

    When nothing at all happened in the last ``hours``, the range ends with the newest data instead and ``anchored``
    is true: a fleet that was offline for a month, or a demo of recorded data, shows its last days and not a void.

    Returns:
        ``from_ms``, ``to_ms``, ``bucket_ms``, ``anchored``, ``buckets``, ``totals``, ``edges`` and ``histogram`` of
        anomaly scores, and ``daily_only``: counts of merged days that no bucket shorter than a day can hold.
    """
    now_ms = int(now.timestamp() * 1000)
    newest = session.execute(_NEWEST, {"now_ms": now_ms}).scalar_one()
    anchored = newest is not None and newest < now_ms - query.hours * HOUR_MS
    bucket = query.bucket_ms
    last = newest if anchored else now_ms
    to_ms = last - last % bucket + bucket
    count = max(1, -(-query.hours * HOUR_MS // bucket))
    from_ms = to_ms - count * bucket
    given: dict[str, Any] = {"from_ms": from_ms, "to_ms": to_ms, "bucket_ms": bucket}
    filters = {"cohort": query.cohort, "model": query.model, "release": query.release}
    wanted = {name: value for name, value in filters.items() if value is not None}
    where = "".join(_CLAUSES[name] for name in wanted)
    rows = session.execute(text(f"{_TREND}{where} GROUP BY 1"), {**given, **wanted}).mappings().all()
    by_bucket = {row["bucket"]: {name: row[name] for name in _COUNTS} for row in rows}
    empty = dict.fromkeys(_COUNTS, 0)
    return {
        **given,
        "anchored": anchored,
        "buckets": [
            {"started_at_ms": from_ms + place * bucket, **by_bucket.get(place, empty)} for place in range(count)
        ],
        "totals": {name: sum(row[name] for row in by_bucket.values()) for name in _COUNTS},
        "daily_only": by_bucket.get(None, empty),
        "edges": list(EDGES),
        "histogram": [sum(row[f"bin_{place}"] for row in rows) for place in range(BINS)],
    }

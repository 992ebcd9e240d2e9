"""How a page of incidents or windows is found: with a bounded amount of work, whatever is asked for.

Rows are ordered by time and id, newest first, and every list begins at a key of an index in this order:

1. *Walk* the index that fits best, from the key on, and keep rows that pass the other filters. Where matches are
   common, a page is full after a few hundred rows.
2. Where they are not, look the rare thing up by an index of its own (signals, peak scores). If it has few rows in the
   whole table, the answer is exact.
3. Else walk on, to a bound. What was found is the page, and its cursor goes on where the walk ended, so the page may
   be short, or empty, with more to come. A list ends where there is no cursor, never where a page is short.

No step depends on what the planner believes of the data: a filter that matches nothing, or everything a year ago, costs
what any other does. Nothing here is part of a request; :mod:`sync_server.anomalies.reading` makes answers of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import text
from sqlalchemy.orm import Session

from sync_server.anomalies.filters import Filters
from sync_server.paging import Key

# Rows looked at while it is still likely that matches are common.
GLANCE = 1_000
# Rows that a rare thing may have for its matches to be gathered and put in order.
GATHERED = 500
# Rows of a glance from which on a thing is common: 2 in 100.
COMMON = GLANCE // 50
# Least score that the index of peak scores holds.
RARE_SCORE = 0.9999
# Rows looked at in all, by the filter whose index is walked: as many as fit well into 50 ms. Without one, neighbours in
# the list are neighbours on the disk, as they came in; those of one device hardly ever are.
EXAMINED = {None: 8_000, "device": 2_000, "cohort": 3_000, "status": 3_000}


@dataclass(frozen=True, slots=True)
class Listing:
    """One of the lists, as fixed pieces of SQL; values travel as parameters.

    Attributes:
        table: Where its rows are, ``t`` in the clauses.
        moment: The column of time that orders it, before ``id``.
        select: Columns of an item, from ``found``, which has all of the table's.
        clauses: A clause a filter.
        leads: Filters with an index in the list's order, the best first.
        rare: Filters with an index of their own, the cheapest first.
    """

    table: str
    moment: str
    select: str
    clauses: Mapping[str, str]
    leads: tuple[str, ...]
    rare: tuple[str, ...]

    @property
    def order(self) -> str:
        """The order of the list."""
        return f"{self.moment} DESC, id DESC"


_COMMON = (
    "found.id, found.device_id, d.name AS device_name, found.cohort, found.bundle, b.model, b.version,"
    " b.release_number, b.digest IS NOT NULL AS bundle_known, found.windows, found.contributions, found.stale,"
    " found.ahead"
)
INCIDENTS = Listing(
    table="incidents",
    moment="listed_at_ms",
    select=f"{_COMMON}, found.started_at_ms, found.last_observed_ms, found.ended_at_ms, found.records,"
    " found.peak_score, found.peak_raw_score, found.status, found.status_by, found.status_note, found.status_at,"
    " found.listed_at_ms",
    clauses={
        "device": "t.device_id = :device",
        "cohort": "t.cohort = :cohort",
        "status": "t.status = :status",
        "signal": "t.signals @> ARRAY[CAST(:signal AS text)]",
        "minimum_score": "t.peak_score >= :minimum_score",
        "from_ms": "t.listed_at_ms >= :from_ms",
        "to_ms": "t.listed_at_ms < :to_ms",
        "after": "(t.listed_at_ms, t.id) < (:after_ms, :after_id)",
    },
    leads=("device", "cohort", "status"),
    rare=("minimum_score", "signal"),
)
WINDOWS = Listing(
    table="anomalies",
    moment="observed_at_ms",
    select=f"{_COMMON}, found.observed_at_ms, found.received_at, found.incident_started_at_ms, found.anomaly_score,"
    " found.raw_score",
    clauses={
        "device": "t.device_id = :device",
        "cohort": "t.cohort = :cohort",
        "signal": "t.signals @> ARRAY[CAST(:signal AS text)]",
        "minimum_score": "t.anomaly_score >= :minimum_score",
        "from_ms": "t.observed_at_ms >= :from_ms",
        "to_ms": "t.observed_at_ms < :to_ms",
        "after": "(t.observed_at_ms, t.id) < (:after_ms, :after_id)",
    },
    leads=("device",),
    rare=(),
)
_RANGES = ("from_ms", "to_ms", "after")
# For this transaction: plans for the values at hand, since one for the average cohort walks the whole table for a
# cohort that does not exist; and by an index in any case, since a table of which the planner hopes to need only the
# beginning may have its few matches at the end.
_PLANNER = text(
    "SELECT set_config('plan_cache_mode', 'force_custom_plan', true), set_config('enable_seqscan', 'off', true)"
)


@dataclass(frozen=True, slots=True)
class Found:
    """Rows of a list, and how far the search came.

    Attributes:
        rows: Items as JSON-ready fields, newest first, one more than was asked for when there are that many.
        ended_at: Key of the last row looked at when the search was cut short, None when it reached the end or the
            rows are enough.
    """

    rows: list[dict[str, Any]]
    ended_at: Key | None = None


@dataclass(frozen=True, slots=True)
class Search:
    """One search: which list, with which clauses and values.

    Attributes:
        listing: The list.
        leading: Names of the clauses that the walked index serves.
        others: Names of the clauses that are checked row by row.
        values: Parameters of all of them.
        most: Rows wanted.
        examined: Rows that may be looked at.
    """

    listing: Listing
    leading: tuple[str, ...]
    others: tuple[str, ...]
    values: Mapping[str, Any]
    most: int
    examined: int

    @classmethod
    def of(cls, filters: Filters, after: Key | None, most: int) -> Search:
        """Plan the search for filters, from a key on."""
        listing = INCIDENTS if filters.view == "incidents" else WINDOWS
        values = filters.parameters()
        del values["view"]
        names = [*values, *(["after"] if after else [])]
        lead = next((name for name in listing.leads if name in names), None)
        leading = tuple(name for name in names if name == lead or name in _RANGES)
        others = tuple(name for name in names if name not in leading)
        if after:
            values |= {"after_ms": after[0], "after_id": after[1]}
        return cls(listing, leading, others, {**values, "most": most}, most, EXAMINED[lead])

    def where(self, names: tuple[str, ...]) -> str:
        """Return the clauses of these names as one condition."""
        return " AND ".join(self.listing.clauses[name] for name in names) or "true"


def find(session: Session, search: Search) -> Found:
    """Return the first rows of a search, see the module's first lines; at most eleven statements.

    Args:
        session: The open transaction.
        search: What to look for.
    """
    session.execute(_PLANNER)
    if not search.others:
        return Found(_walk(session, search, search.most))
    glance = _look(session, search, GLANCE)
    if glance.ended_at is None:
        return glance
    for name in (name for name in search.listing.rare if name in search.others):
        gathered = _gather(session, search, name) if _may_be_rare(session, search, name) else None
        if gathered is not None:
            return Found(gathered)
    return _look(session, search, search.examined)


def _look(session: Session, search: Search, examined: int) -> Found:
    """Walk, and find out where the walk ended unless it found enough."""
    rows = _walk(session, search, examined)
    return Found(rows, None if len(rows) >= search.most else _end_of_walk(session, search, examined))


def _walk(session: Session, search: Search, examined: int) -> list[dict[str, Any]]:
    """Look at rows in the list's order and return those that pass every filter."""
    kind = search.listing
    statement = f"""
        SELECT {kind.select}
        FROM (SELECT * FROM (SELECT * FROM {kind.table} t WHERE {search.where(search.leading)}
                             ORDER BY {kind.order} LIMIT :examined) AS t
              WHERE {search.where(search.others)} ORDER BY {kind.order} LIMIT :most) AS found
            JOIN devices d ON d.id = found.device_id LEFT JOIN bundles b ON b.digest = found.bundle
        ORDER BY found.{kind.moment} DESC, found.id DESC
    """  # noqa: S608 - put together from our own constants
    rows = session.execute(text(statement), {**search.values, "examined": examined}).mappings()
    return [dict(row) for row in rows]


def _end_of_walk(session: Session, search: Search, examined: int) -> Key | None:
    """Return the key of the last row that a walk looked at, None when the list ended before. Reads the index only."""
    kind = search.listing
    statement = f"""
        SELECT {kind.moment}, id
        FROM (SELECT {kind.moment}, id, row_number() OVER (ORDER BY {kind.order}) AS place
              FROM {kind.table} t WHERE {search.where(search.leading)} ORDER BY {kind.order} LIMIT :examined) AS t
        WHERE place = :examined
    """  # noqa: S608 - put together from our own constants
    row = session.execute(text(statement), {**search.values, "examined": examined}).one_or_none()
    return None if row is None else (row[0], row[1])


def _may_be_rare(session: Session, search: Search, name: str) -> bool:
    """Say whether a clause has an index for its value, and passes few enough of the rows of a glance."""
    if name == "minimum_score" and search.values[name] < RARE_SCORE:
        return False
    kind = search.listing
    statement = f"""
        SELECT count(*) FROM (SELECT * FROM {kind.table} t WHERE {search.where(search.leading)}
                              ORDER BY {kind.order} LIMIT :examined) AS t
        WHERE {kind.clauses[name]}
    """  # noqa: S608 - put together from our own constants
    return int(session.execute(text(statement), {**search.values, "examined": GLANCE}).scalar_one()) <= COMMON


def _gather(session: Session, search: Search, name: str) -> list[dict[str, Any]] | None:
    """Return the first rows of a search by the index of a rare thing, None when the thing has too many rows.

    The index says which rows they are, without a look at the rows themselves where it can.
    """
    kind = search.listing
    # The index of scores is found by its own condition, and read from the top down.
    first = f"AND t.peak_score >= {RARE_SCORE} ORDER BY t.peak_score DESC" if name == "minimum_score" else ""
    keys = f"SELECT id FROM {kind.table} t WHERE {kind.clauses[name]} {first} LIMIT :gathered + 1"  # noqa: S608 - constants
    found = session.execute(text(keys), {**search.values, "gathered": GATHERED}).all()
    if len(found) > GATHERED:
        return None
    statement = f"""
        SELECT {kind.select}
        FROM (SELECT * FROM {kind.table} t WHERE t.id = ANY(:ids) AND {search.where(search.leading + search.others)}
              ORDER BY {kind.order} LIMIT :most) AS found
            JOIN devices d ON d.id = found.device_id LEFT JOIN bundles b ON b.digest = found.bundle
        ORDER BY found.{kind.moment} DESC, found.id DESC
    """  # noqa: S608 - put together from our own constants
    rows = session.execute(text(statement), {**search.values, "ids": [row.id for row in found]}).mappings()
    return [dict(row) for row in rows]

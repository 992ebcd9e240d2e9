"""Lists of incidents and windows, a page at a time, each one query whose cost does not depend on the page's number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import text
from sqlalchemy.orm import Session

from sync_server.anomalies.filters import Filters, Key, encode_cursor
from sync_server.errors import RequestError

_INCIDENTS = """
    SELECT i.id, i.device_id, d.name AS device_name, i.cohort, i.bundle, b.model, b.version, b.release_number,
           b.digest IS NOT NULL AS bundle_known, i.started_at_ms, i.last_observed_ms, i.ended_at_ms, i.windows,
           i.records, i.peak_score, i.peak_raw_score, i.contributions, i.stale, i.ahead, i.status, i.status_by,
           i.status_note, i.status_at, i.listed_at_ms
    FROM incidents i JOIN devices d ON d.id = i.device_id LEFT JOIN bundles b ON b.digest = i.bundle
"""
_WINDOWS = """
    SELECT a.id, a.device_id, d.name AS device_name, a.cohort, a.bundle, b.model, b.version, b.release_number,
           b.digest IS NOT NULL AS bundle_known, a.observed_at_ms, a.received_at, a.incident_started_at_ms,
           a.anomaly_score, a.raw_score, a.windows, a.contributions, a.stale, a.ahead
    FROM anomalies a JOIN devices d ON d.id = a.device_id LEFT JOIN bundles b ON b.digest = a.bundle
"""
# Each filter is a fixed clause; values travel as parameters.
_INCIDENT_CLAUSES = {
    "device": "i.device_id = :device",
    "cohort": "i.cohort = :cohort",
    "status": "i.status = :status",
    "signal": "i.signals @> ARRAY[CAST(:signal AS text)]",
    "from_ms": "i.last_observed_ms >= :from_ms",
    "to_ms": "i.started_at_ms < :to_ms",
    "minimum_score": "i.peak_score >= :minimum_score",
    "after": "(i.listed_at_ms, i.id) < (:after_ms, :after_id)",
}
_WINDOW_CLAUSES = {
    "device": "a.device_id = :device",
    "cohort": "a.cohort = :cohort",
    "signal": "a.signals @> ARRAY[CAST(:signal AS text)]",
    "from_ms": "a.observed_at_ms >= :from_ms",
    "to_ms": "a.observed_at_ms < :to_ms",
    "minimum_score": "a.anomaly_score >= :minimum_score",
    "after": "(a.observed_at_ms, a.id) < (:after_ms, :after_id)",
}
_HISTORY = text("""
    SELECT changed_at, changed_by, old_status, new_status, note
    FROM incident_status_changes WHERE incident_id = :id ORDER BY id DESC LIMIT 100
""")


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a list.

    Attributes:
        items: Rows as JSON-ready fields, newest first.
        next: The cursor of the next page, None on the last.
    """

    items: list[dict[str, Any]]
    next: str | None

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON body."""
        return {"items": self.items, "next": self.next}


def list_page(session: Session, filters: Filters, *, limit: int, after: Key | None) -> Page:
    """Return one page of incidents or windows, newest first.

    Args:
        session: The open transaction.
        filters: What to list.
        limit: Rows at most.
        after: Key of the last row of the page before, None for the first page.
    """
    incidents = filters.view == "incidents"
    select, clauses = (_INCIDENTS, _INCIDENT_CLAUSES) if incidents else (_WINDOWS, _WINDOW_CLAUSES)
    order = "i.listed_at_ms DESC, i.id DESC" if incidents else "a.observed_at_ms DESC, a.id DESC"
    values = filters.parameters()
    del values["view"]
    wanted = [*values, *(["after"] if after else [])]
    where = f" WHERE {' AND '.join(clauses[name] for name in wanted)}" if wanted else ""
    if after:
        values |= {"after_ms": after[0], "after_id": after[1]}
    # One row more than the page tells whether there is another page, without counting.
    statement = text(f"{select}{where} ORDER BY {order} LIMIT :most")
    rows = [dict(row) for row in session.execute(statement, {**values, "most": limit + 1}).mappings()]
    items = rows[:limit]
    moment = "listed_at_ms" if incidents else "observed_at_ms"
    following = encode_cursor(filters, (items[-1][moment], items[-1]["id"])) if len(rows) > limit else None
    return Page(items, following)


def one_incident(session: Session, incident_id: int) -> dict[str, Any]:
    """Return one incident with the history of its status, newest first.

    Raises:
        RequestError: 404 when there is none.
    """
    statement = text(f"{_INCIDENTS} WHERE i.id = :id")
    row = session.execute(statement, {"id": incident_id}).mappings().one_or_none()
    if row is None:
        raise RequestError(
            404, "incident_not_found", f"There is no incident {incident_id}.", advice="Check the number."
        )
    history = [dict(change) for change in session.execute(_HISTORY, {"id": incident_id}).mappings()]
    return {**row, "history": history}

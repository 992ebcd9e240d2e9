"""Answers about incidents and windows: a page of a list, one incident with its history."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import text
from sqlalchemy.orm import Session

from sync_server.anomalies.filters import Filters
from sync_server.anomalies.lists import INCIDENTS, WINDOWS, Search, find
from sync_server.errors import RequestError
from sync_server.paging import Key, encode_cursor

_INCIDENT = text(f"""
    SELECT {INCIDENTS.select} FROM incidents found JOIN devices d ON d.id = found.device_id
        LEFT JOIN bundles b ON b.digest = found.bundle
    WHERE found.id = :id
""")  # noqa: S608 - put together from our own constants
_HISTORY = text("""
    SELECT changed_at, changed_by, old_status, new_status, note
    FROM incident_status_changes WHERE incident_id = :id ORDER BY id DESC LIMIT 100
""")


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a list.

    Attributes:
        items: Rows as JSON-ready fields, newest first. They may be fewer than the limit with more to come.
        next: The cursor of the next page, None on the last.
        searched_to_ms: The moment down to which this page looked before it had looked at enough rows; None when its
            items are full or the list has ended.
    """

    items: list[dict[str, Any]]
    next: str | None
    searched_to_ms: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON body."""
        return {"items": self.items, "next": self.next, "searched_to_ms": self.searched_to_ms}


def list_page(session: Session, filters: Filters, *, limit: int, after: Key | None) -> Page:
    """Return one page of incidents or windows, newest first.

    Args:
        session: The open transaction.
        filters: What to list.
        limit: Rows at most.
        after: Key of the last row of the page before, None for the first page.
    """
    # One row more than the page tells whether there is another page, without counting.
    found = find(session, Search.of(filters, after, limit + 1))
    items = found.rows[:limit]
    if len(found.rows) > limit:
        moment = INCIDENTS.moment if filters.view == "incidents" else WINDOWS.moment
        return Page(items, encode_cursor(filters, (items[-1][moment], items[-1]["id"])))
    if found.ended_at is None:
        return Page(items, None)
    return Page(items, encode_cursor(filters, found.ended_at), found.ended_at[0])


def one_incident(session: Session, incident_id: int) -> dict[str, Any]:
    """Return one incident with the history of its status, newest first.

    Raises:
        RequestError: 404 when there is none.
    """
    row = session.execute(_INCIDENT, {"id": incident_id}).mappings().one_or_none()
    if row is None:
        raise RequestError(
            404, "incident_not_found", f"There is no incident {incident_id}.", advice="Check the number."
        )
    history = [dict(change) for change in session.execute(_HISTORY, {"id": incident_id}).mappings()]
    return {**row, "history": history}

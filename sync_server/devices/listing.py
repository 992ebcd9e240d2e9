"""Devices as a list: most recently seen first, a page at a time, with the filters that a fleet in trouble needs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Self

from sqlalchemy import text
from sqlalchemy.orm import Session

from edge_runtime.contract import checks
from edge_runtime.contract.names import MAX_COHORT_CHARACTERS
from edge_runtime.errors import ContractError
from sync_server.devices.requests import MAX_NAME_CHARACTERS

PAGE = 50
PARAMETERS = ("flag", "cohort", "name", "limit", "cursor")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_CURSOR = re.compile(r"(\d{1,17})-([0-9a-f]{32})")

FLAGS = {
    "stale": "stale",
    "cloned": "cloned_at IS NOT NULL",
    "dead_letters": "dead_letters > 0",
    "update_refused": "update_outcome = 'refused'",
    "silent": "last_seen_at < now() - interval '7 days'",
    "revoked": "revoked_at IS NOT NULL",
}
_COLUMNS = (
    "id, name, cohort, model, channel, active_release, active_version, last_seen_at, outbox_records, dead_letters,"
    " stale, cloned_at, revoked_at, update_outcome, update_reason"
)


@dataclass(frozen=True, slots=True)
class DeviceFilters:
    """What to list; None is no restriction.

    Attributes:
        flag: A key of :data:`FLAGS`.
        cohort: A cohort, whole.
        name: How the name or the id begins.
    """

    flag: str | None = None
    cohort: str | None = None
    name: str | None = None

    @classmethod
    def from_query(cls, query: Mapping[str, str]) -> Self:
        """Read the parameters of a page's URL; empty ones are no restriction.

        Raises:
            ContractError: A flag that does not exist, or a value out of bounds.
        """
        flag, cohort, name = (query.get(field) or None for field in ("flag", "cohort", "name"))
        if flag is not None and flag not in FLAGS:
            raise ContractError(f"There is no flag {flag[:40]!r}.", advice=f"Use one of {', '.join(FLAGS)}.")
        return cls(
            flag,
            None if cohort is None else checks.text(cohort, "cohort", most=MAX_COHORT_CHARACTERS),
            None if name is None else checks.text(name, "name", most=MAX_NAME_CHARACTERS),
        )


def check_parameters(query: Mapping[str, str]) -> None:
    """Refuse parameters that do not exist.

    Raises:
        ContractError: There is one. A misspelt filter is never passed over: the answer would look like a finding.
    """
    for name in query:
        if name not in PARAMETERS:
            raise ContractError(f"There is no parameter {name[:40]!r}.", advice=f"Use {', '.join(PARAMETERS)}.")


def list_devices(
    session: Session, filters: DeviceFilters, after: str, *, limit: int = PAGE
) -> tuple[list[dict[str, Any]], str | None]:
    """Return one page of devices and the cursor of the next, None on the last page.

    Args:
        session: The open transaction.
        filters: Which devices.
        after: The cursor, empty for the first page.
        limit: Devices at most.

    Raises:
        ContractError: The cursor is none.
    """
    clauses = ["true"]
    given: dict[str, Any] = {"most": limit + 1}
    if filters.flag:
        clauses.append(FLAGS[filters.flag])
    if filters.cohort:
        clauses.append("cohort = :cohort")
        given["cohort"] = filters.cohort
    if filters.name:
        clauses.append("(starts_with(id, lower(:name)) OR starts_with(lower(name), lower(:name)))")
        given["name"] = filters.name
    if after:
        match = _CURSOR.fullmatch(after)
        if match is None:
            raise ContractError("The cursor does not belong to this list.", advice="Begin again without a cursor.")
        clauses.append("(last_seen_at, id) < (:seen, :id)")
        given |= {"seen": _EPOCH + timedelta(microseconds=int(match[1])), "id": match[2]}
    statement = text(
        f"SELECT {_COLUMNS} FROM devices WHERE {' AND '.join(clauses)}"  # noqa: S608 - clauses are our own constants
        " ORDER BY last_seen_at DESC, id DESC LIMIT :most"
    )
    rows = [dict(row) for row in session.execute(statement, given).mappings()]
    following = None
    if len(rows) > limit:
        last = rows[limit - 1]
        following = f"{(last['last_seen_at'] - _EPOCH) // timedelta(microseconds=1)}-{last['id']}"
    return rows[:limit], following


def cohorts(session: Session) -> list[str]:
    """Return the cohorts that devices name, at most 200, for filters."""
    statement = text("SELECT DISTINCT cohort FROM devices WHERE cohort IS NOT NULL ORDER BY cohort LIMIT 200")
    return list(session.scalars(statement))

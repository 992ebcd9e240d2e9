"""``GET /api/audit``: the audit trail, newest first, a page at a time.

Filters are whole values, since what is merely contained could only be found by reading everything: an actor as it
stands in an entry, an action such as ``token.revoke``, a subject such as ``channel:stable``. Viewers may read it as
well: it holds no secrets, and who decided what is no secret among operators.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Self

import msgspec
from flask import Blueprint, Response, request
from msgspec import Meta
from sqlalchemy import text
from sqlalchemy.orm import Session

from edge_runtime.contract import checks, routes
from edge_runtime.errors import ContractError
from sync_server.access.guard import require_token
from sync_server.apidoc.answers import PRINTABLE, Moment, Object
from sync_server.apidoc.describe import describe
from sync_server.db import session_scope
from sync_server.http import json_response
from sync_server.paging import (
    DEFAULT_LIMIT,
    MAX_LIMIT,
    Key,
    decode_cursor,
    digest_of,
    encode_cursor,
    read_limit,
    whole_number,
)  # fmt: skip

blueprint = Blueprint("trail", __name__)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MOST_CHARACTERS = 256
_PARAMETERS = ("actor", "action", "subject", "from_ms", "to_ms", "limit", "cursor")
Line = Annotated[str, Meta(max_length=_MOST_CHARACTERS, pattern=PRINTABLE)]


class TrailQuery(msgspec.Struct):
    """The parameters of ``GET /api/audit``, which :class:`TrailFilters` reads."""

    actor: Line | None = None
    action: Line | None = None
    subject: Line | None = None
    from_ms: Moment | None = None
    to_ms: Moment | None = None
    limit: Annotated[int, Meta(ge=1, le=MAX_LIMIT)] = DEFAULT_LIMIT
    cursor: str = ""


# Each filter is a fixed clause; values travel as parameters.
_CLAUSES = {
    "actor": "actor = :actor",
    "action": "action = :action",
    "subject": "subject = :subject",
    "from_ms": "at >= :from_at",
    "to_ms": "at < :to_at",
    "after": "(at, id) < (:after_at, :after_id)",
}


@dataclass(frozen=True, slots=True)
class TrailFilters:
    """What to list; None is no restriction.

    Attributes:
        actor: Who, as in the entries.
        action: What, as ``noun.done``.
        subject: To what.
        from_ms: At or after, by the server's clock.
        to_ms: Before.
    """

    actor: str | None = None
    action: str | None = None
    subject: str | None = None
    from_ms: int | None = None
    to_ms: int | None = None

    @classmethod
    def from_query(cls, query: Mapping[str, str]) -> Self:
        """Read the parameters of a URL; empty ones are no restriction, as a form sends them.

        Raises:
            ContractError: A parameter that does not exist, or a value out of bounds.
        """
        for name in query:
            if name not in _PARAMETERS:
                raise ContractError(f"There is no parameter {name[:40]!r}.", advice=f"Use {', '.join(_PARAMETERS)}.")
        given = {name: value for name, value in query.items() if value != ""}
        return cls(
            actor=_text(given, "actor"),
            action=_text(given, "action"),
            subject=_text(given, "subject"),
            from_ms=_moment(given, "from_ms"),
            to_ms=_moment(given, "to_ms"),
        )

    def digest(self) -> str:
        """Return a short digest that tells these filters from others."""
        return digest_of(asdict(self))


def _text(given: Mapping[str, str], name: str) -> str | None:
    return checks.text(given[name], name, most=_MOST_CHARACTERS) if name in given else None


def _moment(given: Mapping[str, str], name: str) -> int | None:
    return whole_number(given[name], name, least=0, most=checks.LATEST_MS) if name in given else None


def list_entries(session: Session, filters: TrailFilters, *, limit: int, after: Key | None) -> dict[str, Any]:
    """Return one page of the audit trail: ``items``, newest first, and ``next``, the cursor of the next page or None.

    Args:
        session: The open transaction.
        filters: What to list.
        limit: Entries at most.
        after: Key of the last entry of the page before: microseconds since 1970, and its number.
    """
    values: dict[str, Any] = {name: value for name, value in asdict(filters).items() if value is not None}
    names = [*values, *(["after"] if after else [])]
    for name, column in (("from_ms", "from_at"), ("to_ms", "to_at")):
        if name in values:
            values[column] = _EPOCH + timedelta(milliseconds=values.pop(name))
    if after:
        values |= {"after_at": _EPOCH + timedelta(microseconds=after[0]), "after_id": after[1]}
    where = " AND ".join(_CLAUSES[name] for name in names) or "true"
    statement = text(
        f"SELECT id, at, actor, action, subject, detail FROM audit_entries WHERE {where}"  # noqa: S608 - constants
        " ORDER BY at DESC, id DESC LIMIT :most"
    )
    rows = [dict(row) for row in session.execute(statement, {**values, "most": limit + 1}).mappings()]
    items, following = rows[:limit], None
    if len(rows) > limit:
        moment = (items[-1]["at"] - _EPOCH) // timedelta(microseconds=1)
        following = encode_cursor(filters, (moment, items[-1]["id"]))
    return {"items": items, "next": following}


@blueprint.get(routes.AUDIT)
@require_token("ops", "view", session=True)
@describe("access", query=TrailQuery, answers={200: Object})
def entries() -> Response:
    """List who did what to what: ``actor``, ``action``, ``subject``, ``from_ms``, ``to_ms``, ``limit``, ``cursor``."""
    filters = TrailFilters.from_query(request.args)
    limit, after = read_limit(request.args), decode_cursor(filters, request.args.get("cursor", ""))
    with session_scope() as session:
        return json_response(list_entries(session, filters, limit=limit, after=after))

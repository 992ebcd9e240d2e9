"""The page of the audit trail: who did what to what, and when."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from flask import Blueprint, render_template, request

from edge_runtime.errors import ContractError
from sync_server.access.guard import login_required
from sync_server.access.trail import TrailFilters, list_entries
from sync_server.db import session_scope
from sync_server.paging import decode_cursor

blueprint = Blueprint("audit_pages", __name__)

_FORM = ("actor", "action", "subject")
_LISTED = 50


@blueprint.get("/audit")
@login_required
def trail() -> str | tuple[str, int]:
    """List the audit trail, newest first, a page at a time."""
    form = {name: request.args.get(name, "").strip() for name in _FORM}
    given = {name: value for name, value in form.items() if value}
    problem: str | None = None
    page: dict[str, Any] = {"items": [], "next": None}
    try:
        filters = TrailFilters.from_query(given)
        after = decode_cursor(filters, request.args.get("cursor", ""))
        with session_scope() as session:
            page = list_entries(session, filters, limit=_LISTED, after=after)
    except ContractError as error:
        problem = f"{error.message} {error.advice}".strip()
    shown = render_template(
        "audit.html",
        entries=[{**entry, "told": told(entry["detail"])} for entry in page["items"]],
        form=form,
        filtered=bool(given),
        problem=problem,
        first_url=f"/audit?{urlencode(given)}" if request.args.get("cursor") else None,
        next_url=f"/audit?{urlencode({**given, 'cursor': page['next']})}" if page["next"] else None,
    )
    return (shown, 422) if problem else shown


def told(detail: dict[str, Any]) -> list[tuple[str, str]]:
    """Return an entry's details as pairs of a name and a short text; of a change, what was and what is.

    Args:
        detail: JSON of any shape, as rooms wrote it.
    """
    before, after = detail.get("before"), detail.get("after")
    if isinstance(after, dict):
        past = before if isinstance(before, dict) else {}
        changed = [
            (name, f"{_short(past[name])} → {_short(value)}" if name in past else _short(value))
            for name, value in after.items()
            if past.get(name) != value
        ]
        return changed + told({name: value for name, value in detail.items() if name not in ("before", "after")})
    return [(name, _short(value)) for name, value in detail.items()]


def _short(value: object) -> str:
    text = "none" if value is None else ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= 160 else f"{text[:159]}…"

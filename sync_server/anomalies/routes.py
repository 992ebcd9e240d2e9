"""``/api/anomalies``, ``/api/incidents.csv``, ``/api/incidents/<id>`` and ``/api/incidents/<id>/status``."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from flask import Blueprint, Response, request
from msgspec import Meta

from edge_runtime.contract import routes
from edge_runtime.errors import ContractError
from sync_server.access.guard import current_actor, require_token
from sync_server.anomalies.export import export
from sync_server.anomalies.filters import Filters
from sync_server.anomalies.reading import list_page, one_incident
from sync_server.anomalies.status import MAX_ID, MAX_NOTE_CHARACTERS, change_status
from sync_server.apidoc.answers import PRINTABLE, Cohort, Hex32OrEmpty, Moment, Object
from sync_server.apidoc.describe import describe
from sync_server.db import get_database, session_scope
from sync_server.http import json_response, read_json
from sync_server.ingest.models import STATUSES
from sync_server.paging import DEFAULT_LIMIT, MAX_LIMIT, decode_cursor, read_limit

blueprint = Blueprint("anomalies", __name__)


class StatusChange(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The body of ``POST /api/incidents/<id>/status``; white space around the note does not count."""

    status: Annotated[str, Meta(extra_json_schema={"enum": list(STATUSES)})]
    note: Annotated[str, Meta(extra_json_schema={"minLength": 1, "maxLength": MAX_NOTE_CHARACTERS})]


class FileQuery(msgspec.Struct):
    """The parameters of ``GET /api/incidents.csv``, which :class:`Filters` reads."""

    device: Hex32OrEmpty | None = None
    cohort: Cohort | None = None
    status: Literal["open", "acknowledged", "resolved"] | None = None
    signal: Annotated[str, Meta(max_length=128, pattern=PRINTABLE)] | None = None
    from_ms: Moment | None = None
    to_ms: Moment | None = None
    minimum_score: Annotated[float, Meta(ge=0, le=1)] | None = None
    cursor: str = ""


class AnomalyQuery(FileQuery):
    """The parameters of ``GET /api/anomalies``; ``status`` is of incidents only."""

    view: Literal["incidents", "windows"] = "incidents"
    limit: Annotated[int, Meta(ge=1, le=MAX_LIMIT)] = DEFAULT_LIMIT


@blueprint.get(routes.ANOMALIES)
@require_token("ops", "view", session=True)
@describe("results", query=AnomalyQuery, answers={200: Object})
def anomalies() -> Response:
    """List incidents, or with ``view=windows`` every stored anomalous window, newest first, a page at a time.

    Work is bounded, not the wait for it: where few rows match, a page may be short, or empty, and still have a
    ``next``. ``searched_to_ms`` then says how far back it looked. The list ends where ``next`` is null.
    """
    filters = Filters.from_query(request.args)
    after = decode_cursor(filters, request.args.get("cursor", ""))
    with session_scope() as session:
        return json_response(list_page(session, filters, limit=read_limit(request.args), after=after).to_dict())


@blueprint.get(routes.INCIDENTS_CSV)
@require_token("ops", "view", session=True)
@describe("results", query=FileQuery, answers={200: str}, answer_type="text/csv")
def incidents_csv() -> Response:
    """Return the incidents of the same filters as a file for spreadsheets, at most 50,000 of them.

    Raises:
        ContractError: Bad filters, or ``view`` or ``limit``, which a file does not have.
    """
    for name in ("view", "limit"):
        if name in request.args:
            raise ContractError(f"There is no parameter {name!r} of a file.", advice="A file holds incidents only.")
    filters = Filters.from_query(request.args)
    after = decode_cursor(filters, request.args.get("cursor", ""))
    response = Response(export(get_database(), filters, after), content_type="text/csv; charset=utf-8")
    response.headers["Content-Disposition"] = 'attachment; filename="incidents.csv"'
    response.headers["Cache-Control"] = "no-store"
    return response


@blueprint.get(f"{routes.INCIDENTS}<int(max={MAX_ID}):incident_id>")
@require_token("ops", "view", session=True)
@describe("results", answers={200: Object})
def incident(incident_id: int) -> Response:
    """Return one incident and what people decided about it."""
    with session_scope() as session:
        return json_response(one_incident(session, incident_id))


@blueprint.post(f"{routes.INCIDENTS}<int(max={MAX_ID}):incident_id>/status")
@require_token("ops", session=True)
@describe("results", body=StatusChange, answers={200: Object})
def incident_status(incident_id: int) -> Response:
    """Set the status of an incident, with a note that says why."""
    body = read_json(StatusChange)
    with session_scope() as session:
        change_status(session, incident_id, body.status, body.note, actor=current_actor().label)
        session.flush()
        return json_response(one_incident(session, incident_id))

"""``GET /api/anomalies``, ``GET /api/incidents/<id>``, ``POST /api/incidents/<id>/status``."""

from __future__ import annotations

import msgspec
from flask import Blueprint, Response, request

from edge_runtime.contract import routes
from sync_server.access.guard import current_actor, require_token
from sync_server.anomalies.filters import Filters, decode_cursor, read_limit
from sync_server.anomalies.reading import list_page, one_incident
from sync_server.anomalies.status import MAX_ID, change_status
from sync_server.db import session_scope
from sync_server.http import json_response, read_json

blueprint = Blueprint("anomalies", __name__)


class StatusChange(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The body of ``POST /api/incidents/<id>/status``."""

    status: str
    note: str


@blueprint.get(routes.ANOMALIES)
@require_token("ops", "view", session=True)
def anomalies() -> Response:
    """List incidents, or with ``view=windows`` every stored anomalous window, newest first, a page at a time."""
    filters = Filters.from_query(request.args)
    after = decode_cursor(filters, request.args.get("cursor", ""))
    with session_scope() as session:
        return json_response(list_page(session, filters, limit=read_limit(request.args), after=after).to_dict())


@blueprint.get(f"{routes.INCIDENTS}<int(max={MAX_ID}):incident_id>")
@require_token("ops", "view", session=True)
def incident(incident_id: int) -> Response:
    """Return one incident and what people decided about it."""
    with session_scope() as session:
        return json_response(one_incident(session, incident_id))


@blueprint.post(f"{routes.INCIDENTS}<int(max={MAX_ID}):incident_id>/status")
@require_token("ops", session=True)
def incident_status(incident_id: int) -> Response:
    """Set the status of an incident, with a note that says why."""
    body = read_json(StatusChange)
    with session_scope() as session:
        change_status(session, incident_id, body.status, body.note, actor=current_actor().label)
        session.flush()
        return json_response(one_incident(session, incident_id))

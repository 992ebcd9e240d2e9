"""``GET /api/incidents/<id>/advice``: a short explanation of an incident, and what to do about it."""

from __future__ import annotations

from typing import cast

from flask import Blueprint, Flask, Response
from flask.blueprints import BlueprintSetupState

from edge_runtime.contract import routes
from sync_server.access.guard import require_token
from sync_server.advice.service import current_desk, install
from sync_server.anomalies.status import MAX_ID
from sync_server.apidoc.answers import Object
from sync_server.apidoc.describe import describe
from sync_server.http import json_response

blueprint = Blueprint("advice", __name__)


@blueprint.record_once
def _install(state: BlueprintSetupState) -> None:
    install(cast("Flask", state.app))


@blueprint.get(f"{routes.INCIDENTS}<int(max={MAX_ID}):incident_id>/advice")
@require_token("ops", "view", session=True)
@describe("results", answers={200: Object})
def advice(incident_id: int) -> Response:
    """Return advice for an incident: from the cache, from the endpoint if it is quick, else from a template."""
    return json_response({"incident_id": incident_id, **current_desk().advise(incident_id).to_dict()})

"""``POST /api/devices``, ``POST /api/device-status``, ``GET /api/devices/<id>``."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response, request

from edge_runtime.contract import routes
from edge_runtime.contract.checks import parse_object
from edge_runtime.errors import ContractError
from sync_server.access.guard import current_actor, require_token
from sync_server.db import session_scope
from sync_server.devices import service
from sync_server.devices.reading import device_detail
from sync_server.devices.requests import MAX_STATUS_BYTES, EnrolRequest
from sync_server.errors import RequestError
from sync_server.http import json_response

blueprint = Blueprint("devices", __name__)


@blueprint.post(routes.DEVICES)
@require_token("enr")
def enrol() -> Response:
    """Let a device in; a retry by the same installation returns the same device id and a fresh token."""
    body = EnrolRequest.from_dict(_json_object("The enrolment"))
    with session_scope() as session:
        enrolled = service.enrol(session, current_actor(), body)
    return json_response(enrolled.to_dict(), 201 if enrolled.created else 200)


@blueprint.post(routes.DEVICE_STATUS)
@require_token("dev")
def device_status() -> Response:
    """Keep what a device says of itself."""
    body = _json_object("The status")
    with session_scope() as session:
        service.store_status(service.bearer_device(session, current_actor()), body)
    return Response(status=204)


@blueprint.get(f"{routes.DEVICES}/<device_id>")
@require_token("ops", "view", session=True)
def one_device(device_id: str) -> Response:
    """Return one device: who it is, what it runs, how its uploads stand, its latest incidents, gaps and events."""
    with session_scope() as session:
        return json_response(device_detail(session, device_id))


def _json_object(what: str) -> dict[str, Any]:
    """Read the body as a JSON object of at most 16 KiB; 400 when it is none."""
    request.max_content_length = MAX_STATUS_BYTES
    if request.mimetype != "application/json":
        raise RequestError(
            415, "unsupported_media_type", "The body must be JSON.", advice="Send Content-Type: application/json."
        )
    try:
        return parse_object(request.get_data(cache=False), what)
    except ContractError as error:
        raise RequestError(400, "bad_json", error.message, advice="Send one JSON object.") from error

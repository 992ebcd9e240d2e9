"""``POST`` and ``GET /api/devices``, ``GET /api/devices/<id>``, ``POST /api/device-status``."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from flask import Blueprint, Response, request
from msgspec import Meta

from edge_runtime.contract import routes
from edge_runtime.contract.checks import parse_object
from edge_runtime.errors import ContractError
from sync_server.access.guard import current_actor, require_token
from sync_server.apidoc.answers import PRINTABLE, Cohort, Count, Hex32, Hex64, Name, Object
from sync_server.apidoc.describe import describe
from sync_server.db import session_scope
from sync_server.devices import service
from sync_server.devices.listing import FLAGS, DeviceFilters, check_parameters, list_devices
from sync_server.devices.reading import device_detail
from sync_server.devices.requests import MAX_NAME_CHARACTERS, MAX_STATUS_BYTES, EnrolRequest
from sync_server.errors import RequestError
from sync_server.http import json_response
from sync_server.paging import DEFAULT_LIMIT, MAX_LIMIT, read_limit

blueprint = Blueprint("devices", __name__)


class EnrolBody(msgspec.Struct):
    """The body of ``POST /api/devices``, which :class:`EnrolRequest` reads."""

    installation_id: Hex32
    name: Annotated[str, Meta(max_length=MAX_NAME_CHARACTERS, pattern=PRINTABLE)] | None = None
    cohort: Cohort | None = None
    kind: Literal["edge", "demo"] = "edge"


class EnrolAnswer(msgspec.Struct):
    """Who the device is now; the token is shown this once."""

    device_id: Hex32
    token: str
    model: str
    channel: str


class Active(msgspec.Struct):
    """What a device runs."""

    bundle: Hex64
    release: Count
    version: Name


class Outbox(msgspec.Struct):
    """What waits on a device."""

    records: Count
    dead_letters: Count


class LastUpdate(msgspec.Struct):
    """How a device's last update ended."""

    outcome: Annotated[str, Meta(max_length=64, pattern=PRINTABLE)] | None = None
    reason: Annotated[str, Meta(max_length=128, pattern=PRINTABLE)] | None = None


class DeviceQuery(msgspec.Struct):
    """The parameters of ``GET /api/devices``, which :class:`DeviceFilters` reads."""

    flag: Annotated[str, Meta(extra_json_schema={"enum": list(FLAGS)})] | None = None
    cohort: Cohort | None = None
    name: Annotated[str, Meta(max_length=MAX_NAME_CHARACTERS, pattern=PRINTABLE)] | None = None
    limit: Annotated[int, Meta(ge=1, le=MAX_LIMIT)] = DEFAULT_LIMIT
    cursor: str = ""


class StatusBody(msgspec.Struct):
    """The body of ``POST /api/device-status``; what a newer device adds is kept."""

    outbox: Outbox
    cohort: Cohort | None = None
    active: Active | None = None
    stale: bool = False
    last_update: LastUpdate | None = None


@blueprint.post(routes.DEVICES)
@require_token("enr")
@describe("devices", body=EnrolBody, answers={200: EnrolAnswer, 201: EnrolAnswer}, problems=(409,))
def enrol() -> Response:
    """Let a device in; a retry by the same installation returns the same device id and a fresh token."""
    body = EnrolRequest.from_dict(_json_object("The enrolment"))
    with session_scope() as session:
        enrolled = service.enrol(session, current_actor(), body)
    return json_response(enrolled.to_dict(), 201 if enrolled.created else 200)


@blueprint.get(routes.DEVICES)
@require_token("ops", "view", session=True)
@describe("devices", query=DeviceQuery, answers={200: Object})
def devices() -> Response:
    """List devices, most recently seen first: ``flag``, ``cohort``, ``name``, ``limit``, ``cursor``."""
    check_parameters(request.args)
    filters, limit = DeviceFilters.from_query(request.args), read_limit(request.args)
    with session_scope() as session:
        items, following = list_devices(session, filters, request.args.get("cursor", ""), limit=limit)
    return json_response({"items": items, "next": following})


@blueprint.post(routes.DEVICE_STATUS)
@require_token("dev")
@describe("devices", body=StatusBody, answers={204: None})
def device_status() -> Response:
    """Keep what a device says of itself."""
    body = _json_object("The status")
    with session_scope() as session:
        service.store_status(service.bearer_device(session, current_actor()), body)
    return Response(status=204)


@blueprint.get(f"{routes.DEVICES}/<device_id>")
@require_token("ops", "view", session=True)
@describe("devices", answers={200: Object})
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

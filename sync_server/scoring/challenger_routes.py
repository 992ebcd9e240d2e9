"""``/api/channels/<channel>/challenger``, ``/comparison`` and ``/windows``: a second release beside the first."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated

import msgspec
from flask import Blueprint, Response, request
from msgspec import Meta

from edge_runtime.contract import routes
from edge_runtime.contract.names import check_name
from edge_runtime.errors import ContractError
from sync_server.access.guard import current_actor, require_token
from sync_server.apidoc.answers import Object
from sync_server.apidoc.describe import describe
from sync_server.db import get_database, session_scope, utc_now
from sync_server.http import json_response, read_json
from sync_server.paging import whole_number
from sync_server.scoring import challengers, keeping
from sync_server.scoring.comparison import compare
from sync_server.scoring.worker import current_worker

blueprint = Blueprint("challengers", __name__)

NDJSON = "application/x-ndjson"
_CHANNEL = f"{routes.CHANNELS}<channel>"
_DAY = 24
_MOST_HOURS = 366 * _DAY
_MOST_WINDOWS = 10_000


class Period(msgspec.Struct):
    """How far a comparison looks back."""

    hours: Annotated[int, Meta(ge=1, le=_MOST_HOURS)] = _DAY


class WindowsQuery(Period):
    """How far a file of windows looks back, and how many it holds at most."""

    limit: Annotated[int, Meta(ge=1, le=keeping.MAX_EXPORTED)] = _MOST_WINDOWS


@blueprint.get(f"{_CHANNEL}/challenger")
@require_token("ops", "view", session=True)
@describe("scoring", answers={200: Object})
def get_challenger(channel: str) -> Response:
    """Return what scores beside the channel's releases, and which share of requests."""
    check_name("channel", channel)
    with session_scope() as session:
        return json_response(challengers.find_challenger(session, channel))


@blueprint.put(f"{_CHANNEL}/challenger")
@require_token("ops", session=True)
@describe("scoring", body=challengers.SetChallenger, answers={200: Object}, problems=(409,))
def put_challenger(channel: str) -> Response:
    """Let a release score beside the channel's own for a share of requests; clients never see its verdicts."""
    check_name("channel", channel)
    wanted: challengers.SetChallenger = read_json(challengers.SetChallenger)
    with session_scope() as session:
        listing, _ = current_worker().listings.now(session)
        return json_response(challengers.set_challenger(session, listing, channel, wanted, actor=current_actor().label))


@blueprint.delete(f"{_CHANNEL}/challenger")
@require_token("ops", session=True)
@describe("scoring", answers={204: None})
def delete_challenger(channel: str) -> Response:
    """Let nothing score beside the channel's releases; what was kept stays until it is too old."""
    check_name("channel", channel)
    with session_scope() as session:
        challengers.remove_challenger(session, channel, actor=current_actor().label)
    return Response(status=204)


@blueprint.get(f"{_CHANNEL}/comparison")
@require_token("ops", "view", session=True)
@describe("scoring", query=Period, answers={200: Object})
def comparison(channel: str) -> Response:
    """Compare champion and challenger over the last ``hours`` (24)."""
    check_name("channel", channel)
    since = _since("hours")
    with session_scope() as session:
        return json_response(compare(session, channel, since))


@blueprint.get(f"{_CHANNEL}/windows")
@require_token("ops", "pub")
@describe("scoring", query=WindowsQuery, answers={200: Object}, answer_type=NDJSON)
def windows(channel: str) -> Response:
    """Return the kept windows of the last ``hours`` (24), at most ``limit`` (10,000), as a file for the exporter."""
    check_name("channel", channel)
    since = _since("hours", "limit")
    most = whole_number(request.args.get("limit") or str(_MOST_WINDOWS), "limit", least=1, most=keeping.MAX_EXPORTED)
    response = Response(keeping.export(get_database(), channel, since, most), content_type=NDJSON)
    response.headers["Content-Disposition"] = f'attachment; filename="{channel}.windows.ndjson"'
    response.headers["Cache-Control"] = "no-store"
    return response


def _since(*known: str) -> datetime:
    """Return the time that the parameter ``hours`` reaches back to.

    Raises:
        ContractError: It is no number of hours up to a year, or there is a parameter that does not exist.
    """
    unknown = sorted(set(request.args) - set(known))
    if unknown:
        raise ContractError(f"There is no parameter {unknown[0][:40]!r}.", advice=f"Use {', '.join(known)}.")
    hours = whole_number(request.args.get("hours") or str(_DAY), "hours", least=1, most=_MOST_HOURS)
    return utc_now() - timedelta(hours=hours)

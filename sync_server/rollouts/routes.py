"""``GET`` and ``PUT /api/channels/<channel>``, and ``GET /api/channels/<channel>/progress``."""

from __future__ import annotations

from flask import Blueprint, Response

from edge_runtime.contract.names import check_name
from sync_server.access.guard import current_actor, require_token
from sync_server.apidoc.answers import Object
from sync_server.apidoc.describe import describe
from sync_server.app_state import get_online_key
from sync_server.db import session_scope, utc_now
from sync_server.http import json_response, read_json
from sync_server.rollouts.progress import progress
from sync_server.rollouts.requests import Change
from sync_server.rollouts.service import change_rollout, find_rollout

blueprint = Blueprint("rollouts", __name__)


@blueprint.get("/api/channels/<channel>")
@require_token("pub", "ops", "view", session=True)
@describe("rollouts", answers={200: Object})
def get_channel(channel: str) -> Response:
    """Return the channel's rollout as it is signed."""
    check_name("channel", channel)
    with session_scope() as session:
        return json_response(find_rollout(session, channel).to_dict())


@blueprint.put("/api/channels/<channel>")
@require_token("pub", "ops", session=True)
@describe("rollouts", body=Change, answers={200: Object}, problems=(409,))
def put_channel(channel: str) -> Response:
    """Start, grow, pause, resume, advance or roll back; the answer is the rollout, already signed."""
    change = read_json(Change)
    with session_scope() as session:
        rollout = change_rollout(session, get_online_key(), channel, change, actor=current_actor().label, now=utc_now())
    return json_response(rollout.to_dict())


@blueprint.get("/api/channels/<channel>/progress")
@require_token("pub", "ops", "view", session=True)
@describe("rollouts", answers={200: Object})
def get_progress(channel: str) -> Response:
    """Return the plan of the channel's rollout, where it stands, what its gates found, and who is overdue."""
    check_name("channel", channel)
    with session_scope() as session:
        return json_response(progress(session, channel, utc_now()))

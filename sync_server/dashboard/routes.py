"""``GET /api/dashboard/stats`` and ``GET /api/dashboard/trends``."""

from __future__ import annotations

from flask import Blueprint, Response, request

from edge_runtime.contract import routes
from sync_server.access.guard import require_token
from sync_server.dashboard.figures import TrendQuery, stats, trends
from sync_server.db import session_scope, utc_now
from sync_server.http import json_response

blueprint = Blueprint("figures", __name__)


@blueprint.get(routes.STATS)
@require_token("ops", "view", session=True)
def fleet_stats() -> Response:
    """Return the fleet's present state."""
    with session_scope() as session:
        return json_response(stats(session, now=utc_now()))


@blueprint.get(routes.TRENDS)
@require_token("ops", "view", session=True)
def fleet_trends() -> Response:
    """Return what the fleet scored over time: ``hours``, ``cohort``, ``model``, ``release``."""
    query = TrendQuery.from_query(request.args)
    with session_scope() as session:
        return json_response(trends(session, query, now=utc_now()))

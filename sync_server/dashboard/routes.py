"""``GET /api/dashboard/stats``, ``GET /api/dashboard/trends`` and ``GET /api/dashboard/drift``."""

from __future__ import annotations

from typing import Annotated

import msgspec
from flask import Blueprint, Response, request
from msgspec import Meta

from edge_runtime.contract import routes
from sync_server.access.guard import require_token
from sync_server.apidoc.answers import Cohort, Count, NameOrEmpty, Object
from sync_server.apidoc.describe import describe
from sync_server.dashboard import kept
from sync_server.dashboard.drift import drift
from sync_server.dashboard.figures import DEFAULT_HOURS, MAX_HOURS, TrendQuery, trends
from sync_server.db import session_scope, utc_now
from sync_server.http import json_response

blueprint = Blueprint("figures", __name__)
blueprint.record(kept.install)


class Trends(msgspec.Struct):
    """The parameters of ``GET /api/dashboard/trends``, which :class:`TrendQuery` reads."""

    hours: Annotated[int, Meta(ge=1, le=MAX_HOURS)] = DEFAULT_HOURS
    cohort: Cohort | None = None
    model: NameOrEmpty | None = None
    release: Count | None = None


@blueprint.get(routes.STATS)
@require_token("ops", "view", session=True)
@describe("fleet", answers={200: Object})
def fleet_stats() -> Response:
    """Return the fleet's present state."""
    with session_scope() as session:
        return json_response(kept.fleet_state(session))


@blueprint.get(routes.TRENDS)
@require_token("ops", "view", session=True)
@describe("fleet", query=Trends, answers={200: Object})
def fleet_trends() -> Response:
    """Return what the fleet scored over time: ``hours``, ``cohort``, ``model``, ``release``."""
    query = TrendQuery.from_query(request.args)
    with session_scope() as session:
        return json_response(trends(session, query, now=utc_now()))


@blueprint.get(routes.DRIFT)
@require_token("ops", "view", session=True)
@describe("fleet", answers={200: Object})
def score_drift() -> Response:
    """Return how far each release's scores have moved from its training and from its first week."""
    with session_scope() as session:
        return json_response(drift(session, now=utc_now()))

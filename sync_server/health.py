"""``/health`` (the process lives) and ``/health/ready`` (it can serve), for balancers and people."""

from __future__ import annotations

from flask import Blueprint, Response
from sqlalchemy import text

from sync_server.db import session_scope
from sync_server.http import json_response

blueprint = Blueprint("health", __name__)


@blueprint.get("/health")
def health() -> Response:
    """Answer 200 as long as the process serves; needs no database."""
    return json_response({"status": "ok"})


@blueprint.get("/health/ready")
def ready() -> Response:
    """Answer 200 when the database answers; a database that is down answers 503 through the error handlers."""
    with session_scope() as session:
        session.execute(text("SELECT 1"))
    return json_response({"status": "ready"})

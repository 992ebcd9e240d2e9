"""``POST /api/anomalies/score``: windows or readings in, verdicts out."""

from __future__ import annotations

from typing import cast

from flask import Blueprint, Flask, Response
from flask.blueprints import BlueprintSetupState

from edge_runtime.contract import routes
from edge_runtime.errors import StorageError
from sync_server.access.guard import current_actor, require_token
from sync_server.apidoc.answers import Object
from sync_server.apidoc.describe import describe
from sync_server.db import session_scope
from sync_server.health import register
from sync_server.http import json_response, read_json
from sync_server.scoring import service
from sync_server.scoring.requests import MAX_BODY_BYTES, ScoreRequest
from sync_server.scoring.worker import current_worker, install

blueprint = Blueprint("scoring", __name__)


@blueprint.record_once
def _install(state: BlueprintSetupState) -> None:
    install(cast("Flask", state.app))
    register(state.app, "scoring", _check_warm)


def _check_warm() -> None:
    """Not ready while this worker still loads the models of its channels; what cannot be loaded holds up nobody."""
    if current_worker().warmth == "warming":
        raise StorageError("The models that score for clients are still being loaded.")


@blueprint.post(f"{routes.ANOMALIES}/score")
@require_token("dev", "ops", session=True)
@describe("scoring", body=ScoreRequest, answers={200: Object}, problems=(404, 409, 429))
def score() -> Response:
    """Score windows, or windows cut from readings, with the release that the channel's rollout gives."""
    worker = current_worker()
    worker.check_on()
    asked: ScoreRequest = read_json(ScoreRequest, most_bytes=MAX_BODY_BYTES)
    actor = current_actor()
    with session_scope() as session:
        listing, challengers = worker.listings.now(session)
        choice = service.choose(listing, session, actor, asked)
    if actor.subject is not None:  # before anything costly is done, whatever becomes of it
        worker.quota.spend(actor.subject, service.cost_of(asked))
    model = worker.models.get(choice)
    cut = service.windows_of(model, asked)
    judged, parts = service.score(model, asked, cut)
    setting = service.setting_of(choice, asked, challengers)
    if judged.rows and worker.is_sampled(setting):
        challenger = service.challenging(listing, choice, setting)
        worker.recorder.offer(service.job_of(asked, choice, challenger, model, cut, judged, actor))
    return json_response(service.answer(choice, model, cut, judged, parts))

"""``POST /api/results``: a batch of records in, what is held out."""

from __future__ import annotations

from typing import Annotated, Literal, cast

import msgspec
from flask import Blueprint, Response, current_app, request
from flask.blueprints import BlueprintSetupState
from msgspec import Meta

from edge_runtime.contract import routes
from edge_runtime.contract.batch import MAX_BATCH_GZIP_BYTES, Batch, ResultsAnswer, decode_batch
from edge_runtime.errors import ContractError
from sync_server.access.guard import current_actor, require_token
from sync_server.apidoc.answers import Hex32, Moment
from sync_server.apidoc.describe import describe
from sync_server.app_state import get_config
from sync_server.config import ServerConfig
from sync_server.db import get_database
from sync_server.errors import RequestError
from sync_server.http import json_response
from sync_server.ingest import metrics
from sync_server.ingest.body import Body, read_body
from sync_server.ingest.gate import Gate
from sync_server.ingest.service import Quota, store_batch

blueprint = Blueprint("ingest", __name__)


class BatchBody(msgspec.Struct):
    """The body of ``POST /api/results``: columns a kind of record, see FORMAT.md; may be sent as gzip."""

    format: Literal[1]
    stream: Hex32
    sent_at_ms: Moment


class Taken(msgspec.Struct):
    """What the server says to a batch: ``held`` are ranges, ``refused`` are (sequence, reason, detail)."""

    stored: int
    held: list[Annotated[list[int], Meta(min_length=2, max_length=2)]]
    refused: list[Annotated[list[int | str], Meta(min_length=3, max_length=3)]]


@blueprint.record_once
def _open_gate(state: BlueprintSetupState) -> None:
    config = cast("ServerConfig", state.app.extensions["config"])
    state.app.extensions["ingest_gate"] = Gate(config.ingest_at_once)


@blueprint.post(routes.RESULTS)
@require_token("dev")
@describe("devices", body=BatchBody, answers={200: Taken}, problems=(409, 429, 507))
def results() -> Response:
    """Store a batch once, however often it comes; refuse single records by number, a shapeless batch whole."""
    try:
        with metrics.PHASE_SECONDS.labels("read").time():
            body = _read_body()
        with cast("Gate", current_app.extensions["ingest_gate"]).place():
            return json_response(_store(body).to_dict())
    except RequestError as error:
        metrics.REFUSED.labels(error.code).inc()
        raise


def _read_body() -> Body:
    request.max_content_length = MAX_BATCH_GZIP_BYTES
    if request.mimetype != "application/json":
        raise RequestError(
            415, "unsupported_media_type", "The upload must be JSON.", advice="Send Content-Type: application/json."
        )
    return read_body(request.stream, request.headers.get("Content-Encoding", ""))


def _store(body: Body) -> ResultsAnswer:
    with metrics.PHASE_SECONDS.labels("decode").time():
        batch = _decode(body)
    with metrics.PHASE_SECONDS.labels("store").time():
        quota = Quota.from_config(get_config())
        device = current_actor().subject or ""
        answer = store_batch(get_database(), device, batch, sent_bytes=body.sent_bytes, quota=quota)
    metrics.BATCHES.inc()
    metrics.BYTES.inc(body.sent_bytes)
    held = sum(last - first + 1 for first, last in answer.held)
    outcomes = {"stored": answer.stored, "repeated": held - answer.stored, "refused": len(answer.refused)}
    for outcome, count in outcomes.items():
        metrics.RECORDS.labels(outcome).inc(count)
    return answer


def _decode(body: Body) -> Batch:
    try:
        return decode_batch(body.content)
    except ContractError as error:
        raise RequestError(400, "bad_batch", error.message, advice=error.advice) from error

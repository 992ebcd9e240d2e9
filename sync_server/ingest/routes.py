"""``POST /api/results``: a batch of records in, what is held out."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from flask import Blueprint, Response, request
from msgspec import Meta

from edge_runtime.contract import routes
from edge_runtime.contract.batch import MAX_BATCH_GZIP_BYTES, Batch, decode_batch
from edge_runtime.errors import ContractError
from sync_server.access.guard import current_actor, require_token
from sync_server.apidoc.answers import Hex32, Moment
from sync_server.apidoc.describe import describe
from sync_server.db import get_database
from sync_server.devices.service import bearer_device
from sync_server.errors import RequestError
from sync_server.http import json_response
from sync_server.ingest.body import read_body
from sync_server.ingest.service import store_batch

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


@blueprint.post(routes.RESULTS)
@require_token("dev")
@describe("devices", body=BatchBody, answers={200: Taken}, problems=(429,))
def results() -> Response:
    """Store a batch once, however often it comes; refuse single records by number, a shapeless batch whole."""
    batch = _read_batch()
    actor = current_actor()
    answer = get_database().run(lambda session: store_batch(session, bearer_device(session, actor), batch))
    return json_response(answer.to_dict())


def _read_batch() -> Batch:
    request.max_content_length = MAX_BATCH_GZIP_BYTES
    if request.mimetype != "application/json":
        raise RequestError(
            415, "unsupported_media_type", "The upload must be JSON.", advice="Send Content-Type: application/json."
        )
    body = read_body(request.stream, request.headers.get("Content-Encoding", ""))
    try:
        return decode_batch(body)
    except ContractError as error:
        raise RequestError(400, "bad_batch", error.message, advice=error.advice) from error

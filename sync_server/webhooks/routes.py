"""``/api/webhooks`` for operators: make, list, try, enable and revoke. Private addresses are the command line's."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

import msgspec
from flask import Blueprint, Response
from msgspec import Meta

from sync_server.access.guard import current_actor, require_token
from sync_server.apidoc.describe import describe
from sync_server.app_state import get_config
from sync_server.db import session_scope
from sync_server.http import json_response, problem_response, read_json
from sync_server.webhooks import service
from sync_server.webhooks.addresses import MOST_CHARACTERS
from sync_server.webhooks.secret import load_or_create_key, secret_of, secret_text

blueprint = Blueprint("webhooks", __name__)

_ONE = f"/api/webhooks/<int(max={2**63 - 1}):webhook_id>"


class NewWebhook(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The body of ``POST /api/webhooks``. The service has the whole rule of each; a URL is one that may be called."""

    name: Annotated[str, Meta(min_length=1, max_length=100)]
    url: Annotated[str, Meta(pattern="^https://", max_length=MOST_CHARACTERS)]
    events: Annotated[list[Annotated[str, Meta(pattern=service.PATTERN)]], Meta(min_length=1, max_length=32)]


class WebhookAnswer(msgspec.Struct):
    """A hook and how it does."""

    id: int
    name: str
    url: str
    events: list[str]
    state: Literal["live", "failing", "disabled"]
    created_at: datetime
    disabled_at: datetime | None
    failing_since: datetime | None
    last_delivered_at: datetime | None
    last_error: str | None
    queued: int
    dropped: int


class MadeWebhook(WebhookAnswer):
    """A hook that was just made; the only answer that carries its secret."""

    secret: str


class Webhooks(msgspec.Struct):
    """The answer of ``GET /api/webhooks``."""

    webhooks: list[WebhookAnswer]


class Queued(msgspec.Struct):
    """The answer of ``POST /api/webhooks/<id>/test``."""

    queued: bool


@blueprint.get("/api/webhooks")
@require_token("ops", session=True)
@describe("webhooks", answers={200: Webhooks})
def list_webhooks() -> Response:
    """List the hooks and how they do; URLs may hold secrets of their owners, so viewers do not see them."""
    with session_scope() as session:
        return json_response({"webhooks": [service.describe(session, hook) for hook in service.live(session)]})


@blueprint.post("/api/webhooks")
@require_token("ops", session=True)
@describe("webhooks", body=NewWebhook, answers={201: MadeWebhook})
def create_webhook() -> Response:
    """Make a hook; the answer is the only one that carries its secret."""
    wanted = read_json(NewWebhook)
    key = load_or_create_key(get_config().webhooks_key_path)
    with session_scope() as session:
        hook = service.create(
            session, name=wanted.name, url=wanted.url, events=wanted.events, actor=current_actor().label
        )
        secret = secret_text(secret_of(key, hook.salt))
        return json_response({**service.describe(session, hook), "secret": secret}, 201)


@blueprint.delete(_ONE)
@require_token("ops", session=True)
@describe("webhooks", answers={204: None})
def revoke_webhook(webhook_id: int) -> Response:
    """End a hook and forget what it was not told yet."""
    with session_scope() as session:
        service.revoke(session, webhook_id, actor=current_actor().label)
    return Response(status=204)


@blueprint.post(f"{_ONE}/enable")
@require_token("ops", session=True)
@describe("webhooks", answers={200: WebhookAnswer})
def enable_webhook(webhook_id: int) -> Response:
    """Let a hook that was disabled for failing hear of events again."""
    with session_scope() as session:
        hook = service.enable(session, webhook_id, actor=current_actor().label)
        return json_response(service.describe(session, hook))


@blueprint.post(f"{_ONE}/test")
@require_token("ops", session=True)
@describe("webhooks", answers={202: Queued})
def test_webhook(webhook_id: int) -> Response:
    """Queue a ``webhook.test``; the list then shows ``last_delivered_at`` or ``last_error``."""
    with session_scope() as session:
        service.enqueue_test(session, webhook_id)
    return json_response({"queued": True}, 202)


@blueprint.errorhandler(service.UnknownWebhookError)
def _unknown(error: service.UnknownWebhookError) -> Response:
    return problem_response(404, "webhook_not_found", error.message, advice=error.advice)

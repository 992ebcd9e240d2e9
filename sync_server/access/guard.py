"""The decorators that guard routes, and who is asking.

::

    @blueprint.post("/api/publish")
    @require_token("pub")                       # Authorization: Bearer st_pub_...
    def publish() -> Response: ...

    @blueprint.get("/api/anomalies")
    @require_token("ops", "view", session=True) # or a log-in; requests that change something then need CSRF
    def anomalies() -> Response: ...

    @blueprint.get("/")
    @login_required                             # pages: sends people to /login and back
    def fleet() -> str: ...

Inside, :func:`current_actor` is who asks. Pages put ``{{ csrf_token() }}`` into a hidden field ``csrf_token`` or a
script sends it as ``X-CSRF-Token``; every guard that accepts a log-in checks it on anything but GET and HEAD.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import ParamSpec, TypeVar, cast
from urllib.parse import quote

from flask import g, redirect, request
from werkzeug.wrappers import Response as BaseResponse

from sync_server.access.sessions import SESSION_COOKIE, csrf_of, find_session
from sync_server.access.tokens import KINDS, Actor, find_token
from sync_server.db import get_database, session_scope, utc_now
from sync_server.errors import RequestError

Parameters = ParamSpec("Parameters")
Answer = TypeVar("Answer")

_SAFE = ("GET", "HEAD")


@dataclass(frozen=True, slots=True)
class Guard:
    """Whom a route lets in, for its description and for tests.

    Attributes:
        kinds: Token kinds.
        session: Whether a log-in will do as well.
    """

    kinds: tuple[str, ...]
    session: bool


def guard_of(view: Callable[..., object]) -> Guard | None:
    """Return whom :func:`require_token` lets in to a view, None when it does not guard it."""
    return cast("Guard | None", getattr(view, "guard", None))


def current_actor() -> Actor:
    """Who makes this request; only inside a guarded route."""
    return cast("Actor", g.actor)


def bearer_token() -> str | None:
    """Return the token of the Authorization header, or None when there is no such header.

    Raises:
        RequestError: 401 when the header is there and holds no bearer token.
    """
    header = request.headers.get("Authorization")
    if header is None:
        return None
    scheme, _, token = header.partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise RequestError(
            401, "not_authenticated", "The Authorization header is not a bearer token.",
            advice="Send: Authorization: Bearer st_...",
        )  # fmt: skip
    return token.strip()


def _from_login() -> Actor | None:
    """The log-in of the session cookie, None when there is none or it has ended."""
    secret = request.cookies.get(SESSION_COOKIE)
    if not secret:
        return None
    with session_scope() as session:
        return find_session(session, secret, now=utc_now())


def check_csrf() -> None:
    """Refuse a request that changes something unless it carries the log-in's CSRF token.

    Raises:
        RequestError: 403 ``csrf``.
    """
    if request.method in _SAFE:
        return
    given = request.headers.get("X-CSRF-Token") or request.form.get("csrf_token", "")
    expected = csrf_of(request.cookies.get(SESSION_COOKIE, ""))
    if not hmac.compare_digest(given.encode(), expected.encode()):
        raise RequestError(403, "csrf", "The form is not from this log-in.", advice="Load the page again and resend.")


def csrf_token() -> str:
    """The CSRF token for forms of the current log-in; available in every template."""
    return csrf_of(request.cookies.get(SESSION_COOKIE, ""))


def _check_kind(actor: Actor, kinds: tuple[str, ...]) -> None:
    if actor.kind not in kinds:
        wanted = " or ".join(KINDS[kind] for kind in kinds)
        raise RequestError(
            403, "wrong_kind", f"A {KINDS[actor.kind]} may not do this.", advice=f"Use a token of kind {wanted}."
        )


def require_token(
    *kinds: str, session: bool = False
) -> Callable[[Callable[Parameters, Answer]], Callable[Parameters, Answer]]:
    """Let in bearers of a token of one of these kinds.

    Args:
        *kinds: Keys of :data:`~sync_server.access.tokens.KINDS`.
        session: Whether an operator's log-in will do as well (roles count as ``ops`` and ``view``); with it, requests
            other than GET and HEAD must carry the CSRF token.

    The guarded route raises RequestError: 401 without a valid token or log-in, 403 for another kind or without CSRF.
    """

    def decorate(view: Callable[Parameters, Answer]) -> Callable[Parameters, Answer]:
        @wraps(view)
        def guarded(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Answer:
            token = bearer_token()
            actor = find_token(get_database(), token, now=utc_now()) if token else _from_login() if session else None
            if actor is None:
                raise RequestError(
                    401, "not_authenticated", "This needs a token.", advice="Send: Authorization: Bearer st_..."
                )
            _check_kind(actor, kinds)
            if token is None:
                check_csrf()
            g.actor = actor
            return view(*args, **kwargs)

        guarded.guard = Guard(kinds, session)  # type: ignore[attr-defined]
        return guarded

    return decorate


def login_required(view: Callable[Parameters, Answer]) -> Callable[Parameters, Answer | BaseResponse]:
    """Let in operators who are logged in, viewers included; send others to the log-in page and back.

    The guarded route raises RequestError 403 when a form comes without its CSRF token.
    """

    @wraps(view)
    def guarded(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Answer | BaseResponse:
        actor = _from_login()
        if actor is None:
            wanted = request.full_path.rstrip("?") if request.method in _SAFE else "/"
            return redirect(f"/login?next={quote(wanted, safe='')}", 303)
        check_csrf()
        g.actor = actor
        return view(*args, **kwargs)

    return guarded

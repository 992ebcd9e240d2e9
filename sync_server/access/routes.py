"""``/login`` and ``/logout``. The page itself is ``login.html`` of the dashboard's templates."""

from __future__ import annotations

import hmac
import secrets

from flask import Blueprint, Response, current_app, make_response, redirect, render_template, request
from werkzeug.wrappers import Response as BaseResponse

from sync_server.access import guard, sessions
from sync_server.access.audit import audit
from sync_server.access.metrics import REFUSALS
from sync_server.app_state import get_config
from sync_server.db import session_scope, utc_now
from sync_server.errors import RequestError

blueprint = Blueprint("access", __name__)


@blueprint.app_context_processor
def _template_names() -> dict[str, object]:
    """Give every template ``csrf_token()``."""
    return {"csrf_token": guard.csrf_token}


def _is_secure() -> bool:
    """Whether cookies may insist on https: true behind TLS, false on a plain loopback address."""
    public = get_config().public_url
    return request.is_secure or bool(public and public.startswith("https://"))


def safe_next(wanted: str | None) -> str:
    """Return a path of this site to go to after the log-in; anything that leads elsewhere becomes ``/``."""
    if not wanted or not wanted.startswith("/") or wanted.startswith(("//", "/\\")) or len(wanted) > 2000:
        return "/"
    return "/" if any(ord(character) < 33 or character == "\\" for character in wanted) else wanted


def _page(message: str, status: int, *, username: str = "", wanted: str | None) -> Response:
    """Render the log-in page with a fresh CSRF token of its own, in a cookie and in the form."""
    token = secrets.token_urlsafe(32)
    page = render_template(
        "login.html", csrf_token=lambda: token, next=safe_next(wanted), error=message, username=username
    )
    response = make_response(page, status)
    response.headers["Cache-Control"] = "no-store"
    response.set_cookie(
        sessions.LOGIN_COOKIE, token, max_age=3600, path="/login", secure=_is_secure(), httponly=True, samesite="Strict"
    )
    return response


@blueprint.get("/login")
def login_page() -> Response:
    """Show the log-in form. Fields: ``username``, ``password``, ``csrf_token``, ``next``."""
    return _page("", 200, wanted=request.args.get("next"))


@blueprint.post("/login")
def login() -> BaseResponse:
    """Check name and password, open a session, and go on to ``next``."""
    # Only printable: a NUL is something that the database, which keeps names of failed log-ins, cannot hold.
    username = "".join(c for c in request.form.get("username", "")[:64] if c.isprintable())
    password = request.form.get("password", "")
    wanted = request.form.get("next")
    given, expected = request.form.get("csrf_token", ""), request.cookies.get(sessions.LOGIN_COOKIE, "")
    if not expected or not hmac.compare_digest(given.encode(), expected.encode()):
        return _page("The page was open for too long. Please try again.", 403, username=username, wanted=wanted)
    now, address = utc_now(), request.remote_addr or "unknown"
    try:
        with session_scope() as session:
            attempt = sessions.count_attempt(session, username, address, now=now)
            session.flush()
            attempt_id = attempt.id
    except RequestError as error:
        refusal = _page(f"{error.message} {error.advice}", 429, username=username, wanted=wanted)
        refusal.headers["Retry-After"] = str(error.retry_after_seconds)
        return refusal
    with session_scope() as session:
        operator = sessions.check_password(session, username, password)
        if operator is None:
            audit(session, f"address {address}", "login.failed", f"operator:{username}")
            secret = None
        else:
            sessions.close_session(session, request.cookies.get(sessions.SESSION_COOKIE, ""))
            secret = sessions.open_session(session, operator, now=now, hours=get_config().session_hours)
            sessions.forget_attempt(session, attempt_id)
            label = f"{operator.role} {operator.username}"
            audit(session, label, "login.done", f"operator:{username}", {"address": address})
    if secret is None:
        current_app.logger.warning("a log-in failed")
        REFUSALS.labels("login_failed").inc()
        return _page("The name or the password is wrong.", 401, username=username, wanted=wanted)
    response: BaseResponse = redirect(safe_next(wanted), 303)
    response.set_cookie(
        sessions.SESSION_COOKIE, secret, max_age=get_config().session_hours * 3600, secure=_is_secure(),
        httponly=True, samesite="Lax",
    )  # fmt: skip
    response.delete_cookie(sessions.LOGIN_COOKIE, path="/login")
    return response


@blueprint.post("/logout")
@guard.login_required
def logout() -> BaseResponse:
    """End the session here and in the database."""
    with session_scope() as session:
        sessions.close_session(session, request.cookies.get(sessions.SESSION_COOKIE, ""))
        audit(session, guard.current_actor().label, "login.ended", "")
    response = redirect("/login", 303)
    response.delete_cookie(sessions.SESSION_COOKIE)
    return response

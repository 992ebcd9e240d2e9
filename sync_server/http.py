"""What every answer of the server has in common: problems, request ids, security headers, bounded JSON bodies."""

from __future__ import annotations

import errno
import logging
import re
import secrets
import time
from typing import Any, cast

import msgspec
from flask import Flask, Response, current_app, g, render_template, request
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from werkzeug.exceptions import HTTPException

from edge_runtime.contract.problem import MEDIA_TYPE, Problem
from edge_runtime.errors import ContractError, InputError, StellaError, StorageError, TrustError
from sync_server.access.metrics import REFUSALS
from sync_server.db import is_away
from sync_server.errors import RequestError
from sync_server.logs import log_request
from sync_server.request_metrics import count_request

log = logging.getLogger(__name__)

# No inline script or style anywhere: an injected tag does nothing.
CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "font-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
    )
)
_HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
}
STRICT_TRANSPORT_SECURITY = ("Strict-Transport-Security", "max-age=31536000")
_FOR_PROGRAMS = ("/api/", "/repository/", "/health", "/metrics", "/apidoc/")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_RETRY_SECONDS = 5
_TITLES = {
    400: "The request is malformed", 401: "A token or log-in is needed", 403: "Not allowed", 404: "Not found",
    405: "Method not allowed", 409: "Conflict with the present state", 413: "The request is too large",
    415: "Unsupported media type", 416: "Range not satisfiable", 422: "The content is refused",
    429: "Too many requests", 500: "A fault of the server", 503: "The server is not ready", 507: "The server is full",
}  # fmt: skip
_CODES = {
    400: "bad_request", 401: "not_authenticated", 403: "forbidden", 404: "not_found", 405: "method_not_allowed",
    409: "conflict", 413: "too_large", 415: "unsupported_media_type", 416: "range_not_satisfiable",
    422: "unprocessable", 429: "too_many_requests", 500: "internal_error", 503: "unavailable",
}  # fmt: skip


def problem_response(
    status: int, code: str, detail: str, *, advice: str = "", retry_after_seconds: int | None = None, **extra: object
) -> Response:
    """Return one problem+json answer (RFC 9457), or the same as a page where people look.

    Args:
        status: The HTTP status.
        code: What went wrong, for machines.
        detail: One sentence: what happened, to what.
        advice: One sentence: what to do next.
        retry_after_seconds: Sent as ``Retry-After`` when given.
        **extra: Further JSON-ready members, such as the number that was expected.
    """
    title = _TITLES.get(status, "The request failed")
    if request.path.startswith(_FOR_PROGRAMS):
        problem = Problem(status, code, title, detail, advice).to_dict()
        body = msgspec.json.encode({**extra, **problem, "request_id": g.get("request_id", "")}, enc_hook=str)
        response = Response(body, status, content_type=MEDIA_TYPE)
    else:  # the page's frame needs no database, so it can say that there is none
        page = render_template("error.html", status=status, heading=title, detail=detail, advice=advice)
        response = Response(page, status, content_type="text/html; charset=utf-8")
    response.headers["Cache-Control"] = "no-store"
    if retry_after_seconds is not None:
        response.headers["Retry-After"] = str(retry_after_seconds)
    if status == 401:
        response.headers["WWW-Authenticate"] = 'Bearer realm="stella"'
    return response


def json_response(value: object, status: int = 200) -> Response:
    """Return JSON that no cache keeps; datetimes become ISO 8601 with zone."""
    response = Response(msgspec.json.encode(value), status, content_type="application/json")
    response.headers["Cache-Control"] = "no-store"
    return response


def _on_request_error(error: RequestError) -> Response:
    if error.status in (401, 403):
        REFUSALS.labels(error.code).inc()
    return problem_response(
        error.status,
        error.code,
        error.message,
        advice=error.advice,
        retry_after_seconds=error.retry_after_seconds,
        **error.fields,
    )


def _on_stella_error(error: StellaError) -> Response:
    """The rest of the tree: what the sender can mend is 422, what the server lacks is 503, anything else a bug."""
    if isinstance(error, TrustError):
        return problem_response(422, error.reason, error.message, advice=error.advice)
    if isinstance(error, ContractError | InputError):
        return problem_response(422, error.code, error.message, advice=error.advice)
    log.error("request %s: %s", g.get("request_id"), error)
    if isinstance(error, StorageError):
        return problem_response(
            503, error.code, "The server's storage is not available.", retry_after_seconds=_RETRY_SECONDS,
            advice="Send the request again later; nothing was changed.",
        )  # fmt: skip
    return problem_response(500, "internal_error", "The server met a fault of its own.")


def _on_database_error(error: DBAPIError | PoolTimeout) -> Response:
    """A database that is away is 503; a statement that fails is a bug of ours and says nothing of it outside."""
    sqlstate = getattr(getattr(error, "orig", None), "sqlstate", None)
    if sqlstate == "53100":  # disk_full
        return _disk_full("the database's disk")
    if isinstance(error, PoolTimeout) or is_away(error):
        log.error("request %s: the database is away: %s", g.get("request_id"), str(error).splitlines()[0])
        return problem_response(
            503, "database_down", "The server's database cannot be reached.", retry_after_seconds=_RETRY_SECONDS,
            advice="Send the request again later; sending it twice changes nothing twice.",
        )  # fmt: skip
    if sqlstate in ("57014", "40001", "40P01", "55P03"):  # statement timeout, conflicts, lock timeout
        log.warning("request %s: database conflict or timeout %s", g.get("request_id"), sqlstate)
        return problem_response(
            503, "database_busy", "The database did not answer in time.", retry_after_seconds=_RETRY_SECONDS,
            advice="Send the request again later.",
        )  # fmt: skip
    log.error("request %s: database error", g.get("request_id"), exc_info=error)
    return problem_response(500, "internal_error", "The server met a fault of its own.")


def _disk_full(what: str) -> Response:
    log.error("request %s: %s is full", g.get("request_id"), what)
    return problem_response(
        507, "disk_full", "The server's disk is full.", retry_after_seconds=60,
        advice="Send the request again later; nothing was changed.",
    )  # fmt: skip


def _on_system_error(error: OSError) -> Response:
    """A disk without room for the files of a publication (they wait in the temporary folder), or a bug."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return _disk_full("the temporary folder")
    log.error("request %s: unexpected error", g.get("request_id"), exc_info=error)
    return problem_response(500, "internal_error", "The server met a fault of its own.")


def _on_http_error(error: HTTPException) -> Response:
    """Flask's and Werkzeug's own refusals: 404, 405, 413, 416 and so on, and 500 for a bug."""
    if error.code is None or error.code < 400:  # redirects travel as exceptions, too
        return cast("Response", Response.force_type(error.get_response(), request.environ))
    original = getattr(error, "original_exception", None)
    if original is not None:
        log.error("request %s: unexpected error", g.get("request_id"), exc_info=original)
    detail = f"{request.method} {request.path[:200]}: {error.name.lower()}."
    response = problem_response(error.code, _CODES.get(error.code, f"http_{error.code}"), detail)
    for name, value in error.get_headers(request.environ):
        if name in ("Allow", "Content-Range", "Retry-After"):
            response.headers[name] = value
    return response


def request_id(given: str) -> str:
    """Return a request's id: the proxy's, when it is harmless, else a new one."""
    return given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(8)


def _begin() -> None:
    g.request_id = request_id(request.headers.get("X-Request-Id", ""))
    g.begun = time.perf_counter()


def _finish(response: Response) -> Response:
    """Add the headers that every answer carries, unless a route set its own; count and log the answer."""
    for name, value in _HEADERS.items():
        response.headers.setdefault(name, value)
    if request.is_secure:
        response.headers.setdefault(*STRICT_TRANSPORT_SECURITY)
    response.headers["X-Request-Id"] = g.get("request_id", "")
    _observe(response.status_code)
    return response


def _observe(status: int) -> None:
    """Count the answer and log it. By route, not by path: clients choose paths, and names of devices are in some."""
    seconds = time.perf_counter() - g.get("begun", time.perf_counter())
    route = request.url_rule.rule if request.url_rule else "unmatched"
    count_request(request.method, route, status, seconds)
    log_request(
        current_app.extensions["config"].log_requests, method=request.method, route=route, status=status,
        seconds=seconds, actor=getattr(g.get("actor"), "kind", None), address=request.remote_addr,
    )  # fmt: skip


def install(app: Flask) -> None:
    """Make every answer of ``app`` follow this module."""
    app.before_request(_begin)
    app.after_request(_finish)
    app.register_error_handler(RequestError, _on_request_error)
    app.register_error_handler(StellaError, _on_stella_error)
    app.register_error_handler(DBAPIError, _on_database_error)
    app.register_error_handler(PoolTimeout, _on_database_error)
    app.register_error_handler(OSError, _on_system_error)
    app.register_error_handler(HTTPException, _on_http_error)


def read_json(kind: Any, *, most_bytes: int = 64 * 1024) -> Any:
    """Read the request's JSON body into a msgspec type, strictly.

    Args:
        kind: A ``msgspec.Struct`` class, or any type that msgspec decodes.
        most_bytes: Largest body.

    Returns:
        The decoded value, an instance of ``kind``.

    Raises:
        RequestError: 413 too large, 415 not JSON by its media type, 400 not JSON, 422 not of that shape.
    """
    request.max_content_length = most_bytes
    if request.mimetype != "application/json":
        raise RequestError(
            415, "unsupported_media_type", "The body must be JSON.", advice="Send Content-Type: application/json."
        )
    try:
        return msgspec.json.decode(request.get_data(cache=False), type=kind)
    except msgspec.ValidationError as error:
        raise RequestError(422, "bad_field", f"The body does not have the expected shape: {error}.") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RequestError(400, "bad_json", f"The body is not valid JSON: {error}.") from error

"""Logs on stderr: as text for people, or as one JSON object a line for machines, gunicorn's own lines included.

Every line that is written during a request carries its id, which the answer's ``X-Request-Id`` and every problem+json
carry as well. Tokens, cookies, bodies and query strings are never logged.
"""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime
from typing import Any

import msgspec

TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
# Alembic tells of every step of its own, and gunicorn of its every start: noise to an operator.
_QUIET = ("alembic", "gunicorn.error")
REQUESTS = logging.getLogger("sync_server.requests")


class JsonFormatter(logging.Formatter):
    """One object a line: ``time``, ``level``, ``logger``, ``message``, what a request is known by, ``error``."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as JSON, without a line break in it."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "pid": record.process,
            **_request_id(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line, enc_hook=str).decode()


def _request_id() -> dict[str, str]:
    """The id of the request that this thread serves, nothing outside of one."""
    if "flask" not in sys.modules:  # commands that need no Flask do not load it for their log
        return {}
    from flask import g, has_request_context

    return {"request_id": g.request_id} if has_request_context() and "request_id" in g else {}


def configure(kind: str) -> None:
    """Send every log of this process to stderr.

    Args:
        kind: ``text`` or ``json``, the setting ``log_format``.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if kind == "json" else logging.Formatter(TEXT))
    root = logging.getLogger()
    for old in list(root.handlers):
        if isinstance(old.formatter, JsonFormatter) or getattr(old.formatter, "_fmt", None) == TEXT:
            root.removeHandler(old)  # ours, of a command before this one in the same process
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)


def log_request(
    which: str, *, method: str, route: str, status: int, seconds: float, actor: str | None, address: str | None
) -> None:
    """Write the line of one answer, if the setting asks for it.

    Args:
        which: The setting ``log_requests``.
        method: The HTTP method.
        route: The route's template, not the path: names of devices stay out of logs.
        status: The HTTP status.
        seconds: How long it took.
        actor: The kind of who asked, such as ``dev`` or ``ops``; None before a guard knew.
        address: Where it came from.
    """
    # A missing root is how TUF clients learn that theirs is the newest: no error.
    refused = status >= 400 and not (status == 404 and route.startswith("/repository/"))
    if which == "none" or (which == "errors" and not refused):
        return
    milliseconds = round(seconds * 1000, 1)
    fields = {
        "method": method, "route": route, "status": status, "ms": milliseconds, "actor": actor, "address": address,
    }  # fmt: skip
    REQUESTS.info("%s %s %s %s ms", method, route, status, milliseconds, extra={"fields": fields})

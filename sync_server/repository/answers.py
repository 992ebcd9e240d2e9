"""Metadata answered before Flask: what Flask said a moment ago, from this process's memory.

Nearly every request of a fleet asks for the same two files, ``timestamp.json`` and a root that does not exist yet.
:class:`MetadataAnswers` stands in front of the app, asks it once for each such file, and repeats what it said, so that
the routes stay the one place that knows what an answer is. It refuses to be a cache of anything else: other paths,
methods and conditions it cannot judge go to the app as they came.

How old an answer can be, counted from when its reading began:

- Up to ``FRESH_SECONDS`` it is repeated. Past ``RENEW_SECONDS`` one request asks the app again meanwhile.
- Older than that, requests wait for one of them to ask. So what was committed is seen within a second; what a request
  to this very process has changed, a publish or a rollout, is seen at once. A refused request has changed nothing, so
  that nobody without rights can make this memory forget.
- When the app does not answer (its database is away or slow), what was said up to ``KEPT_SECONDS`` ago is repeated:
  not longer than any HTTP cache may keep it, because ``Cache-Control`` says so. Then the app's own answer, 503, is
  what everybody gets.

Example::

    remember_metadata(app)
"""

from __future__ import annotations

import re
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from flask import Flask
from werkzeug.http import parse_etags
from werkzeug.middleware.proxy_fix import ProxyFix

from edge_runtime.contract.routes import CHANNELS, METADATA, PUBLISH
from sync_server.http import STRICT_TRANSPORT_SECURITY, request_id
from sync_server.logs import log_request
from sync_server.request_metrics import count_request

Environ = dict[str, Any]
WsgiApp = Callable[[Environ, Callable[..., Any]], Iterable[bytes]]
Headers = list[tuple[str, str]]

FRESH_SECONDS = 1.0
RENEW_SECONDS = 0.5
KEPT_SECONDS = 60.0  # max-age of what is served for a minute
# How long a request waits for another one that asks already, and how soon after a failure somebody asks again.
_PATIENCE_SECONDS = 1.0
_PAUSE_SECONDS = 1.0
# Names that a client makes up cost memory: only so many answers, and bytes, are kept; the least asked for go first.
_MOST_ANSWERS = 256
_MOST_BYTES = 32 * 2**20
_NAME = re.compile(r"timestamp\.json|[1-9][0-9]{0,9}\.(?:root|targets|snapshot)\.json|root-[0-9a-f]{64}\.json")
# With these a request asks for something that only the app can judge.
_CONDITIONS = ("HTTP_IF_MATCH", "HTTP_IF_UNMODIFIED_SINCE", "HTTP_RANGE", "HTTP_IF_RANGE")
# Headers that belong to one answer: the request's id, what depends on its scheme, and what the HTTP server adds.
_EACH_TIME = frozenset({"content-length", "date", "strict-transport-security", "x-request-id"})
# What Werkzeug takes off a 304.
_ENTITY = frozenset({"content-type", "last-modified"})
# Where metadata is changed: the API's doors and the form of the operators' page.
_CHANGING = (PUBLISH, CHANNELS, "/rollouts/")
_NOT_MODIFIED = "304 NOT MODIFIED"
_ROUTE = f"{METADATA}<name>"  # as Flask calls it


@dataclass(frozen=True, slots=True)
class Answer:
    """What the app said to one plain GET.

    Attributes:
        status: Status line without the protocol.
        body: The body, cut where the request's id stands in it.
        headers: Those that are the same each time.
        not_modified: Headers of the 304 that goes with it.
        etag: As it travels, or empty.
        read_at: Monotonic seconds when the reading began.
    """

    status: str
    body: tuple[bytes, ...]
    headers: Headers
    not_modified: Headers
    etag: str
    read_at: float

    @property
    def size(self) -> int:
        """Bytes of the body."""
        return sum(map(len, self.body))


@dataclass(slots=True)
class _Place:
    """The place of one file: the newest answer, and the lock of whoever asks for the next."""

    asking: threading.Lock = field(default_factory=threading.Lock)
    answer: Answer | None = None
    pause_until: float = 0.0


class MetadataAnswers:
    """WSGI middleware that repeats the app's answers to GET and HEAD of metadata files; safe for threads.

    Args:
        app: The application behind it.
        log_requests: The setting of that name; none of these answers is a refusal.
        clock: Monotonic seconds.
    """

    def __init__(self, app: WsgiApp, log_requests: str = "errors", clock: Callable[[], float] = time.monotonic) -> None:
        self._app = app
        self._log_requests = log_requests
        self._clock = clock
        self._places: OrderedDict[str, _Place] = OrderedDict()
        self._guard = threading.Lock()
        self._changed_at = float("-inf")

    def __call__(self, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answer from memory when that is allowed, else hand over to the app."""
        began, path = time.perf_counter(), environ.get("PATH_INFO", "")
        answer = self._answer(path, environ) if path.startswith(METADATA) and _is_plain(path, environ) else None
        if answer is None:
            may_change = environ["REQUEST_METHOD"] in ("POST", "PUT") and path.startswith(_CHANGING)
            return self._app(environ, self._noting(start_response) if may_change else start_response)
        status, headers, body = _repeated(answer, environ)
        self._observe(environ, int(status[:3]), time.perf_counter() - began)
        start_response(status, headers)
        return body

    def _noting(self, start_response: Callable[..., Any]) -> Callable[..., Any]:
        """Return a ``start_response`` that notes when a change was accepted: it was committed before the answer."""

        def start(status: str, *rest: Any) -> Any:
            if int(status[:3]) < 400:
                self._changed_at = self._clock()
            return start_response(status, *rest)

        return start

    def _observe(self, environ: Environ, status: int, seconds: float) -> None:
        """Count and log an answer as Flask's are."""
        method = environ["REQUEST_METHOD"]
        count_request(method, _ROUTE, status, seconds)
        log_request(
            self._log_requests, method=method, route=_ROUTE, status=status, seconds=seconds, actor=None,
            address=environ.get("REMOTE_ADDR"),
        )  # fmt: skip

    def _answer(self, path: str, environ: Environ) -> Answer | None:
        """Return what to repeat, or None where only the app itself can answer now."""
        place = self._place(path)
        age = self._age(place.answer)
        if age < RENEW_SECONDS or (age < FRESH_SECONDS and place.asking.locked()):
            return place.answer
        if place.asking.acquire(timeout=0 if age < FRESH_SECONDS else _PATIENCE_SECONDS):
            try:
                # Whoever asked while this request waited may have brought what it needs, or seen that it is not there.
                if self._age(place.answer) >= RENEW_SECONDS and self._clock() >= place.pause_until:
                    self._ask(place, path, environ)
            finally:
                place.asking.release()
        answer = place.answer
        return answer if answer is not None and self._clock() - answer.read_at < KEPT_SECONDS else None

    def _age(self, answer: Answer | None) -> float:
        """Return an answer's age in seconds; one from before the last change through this process is never fresh."""
        if answer is None or answer.read_at <= self._changed_at:
            return FRESH_SECONDS
        return self._clock() - answer.read_at

    def _place(self, path: str) -> _Place:
        with self._guard:
            place = self._places.setdefault(path, _Place())
            self._places.move_to_end(path)
            if len(self._places) > _MOST_ANSWERS:
                self._places.popitem(last=False)
            return place

    def _ask(self, place: _Place, path: str, environ: Environ) -> None:
        """Ask the app for a file; anything but 200 and 404 leaves what was known as it is."""
        began = self._clock()
        answer = _plain_get(self._app, path, environ, began)
        if answer is None:
            place.pause_until = self._clock() + _PAUSE_SECONDS
            return
        place.answer = answer
        with self._guard:
            while sum(p.answer.size for p in self._places.values() if p.answer) > _MOST_BYTES:
                self._places.popitem(last=False)


def remember_metadata(app: Flask) -> None:
    """Put :class:`MetadataAnswers` in front of an app, behind what reads the headers of its proxies."""
    log_requests = app.extensions["config"].log_requests
    if isinstance(app.wsgi_app, ProxyFix):
        app.wsgi_app.app = MetadataAnswers(app.wsgi_app.app, log_requests)
    else:
        app.wsgi_app = MetadataAnswers(app.wsgi_app, log_requests)  # type: ignore[method-assign]


def _is_plain(path: str, environ: Environ) -> bool:
    """Say whether this is a request that can be answered from memory."""
    return (
        environ["REQUEST_METHOD"] in ("GET", "HEAD")
        and _NAME.fullmatch(path, len(METADATA)) is not None
        and not any(name in environ for name in _CONDITIONS)
        # Without an ETag a time is what counts, and Werkzeug knows all its forms.
        and ("HTTP_IF_MODIFIED_SINCE" not in environ or "HTTP_IF_NONE_MATCH" in environ)
    )


def _repeated(answer: Answer, environ: Environ) -> tuple[str, Headers, Iterable[bytes]]:
    """Return an answer as the app would send it, under this request's own id: status, headers, body."""
    name = request_id(environ.get("HTTP_X_REQUEST_ID", ""))
    own = [("X-Request-Id", name)]
    if environ.get("wsgi.url_scheme") == "https":
        own.append(STRICT_TRANSPORT_SECURITY)
    if answer.etag and _is_known(answer.etag, environ.get("HTTP_IF_NONE_MATCH")):
        return _NOT_MODIFIED, answer.not_modified + own, ()
    body = answer.body[0] if len(answer.body) == 1 else name.encode().join(answer.body)
    headers = [*answer.headers, *own, ("Content-Length", str(len(body)))]
    return answer.status, headers, () if environ["REQUEST_METHOD"] == "HEAD" else (body,)


def _is_known(etag: str, asked: str | None) -> bool:
    """Say whether If-None-Match names an ETag, by weak comparison (RFC 9110, 13.1.2)."""
    return asked is not None and (asked == etag or parse_etags(asked).contains_weak(etag.strip('"')))


def _plain_get(app: WsgiApp, path: str, environ: Environ, began: float) -> Answer | None:
    """Return the app's answer to a GET without conditions, None when it is neither 200 nor 404."""
    mark = secrets.token_hex(16)  # stands in for the request's id, and is found again in the body
    asked = {key: value for key, value in environ.items() if key != "HTTP_IF_NONE_MATCH"}
    asked |= {"REQUEST_METHOD": "GET", "PATH_INFO": path, "QUERY_STRING": "", "HTTP_X_REQUEST_ID": mark}
    said: list[Any] = []
    body = app(asked, lambda status, headers, _error=None: said.extend((status, headers)))
    try:
        content = b"".join(body)
    finally:
        if hasattr(body, "close"):
            body.close()
    status, headers = said
    if not status.startswith(("200", "404")):
        return None
    kept = [(name, value) for name, value in headers if name.lower() not in _EACH_TIME]
    return Answer(
        status=status,
        body=tuple(content.split(mark.encode())),
        headers=kept,
        not_modified=[(name, value) for name, value in kept if name.lower() not in _ENTITY],
        etag=next((value for name, value in kept if name.lower() == "etag"), ""),
        read_at=began,
    )

"""Requests to the server, as one small protocol: a request goes out, a status, headers and pieces of a body come back.

Every answer is bounded in size and in time, redirects are not followed (a token must not travel to where a redirect
points), and every way in which a network or a server can fail ends as one TransportError with a sentence. Tests put
a simulator behind the same protocol.

Example::

    with HttpTransport("https://fleet.example", options) as transport:
        answer = call_json(transport, Request("GET", "/health"), limit=4096)
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from edge_runtime.backoff import parse_retry_after
from edge_runtime.contract import problem
from edge_runtime.errors import TransportError

if TYPE_CHECKING:
    pass

# Enough for any problem+json body, small enough to throw away.
MAX_PROBLEM_BYTES = 16_384
# The JSON answers of the API name ranges, ids and counts.
MAX_JSON_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Request:
    """One request.

    Attributes:
        method: ``GET`` or ``POST``.
        path: From the root of the server's URL, beginning with a slash.
        headers: Fields to send.
        body: Bytes to send, or None.
        deadline_seconds: Longest time until the last byte of the answer; None: the transport's own.
    """

    method: str
    path: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    deadline_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back: headers at once, the body piece by piece.

    Attributes:
        status: HTTP status.
        headers: Fields by lower-case name.
        chunks: Pieces of the body as they arrive; taking one may raise TransportError.
    """

    status: int
    headers: Mapping[str, str]
    chunks: Iterator[bytes]


class Transport(Protocol):
    """Where requests go: a server over HTTP, or a simulator."""

    @property
    def server_url(self) -> str:
        """The server's address, for messages."""

    def exchange(self, request: Request) -> AbstractContextManager[Answer]:
        """Send a request; the block may read the answer while it lasts.

        Raises:
            TransportError: No answer came, or it broke off.
        """


def bearer(token: str) -> dict[str, str]:
    """Return the header that carries a token."""
    return {"Authorization": f"Bearer {token}"}


def describe(transport: Transport, request: Request) -> str:
    """Name a request in a sentence."""
    return f"{request.method} {transport.server_url}{request.path}"


def call(transport: Transport, request: Request, *, limit: int, expected: Collection[int] = (200,)) -> bytes:
    """Send a request and return the body of its answer.

    Args:
        transport: Where to.
        request: What.
        limit: Most bytes of an expected answer.
        expected: Statuses that are no error.

    Raises:
        TransportError: Another status, more bytes than the limit, or what :meth:`Transport.exchange` raises.
    """
    with transport.exchange(request) as answer:
        if answer.status not in expected:
            raise refusal(transport, request, answer)
        return read_bounded(transport, request, answer, limit)


def call_json(
    transport: Transport, request: Request, *, limit: int = MAX_JSON_BYTES, expected: Collection[int] = (200,)
) -> dict[str, Any]:
    """Send a request and return the JSON object of its answer.

    Raises:
        TransportError: As :func:`call`, or the answer is no JSON object.
    """
    body = call(transport, request, limit=limit, expected=expected)
    value = _parse_object(body)
    if value is None:
        page = body.lstrip()[:1] == b"<"
        raise TransportError(
            f"{describe(transport, request)} answered with {'a web page' if page else 'something that is not JSON'}.",
            advice="A proxy or a log-in page may sit between; check the server's address.",
            code_from_server="not_json",
        )
    return value


def read_bounded(transport: Transport, request: Request, answer: Answer, limit: int) -> bytes:
    """Read a body of at most ``limit`` bytes.

    Raises:
        TransportError: The answer is longer, or broke off.
    """
    body = bytearray()
    for chunk in answer.chunks:
        body += chunk
        if len(body) > limit:
            raise TransportError(
                f"{describe(transport, request)} sent more than the {limit} bytes that such an answer may have.",
                advice="Check the server's address; something else may answer there.",
                status=answer.status,
            )
    return bytes(body)


def refusal(transport: Transport, request: Request, answer: Answer) -> TransportError:
    """Turn an answer that is not the expected one into an error with a sentence.

    Args:
        transport: Where the request went.
        request: What was asked.
        answer: Its answer; at most 16 KiB of the body are read.

    Returns:
        The error; its field ``problem`` is the problem's code when the body is problem+json, else empty.
    """
    said = _problem(answer)
    status = answer.status
    sentence = said.detail or said.title or _words(status, answer.headers.get("content-type", ""))
    asked_with_token = status not in (401, 403) or "Authorization" in request.headers
    advice = said.advice or (_ADVICE.get(status, _LOG) if asked_with_token else _PROXY)
    retry_after = answer.headers.get("retry-after")
    return TransportError(
        f"{describe(transport, request)} was answered with {status}: {sentence.rstrip('.')}.",
        status=status,
        retry_after_seconds=parse_retry_after(retry_after, time.time()) if retry_after else None,
        advice=advice,
        problem=said.code,
    )


def _words(status: int, media_type: str) -> str:
    if 300 <= status < 400:
        return "the server points elsewhere, and redirects are not followed"
    if "html" in media_type:
        return "a web page instead of an answer of the API; a proxy or another program may answer there"
    return {401: "the token is not accepted", 404: "there is nothing under this address"}.get(
        status, "the server could not do it" if status >= 500 else "the server refused it"
    )


_LOG = "It is tried again; the server's log says more."
_PROXY = "No token is needed for this: a proxy between may ask for a log-in; check the server's address."
_ADVICE = {
    401: "The token was revoked or belongs to another server: enrol the device again with a new enrolment line.",
    403: "The token does not allow this; ask the operator of the server.",
    404: "Check the server's address.",
}


def _problem(answer: Answer) -> problem.Problem:
    body = bytearray()
    with contextlib.suppress(TransportError):
        for chunk in answer.chunks:
            body += chunk
            if len(body) > MAX_PROBLEM_BYTES:
                break
    media_type = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
    value = _parse_object(bytes(body)) if media_type == problem.MEDIA_TYPE else None
    return problem.Problem.from_dict(value or {}, status=answer.status)


def _parse_object(body: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None

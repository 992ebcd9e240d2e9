"""One server, spoken to as a release engineer: requests that are bounded, retried and explained.

The rules: a token travels over https or loopback only, redirects are not followed, an answer is read up to a limit,
and whatever comes back (problem+json, a proxy's HTML, nothing at all) becomes one sentence with advice.
"""

from __future__ import annotations

import ipaddress
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from edge_runtime.contract.problem import Problem
from edge_runtime.errors import InputError, TransportError, TrustError

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse, PoolManager

CONNECT_SECONDS = 10.0
READ_SECONDS = 120.0
MAX_ANSWER_BYTES = 4 * 2**20
ATTEMPTS = 4
# Answers that say "not now": a proxy without its server, or a server that asks for patience.
_LATER = frozenset({429, 502, 503, 504})
_LONGEST_WAIT_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Answer:
    """A successful answer: its status and body."""

    status: int
    body: bytes

    def json(self, what: str) -> dict[str, Any]:
        """Return the body as a JSON object.

        Raises:
            TransportError: It is something else.
        """
        try:
            value = json.loads(self.body)
        except ValueError:
            value = None
        if not isinstance(value, dict):
            raise TransportError(
                f"The server's answer to {what} is not JSON.",
                status=self.status,
                advice="Check that the URL is the Stella Edge server itself, not a log-in page in front of it.",
            )
        return value


class Server:
    """A server's doors for release engineers.

    Args:
        url: Base URL, such as ``https://edge.example``.
        token: A publisher or operator token, or None for public files.
        allow_insecure_http: Send the token over plain http to another machine.
        sleep: Waits some seconds between attempts; tests pass a recorder.

    Raises:
        InputError: The URL is not http or https.
        TrustError: Plain http to another machine; reason ``insecure_http``.
    """

    def __init__(
        self,
        url: str,
        token: str | None,
        *,
        allow_insecure_http: bool = False,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.url = url.rstrip("/")
        self._token = token
        self._sleep = sleep
        self._pool: PoolManager | None = None
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InputError(f"{url} is not a server's URL.", advice="Give one such as https://edge.example.")
        if parts.scheme == "http" and token and not allow_insecure_http and not _is_loopback(parts.hostname):
            raise TrustError(
                f"A token would travel to {parts.hostname} over plain http.",
                reason="insecure_http",
                advice="Use https, or --allow-insecure-http when you accept that others can read it.",
            )

    def get(self, path: str) -> Answer:
        """Fetch a path.

        Raises:
            TransportError: No answer, or one that refuses.
        """
        return self._request("GET", path, None, {})

    def send(self, method: str, path: str, body: bytes, content_type: str) -> Answer:
        """Send a body; only ever called for requests that may safely arrive twice.

        Raises:
            TransportError: No answer, or one that refuses.
        """
        return self._request(method, path, body, {"Content-Type": content_type})

    def _request(self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]) -> Answer:
        error: TransportError | None = None
        for attempt in range(ATTEMPTS):
            if error is not None:
                # 1, 2, 4 seconds, unless the server names a time; a person waits at the other end.
                self._sleep(min(error.retry_after_seconds or 2.0 ** (attempt - 1), _LONGEST_WAIT_SECONDS))
            try:
                return self._once(method, path, body, headers)
            except TransportError as failure:
                if failure.status is not None and failure.status not in _LATER:
                    raise
                error = failure
        assert error is not None  # noqa: S101
        raise error

    def _once(self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]) -> Answer:
        import urllib3

        if self._pool is None:
            self._pool = urllib3.PoolManager(timeout=urllib3.Timeout(CONNECT_SECONDS, READ_SECONDS), retries=False)
        all_headers = {"Accept": "application/json", **headers}
        if self._token:
            all_headers["Authorization"] = f"Bearer {self._token}"
        try:
            response = self._pool.request(
                method, f"{self.url}{path}", body=body, headers=all_headers, redirect=False, preload_content=False
            )
            try:
                content = response.read(MAX_ANSWER_BYTES + 1, decode_content=True)
            finally:
                response.release_conn()
                response.close()
        except urllib3.exceptions.HTTPError as error:
            raise self._unreachable(method, path, error) from error
        if len(content) > MAX_ANSWER_BYTES:
            raise TransportError(f"The server's answer to {path} is too large.", status=response.status)
        if 200 <= response.status < 300:
            return Answer(response.status, content)
        raise refusal(method, path, response, content)

    def _unreachable(self, method: str, path: str, error: Exception) -> TransportError:
        import urllib3

        # From the special to the general: urllib3 derives a refused connection from a timeout.
        if isinstance(error, urllib3.exceptions.NameResolutionError):
            how = "cannot be found by its name"
        elif isinstance(error, urllib3.exceptions.NewConnectionError):
            how = "refused the connection"
        elif isinstance(error, urllib3.exceptions.TimeoutError):
            how = "did not answer in time"
        elif isinstance(error, urllib3.exceptions.SSLError):
            how = f"has no certificate that can be trusted ({error})"
        else:
            how = f"broke the connection ({type(error).__name__})"
        return TransportError(
            f"{self.url} {how} ({method} {path}).",
            advice="Check the URL and that the server runs, then run the same command again; nothing is done twice.",
            url=self.url,
        )


def refusal(method: str, path: str, response: BaseHTTPResponse, content: bytes) -> TransportError:
    """Explain an answer that is no success.

    Args:
        method: Of the request.
        path: Of the request.
        response: The answer; only its status and headers are used.
        content: Its body, whatever it is.

    Returns:
        One sentence with the server's own words when it spoke problem+json.
    """
    status = response.status
    try:
        value = json.loads(content)
    except ValueError:
        value = None
    problem = Problem.from_dict(value, status=status) if isinstance(value, dict) else None
    if problem is not None and (problem.detail or problem.title):
        message = (problem.detail or problem.title).rstrip(".")
        return TransportError(
            f"The server refused ({status}): {message}.",
            status=status,
            retry_after_seconds=_retry_after(response),
            advice=problem.advice or _advice(status),
            problem=problem.code,
        )
    kind = response.headers.get("Content-Type", "no content type").split(";")[0]
    return TransportError(
        f"The server answered {method} {path} with status {status} and no explanation ({kind}).",
        status=status,
        retry_after_seconds=_retry_after(response),
        advice=_advice(status),
    )


def _advice(status: int) -> str:
    if status in (401, 403):
        return "Check the token; make a new one with 'sync-server token create --kind publisher'."
    if 300 <= status < 400:
        return "Give the URL that it redirects to; redirects are not followed with a token."
    if status == 404:
        return "Check that the URL is the Stella Edge server itself."
    if status == 413:
        return "Publish fewer or smaller bundles at once, or raise the limit of the proxy in front of the server."
    if status >= 500:
        return "Look into the server's log, then run the same command again; nothing is done twice."
    return "Correct what it says and run the command again."


def _retry_after(response: BaseHTTPResponse) -> float | None:
    value = response.headers.get("Retry-After", "")
    return float(value) if value.isascii() and value.isdigit() and len(value) < 6 else None


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False

"""The transport over real HTTP: bounded in time, closed to redirects, and every foreign exception given a sentence.

Example::

    with HttpTransport("https://fleet.example", TransportOptions()) as transport:
        call_json(transport, Request("GET", "/health"))
"""

from __future__ import annotations

import contextlib
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

from edge_runtime import __version__
from edge_runtime.errors import InputError, TransportError, TrustError
from edge_runtime.transport import Answer, Request, describe

if TYPE_CHECKING:
    import urllib3

CHUNK_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class TransportOptions:
    """How long to wait, whom to believe.

    Attributes:
        connect_timeout_seconds: Longest wait for a connection.
        read_timeout_seconds: Longest silence inside an answer.
        deadline_seconds: Longest time for an answer as a whole.
        allow_insecure_http: Whether plain http to another machine is allowed.
        ca_file: PEM file of certificate authorities in place of the system's.
    """

    connect_timeout_seconds: float = 10.0
    read_timeout_seconds: float = 20.0
    deadline_seconds: float = 60.0
    allow_insecure_http: bool = False
    ca_file: Path | None = None


class HttpTransport:
    """The real transport, on urllib3: system certificates, no redirects, no retries of its own."""

    def __init__(self, server_url: str, options: TransportOptions) -> None:
        """Prepare a pool; nothing is sent yet.

        Raises:
            InputError: The URL is not http(s), or the CA file cannot be used.
            TrustError: Plain http to another machine without ``allow_insecure_http`` (reason ``insecure_http``).
        """
        import urllib3  # 60 ms that `--help` and `status` must not pay

        check_server_url(server_url, allow_insecure_http=options.allow_insecure_http)
        self._url = server_url.rstrip("/")
        self._options = options
        trusted = {} if options.ca_file is None else {"ssl_context": _trusting(options.ca_file)}
        self._pool = urllib3.PoolManager(
            num_pools=1,
            retries=False,
            timeout=urllib3.Timeout(connect=options.connect_timeout_seconds, read=options.read_timeout_seconds),
            headers={"User-Agent": f"edge-runtime/{__version__}", "Accept-Encoding": "identity"},
            **trusted,
        )

    @property
    def server_url(self) -> str:
        """The server's address without a trailing slash."""
        return self._url

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close idle connections."""
        self._pool.clear()

    @contextlib.contextmanager
    def exchange(self, request: Request) -> Iterator[Answer]:
        """Send a request and hand out its answer.

        Raises:
            TransportError: No connection, a certificate that is not trusted, silence, a broken answer, or a deadline
                that passed.
        """
        deadline = time.monotonic() + (request.deadline_seconds or self._options.deadline_seconds)
        with self._translated(request):
            response = self._pool.request(
                request.method,
                self._url + request.path,
                body=request.body,
                headers={**self._pool.headers, **request.headers},
                redirect=False,
                preload_content=False,
                decode_content=False,
            )
        headers = {name.lower(): value for name, value in response.headers.items()}
        finished = False
        try:
            yield Answer(response.status, headers, self._chunks(request, response, deadline))
            finished = True
        finally:
            # A connection whose answer was not read to its end must not carry the next request.
            if not finished or not _is_exhausted(response):
                response.close()
            response.release_conn()

    def _chunks(self, request: Request, response: urllib3.BaseHTTPResponse, deadline: float) -> Iterator[bytes]:
        while True:
            with self._translated(request):
                # read1 returns what one packet brought: read would wait for a full piece, and a server that sends
                # a byte now and then would never meet the read timeout.
                chunk = response.read1(CHUNK_BYTES, decode_content=False)
            if not chunk:
                return
            yield chunk
            if time.monotonic() > deadline:
                raise TransportError(
                    f"{describe(self, request)} took longer than its deadline and was given up.",
                    advice="It is tried again; a download continues where it stopped.",
                )

    @contextlib.contextmanager
    def _translated(self, request: Request) -> Iterator[None]:
        """The one place where foreign network exceptions become ours."""
        from urllib3 import exceptions

        sentences: tuple[tuple[type[Exception], str], ...] = (
            (exceptions.NameResolutionError, "failed: the server's name cannot be resolved"),
            (exceptions.NewConnectionError, "failed: nothing accepts connections there"),
            (exceptions.ConnectTimeoutError, "failed: the connection was not accepted in time"),
            (exceptions.SSLError, "failed: the server's certificate is not trusted"),
            (exceptions.TimeoutError, "failed: the server fell silent"),
            (exceptions.HTTPError, "failed: the connection broke off or the answer is not HTTP"),
            (OSError, "failed: the network is not available"),
        )
        try:
            yield
        except (exceptions.HTTPError, OSError) as error:
            sentence = next(text for kind, text in sentences if isinstance(error, kind))
            advice = "Check the network and that the server runs, then try again; nothing is lost."
            if isinstance(error, exceptions.SSLError):
                advice = "Check the device's clock and the server's certificate; name a private authority in ca_file."
            # No connection means that not a byte of the request left: the upload may count on that.
            unsent = {"never_sent": True} if isinstance(error, exceptions.ConnectTimeoutError) else {}
            raise TransportError(f"{describe(self, request)} {sentence}.", advice=advice, **unsent) from error


def _trusting(ca_file: Path) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_file)
    except OSError as error:  # ssl.SSLError is one
        raise InputError(
            f"The certificate authorities in {ca_file} cannot be used: {error.strerror or error}.",
            advice="Name a PEM file of certificates in ca_file, or leave the setting out.",
        ) from error


def _is_exhausted(response: urllib3.BaseHTTPResponse) -> bool:
    return bool(getattr(response, "length_remaining", None) == 0 or response.closed)


def check_server_url(url: str, *, allow_insecure_http: bool) -> None:
    """Refuse an address that tokens must not travel to.

    Raises:
        InputError: Not an http(s) URL.
        TrustError: Plain http to another machine that was not allowed (reason ``insecure_http``).
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InputError(f"{url!r} is not the address of a server.", advice="Give it as https://host[:port].")
    if parts.scheme == "https" or allow_insecure_http or is_loopback(parts.hostname):
        return
    raise TrustError(
        f"{url} is plain http to another machine: everybody on the way could read the device's token.",
        reason="insecure_http",
        advice="Use https, or say --allow-insecure-http when the network between is trusted.",
    )


def is_loopback(host: str) -> bool:
    """Say whether a host name can only mean this machine."""
    import ipaddress

    if host == "localhost":
        return True
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return False

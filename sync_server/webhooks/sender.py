"""One POST to a webhook: bounded in time, to the address that was checked, following nothing, reading nothing back."""

from __future__ import annotations

import contextlib
import functools
import http.client
import socket
import ssl
import threading

from edge_runtime.errors import TransportError
from sync_server.webhooks.addresses import Target, resolve

_CONNECT_SECONDS = 5.0
_SILENCE_SECONDS = 10.0
_TOTAL_SECONDS = 20.0  # a receiver that sends a byte now and then would hold the thread for ever


@functools.cache
def _tls() -> ssl.SSLContext:
    return ssl.create_default_context()


def post(target: Target, body: bytes, headers: dict[str, str], *, allow_private: bool) -> int:
    """Send a body and return the status of the answer; redirects are answers like any other.

    Args:
        target: Where to.
        body: JSON.
        headers: Further headers; Host and Content-Length come by themselves.
        allow_private: Whether private addresses may be called.

    Raises:
        TransportError: The host is unknown or may not be called, does not answer in time, or speaks no HTTP.
    """
    addresses = resolve(target, allow_private=allow_private)
    try:
        with _connect(target, addresses) as connected:
            return _exchange_in_time(connected, target, body, headers)
    except ssl.SSLError as error:
        raise TransportError(f"TLS with {target.host} failed: {error.reason or error}.") from error
    except TimeoutError as error:
        raise TransportError(f"{target.host} did not answer in time.") from error
    except http.client.HTTPException as error:
        raise TransportError(f"{target.host} did not answer as a web server does.") from error
    except OSError as error:
        raise TransportError(f"{target.host} cannot be reached: {error.strerror or error}.") from error


def _exchange_in_time(connected: socket.socket, target: Target, body: bytes, headers: dict[str, str]) -> int:
    """Make the exchange; another thread ends the connection when all of it takes too long."""
    late = threading.Event()

    def cut() -> None:
        late.set()
        with contextlib.suppress(OSError):  # it has ended by itself
            # Not SSLSocket's own, which would pull the TLS object from under the thread that reads.
            socket.socket.shutdown(connected, socket.SHUT_RDWR)

    deadline = threading.Timer(_TOTAL_SECONDS, cut)
    deadline.daemon = True
    deadline.start()
    try:
        if isinstance(connected, ssl.SSLSocket):
            connected.do_handshake()
        status = _exchange(connected, target, body, headers)
    except (OSError, http.client.HTTPException):
        if not late.is_set():
            raise
    finally:
        deadline.cancel()
    if late.is_set():  # headers that end because we cut them off look whole to http.client
        raise TimeoutError
    return status


def _connect(target: Target, addresses: list[str]) -> socket.socket:
    """Connect to the first address that lets us; TLS is checked against the name, not the address."""
    for position, address in enumerate(addresses):
        try:
            plain = socket.create_connection((address, target.port), timeout=_CONNECT_SECONDS)
            break
        except OSError:
            if position == len(addresses) - 1:
                raise
    plain.settimeout(_SILENCE_SECONDS)
    if target.scheme == "http":
        return plain
    try:
        return _tls().wrap_socket(plain, server_hostname=target.host, do_handshake_on_connect=False)
    except BaseException:
        plain.close()
        raise


def _exchange(connected: socket.socket, target: Target, body: bytes, headers: dict[str, str]) -> int:
    connection = http.client.HTTPConnection(target.host, target.port)
    connection.sock = connected
    default = target.port == (443 if target.scheme == "https" else 80)
    host = f"[{target.host}]" if ":" in target.host else target.host
    sent = {"Host": host if default else f"{host}:{target.port}", "Connection": "close", **headers}
    connection.request("POST", target.path, body, sent)
    with connection.getresponse() as response:  # status and headers, whose number and lengths http.client bounds
        return response.status

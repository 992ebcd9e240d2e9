"""One call of a webhook: receivers that misbehave, and addresses that would lead into the server's own network."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import Any

import pytest
from simulators.webhook_receiver import receiving

from edge_runtime.errors import InputError, TransportError
from sync_server.webhooks import addresses, sender

# --- receivers that misbehave ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (b"", "did not answer as a web server"),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "did not answer as a web server"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000, "did not answer as a web server"),
        (b"HTTP/1.1 200 OK\r\n" + b"".join(b"X-%d: y\r\n" % n for n in range(200)), "did not answer as a web server"),
    ],
)
def test_no_web_server(answer: bytes, sentence: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                received = b""
                while not received.endswith(b"{}"):
                    received += connection.recv(65_536)
                with contextlib.suppress(OSError):  # it may have had enough
                    connection.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        target = addresses.Target("http", "127.0.0.1", listener.getsockname()[1], "/")
        with pytest.raises(TransportError, match=sentence):
            sender.post(target, b"{}", {}, allow_private=True)


def test_a_receiver_that_trickles_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sender, "_TOTAL_SECONDS", 0.5)
    stop = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(b"HTTP/1.1 200 OK\r\nX: ")
                while not stop.wait(0.05):
                    try:
                        connection.sendall(b"x")
                    except OSError:
                        return

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        target = addresses.Target("http", "127.0.0.1", listener.getsockname()[1], "/")
        with pytest.raises(TransportError, match="in time"):
            sender.post(target, b"{}", {}, allow_private=True)
        stop.set()
        thread.join(5)


def test_tls_is_checked() -> None:
    with receiving() as receiver:
        target = addresses.Target("https", "127.0.0.1", receiver.server_port, "/")
        with pytest.raises(TransportError, match="TLS with 127"):
            sender.post(target, b"{}", {}, allow_private=True)


# --- no way inside ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org/", "ftp://example.org/", "https://", "example.org/hook", "https://user:pw@example.org/",
        "https://example.org/#part", "https://exämple.org/", "https://example.org/a b", "https://example.org:99999/",
        "https://example.org/" + "x" * 2_000, "https://127.0.0.1/", "https://[::1]/", "https://10.1.2.3/",
        "https://169.254.169.254/latest/meta-data", "https://[::ffff:192.168.0.1]/", "https://[64:ff9b::7f00:1]/",
        "https://[2002:7f00:1::]/", "https://0.0.0.0/", "https://224.0.0.1/", "https://[fe80::1]/",
    ],
)  # fmt: skip
def test_urls_that_are_refused(url: str) -> None:
    with pytest.raises(InputError):
        addresses.parse_url(url, allow_private=False)


def test_link_local_is_refused_even_when_private_is_allowed() -> None:
    with pytest.raises(InputError, match="never call"):
        addresses.parse_url("http://169.254.169.254/", allow_private=True)
    with pytest.raises(InputError, match="needs https"):
        addresses.parse_url("http://1.1.1.1/", allow_private=True)
    assert addresses.parse_url("http://10.0.0.1:81/x?y", allow_private=True).path == "/x?y"


def test_a_name_that_leads_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every address of a name counts, and it is looked up once: a second answer would come too late."""
    asked: list[str] = []

    def lookup(host: str, port: int, **_: object) -> list[Any]:
        asked.append(host)
        return [(0, 0, 0, "", (address, port)) for address in ("93.184.216.34", "127.0.0.1")]

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    target = addresses.parse_url("https://rebind.example/", allow_private=False)
    with pytest.raises(TransportError, match="private address"):
        sender.post(target, b"{}", {}, allow_private=False)
    assert asked == ["rebind.example"]

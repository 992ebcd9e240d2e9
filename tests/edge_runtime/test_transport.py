"""The real transport against a real server on loopback: bounded in size and time, every failure a sentence."""

from __future__ import annotations

import dataclasses
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from edge_runtime.errors import InputError, TransportError, TrustError
from edge_runtime.http_transport import HttpTransport, TransportOptions, check_server_url, is_loopback
from edge_runtime.transport import Request, bearer, call, call_json

OPTIONS = TransportOptions(connect_timeout_seconds=2, read_timeout_seconds=0.5, deadline_seconds=2)
Respond = Callable[[BaseHTTPRequestHandler], None]


class Server(ThreadingHTTPServer):
    """Answers each path with a function, and keeps what it was asked."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.responses: dict[str, Respond] = {}
        self.asked: list[tuple[str, str, dict[str, str], bytes]] = []
        self.connections = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def get_request(self):  # type: ignore[no-untyped-def]
        self.connections += 1
        return super().get_request()

    def handle_error(self, request, client_address):  # type: ignore[no-untyped-def]
        pass  # a client that hangs up is what these tests are about


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def respond(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        self.server.asked.append((self.command, self.path, dict(self.headers), self.rfile.read(length)))
        self.server.responses[self.path](self)

    do_GET = respond  # noqa: N815
    do_POST = respond  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass


def reply(status: int, body: bytes, **headers: str) -> Respond:
    def respond(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    return respond


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def transport(server: Server) -> Iterator[HttpTransport]:
    with HttpTransport(server.url + "/", OPTIONS) as transport:
        yield transport


def test_an_answer_arrives_with_what_was_asked(server: Server, transport: HttpTransport) -> None:
    server.responses["/api/x"] = reply(200, b'{"a": 1}')
    request = Request("POST", "/api/x", bearer("secret"), b"body")
    assert call_json(transport, request) == {"a": 1}
    ((method, _, headers, body),) = server.asked
    assert (method, body, headers["Authorization"]) == ("POST", b"body", "Bearer secret")
    assert headers["Accept-Encoding"] == "identity"
    assert headers["User-Agent"].startswith("edge-runtime/")


def test_a_connection_is_used_again(server: Server, transport: HttpTransport) -> None:
    server.responses["/a"] = reply(200, b"x" * 100_000)
    for _ in range(5):
        assert len(call(transport, Request("GET", "/a"), limit=100_000)) == 100_000
    assert server.connections == 1


def test_a_part_is_asked_for(server: Server, transport: HttpTransport) -> None:
    server.responses["/a"] = reply(206, b"tail", Content_Range="bytes 5-8/9")
    with transport.exchange(Request("GET", "/a", {"Range": "bytes=5-"})) as answer:
        assert answer.headers["content-range"] == "bytes 5-8/9"
        assert b"".join(answer.chunks) == b"tail"
    assert server.asked[0][2]["Range"] == "bytes=5-"


def failure(transport: HttpTransport, path: str, limit: int = 1000) -> TransportError:
    with pytest.raises(TransportError) as caught:
        call(transport, Request("GET", path), limit=limit)
    assert caught.value.advice
    assert path in caught.value.message
    return caught.value


def test_an_answer_longer_than_its_limit_is_cut_off(server: Server, transport: HttpTransport) -> None:
    server.responses["/a"] = reply(200, b"x" * 1001)
    assert "more than the 1000 bytes" in failure(transport, "/a").message


def test_an_endless_answer_is_cut_off(server: Server, transport: HttpTransport) -> None:
    def endless(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        while True:
            handler.wfile.write(b"x" * 65536)

    server.responses["/a"] = endless
    failure(transport, "/a")
    server.responses["/b"] = reply(200, b"fine")
    assert call(transport, Request("GET", "/b"), limit=10) == b"fine"  # on a connection of its own


def test_a_server_that_drips_meets_the_deadline(server: Server, transport: HttpTransport) -> None:
    def drip(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        while True:
            handler.wfile.write(b"x")
            handler.wfile.flush()
            time.sleep(0.05)

    server.responses["/a"] = drip
    assert "deadline" in failure(transport, "/a", limit=1_000_000).message


def test_a_server_that_falls_silent_is_given_up(server: Server, transport: HttpTransport) -> None:
    release = threading.Event()
    server.responses["/a"] = lambda handler: release.wait(10) and None
    assert "silent" in failure(transport, "/a").message
    release.set()


def test_an_answer_that_breaks_off_is_an_error(server: Server, transport: HttpTransport) -> None:
    def broken(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "1000")
        handler.end_headers()
        handler.wfile.write(b"x" * 10)
        handler.close_connection = True

    server.responses["/a"] = broken
    assert "broke off" in failure(transport, "/a", limit=2000).message


def test_no_server_is_an_error_that_says_nothing_was_sent(server: Server) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
    with HttpTransport(url, OPTIONS) as transport:
        error = failure(transport, "/a")
    assert error.fields["never_sent"] is True
    assert error.status is None


def test_what_is_not_http_is_an_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def babble() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")

        thread = threading.Thread(target=babble)
        thread.start()
        with HttpTransport(f"http://127.0.0.1:{listener.getsockname()[1]}", OPTIONS) as transport:
            assert "not HTTP" in failure(transport, "/a").message
        thread.join()


def test_a_name_that_does_not_exist_is_an_error() -> None:
    with HttpTransport("https://fleet.invalid", OPTIONS) as transport:
        assert failure(transport, "/a").fields["never_sent"] is True


def test_tls_to_a_server_without_it_is_an_error(server: Server) -> None:
    with HttpTransport(server.url.replace("http://", "https://"), OPTIONS) as transport:
        failure(transport, "/a")


PROBLEM = b'{"code": "token_revoked", "title": "No", "detail": "The token was revoked.", "advice": "Enrol again."}'


@pytest.mark.parametrize(
    ("status", "headers", "body", "said", "advice"),
    [
        (401, {"Content-Type": "application/problem+json"}, PROBLEM, "The token was revoked", "Enrol again."),
        (401, {}, b"", "the token is not accepted", "a proxy"),
        (500, {"Content-Type": "text/html; charset=utf-8"}, b"<html>", "a web page", "server's log"),
        (500, {"Content-Type": "application/problem+json"}, b"{", "could not do it", "server's log"),
        (404, {}, b"", "nothing under this address", "address"),
        (301, {"Location": "http://127.0.0.1/"}, b"", "redirects are not followed", ""),
        (429, {"Retry-After": "7"}, b"", "refused", ""),
        (503, {"Content-Type": "application/problem+json"}, b'{"detail": 7}', "could not do it", ""),
    ],
)
def test_every_other_answer_becomes_a_sentence(
    server: Server,
    transport: HttpTransport,
    status: int,
    headers: dict[str, str],
    body: bytes,
    said: str,
    advice: str,
) -> None:
    server.responses["/a"] = reply(status, body, **headers)
    error = failure(transport, "/a")
    assert error.status == status
    assert said in error.message
    assert advice in error.advice
    assert error.retry_after_seconds == (7 if "Retry-After" in headers else None)
    assert len(server.asked) == 1


def test_a_token_does_not_follow_a_redirect(server: Server, transport: HttpTransport) -> None:
    server.responses["/a"] = reply(307, b"", Location=f"{server.url}/b")
    server.responses["/b"] = reply(200, b"{}")
    with pytest.raises(TransportError):
        call_json(transport, Request("POST", "/a", bearer("secret"), b""))
    assert [path for _, path, _, _ in server.asked] == ["/a"]


@pytest.mark.parametrize("body", [b"<html>", b"", b"[1]", b"[" * 100_000, b"\xff"])
def test_what_is_no_json_object_is_an_error(server: Server, transport: HttpTransport, body: bytes) -> None:
    server.responses["/a"] = reply(200, body)
    with pytest.raises(TransportError, match=r"not JSON|a web page"):
        call_json(transport, Request("GET", "/a"))


@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        ("https://fleet.example", True),
        ("http://127.0.0.1:5000", True),
        ("http://127.3.2.1", True),
        ("http://[::1]:5000", True),
        ("http://localhost", True),
        ("http://fleet.example", False),
        ("http://10.0.0.1", False),
        ("http://localhost.evil.example", False),
        ("http://127.0.0.1.evil.example", False),
    ],
)
def test_tokens_travel_over_https_or_loopback(url: str, allowed: bool) -> None:
    if allowed:
        check_server_url(url, allow_insecure_http=False)
    else:
        with pytest.raises(TrustError) as caught:
            HttpTransport(url, OPTIONS)
        assert caught.value.reason == "insecure_http"
    check_server_url(url, allow_insecure_http=True)


@pytest.mark.parametrize("url", ["", "fleet.example", "ftp://fleet.example", "https://"])
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(InputError):
        check_server_url(url, allow_insecure_http=True)


@pytest.mark.parametrize("content", [None, b"", b"no certificate"])
def test_a_ca_file_that_cannot_be_used_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=r"ca\.pem"):
        HttpTransport("https://127.0.0.1:1", dataclasses.replace(OPTIONS, ca_file=path))


def certificate(folder: Path) -> Path:
    """A certificate for 127.0.0.1 that nobody else signed, and its key, in one PEM file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "loopback")])
    now = datetime.now(UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path = folder / "server.pem"
    path.write_bytes(private + built.public_bytes(serialization.Encoding.PEM))
    return path


def test_a_certificate_is_believed_only_when_its_authority_is(server: Server, tmp_path: Path) -> None:
    path = certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.responses["/a"] = reply(200, b"{}")
    url = server.url.replace("http://", "https://")
    with HttpTransport(url, OPTIONS) as transport:
        assert "certificate is not trusted" in failure(transport, "/a").message
    with HttpTransport(url, dataclasses.replace(OPTIONS, ca_file=path)) as transport:
        assert call_json(transport, Request("GET", "/a")) == {}


def test_loopback_is_decided_by_address() -> None:
    assert not is_loopback("0.0.0.0")
    assert not is_loopback("example")

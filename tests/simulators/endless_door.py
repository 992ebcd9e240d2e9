"""A door in front of a real server that forwards every request, until told to answer one path without end."""

from __future__ import annotations

import contextlib
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_HOP_BY_HOP = ("connection", "content-length", "date", "server", "transfer-encoding")


class EndlessDoor(ThreadingHTTPServer):
    """Forwards to ``upstream``; paths that end with ``endless`` (None: none) are answered until the client leaves."""

    daemon_threads = True

    def __init__(self, upstream: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.upstream = upstream
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.endless: str | None = None
        self.left = threading.Event()
        self.sent = 0

    def handle_error(self, request, client_address):  # type: ignore[no-untyped-def]
        pass  # a client that leaves is what this is for


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: EndlessDoor

    def respond(self) -> None:
        if self.server.endless is not None and self.path.endswith(self.server.endless):
            self._answer_without_end()
        else:
            self._forward()

    def _answer_without_end(self) -> None:
        self.close_connection = True
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        try:
            while True:
                self.server.sent += self.wfile.write(b" " * 65_536)
        except OSError:
            self.server.left.set()

    def _forward(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)) or None
        headers = {name: value for name, value in self.headers.items() if name.lower() not in (*_HOP_BY_HOP, "host")}
        asked = urllib.request.Request(self.server.upstream + self.path, body, headers, method=self.command)
        try:
            answer = urllib.request.urlopen(asked, timeout=30)
        except urllib.error.HTTPError as error:
            answer = error
        with answer:
            content = answer.read()
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            if name.lower() not in _HOP_BY_HOP:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = respond  # noqa: N815
    do_POST = respond  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def endless_door(upstream: str) -> Iterator[EndlessDoor]:
    """Open a door in front of a server."""
    with EndlessDoor(upstream) as door:
        thread = threading.Thread(target=door.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield door
        finally:
            door.shutdown()
            thread.join()

"""The simulated server behind a real socket on loopback, for command lines and processes."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from simulators.repository import RepositorySimulator

from edge_runtime.errors import TransportError
from edge_runtime.transport import Request


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, simulator: RepositorySimulator) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.simulator = simulator
        self.lock = threading.Lock()

    def handle_error(self, request, client_address):  # type: ignore[no-untyped-def]
        pass  # a killed client is what some tests are about


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def respond(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {name.title(): value for name, value in self.headers.items()}
        request = Request(self.command, self.path, headers, body or None)
        try:
            with self.server.lock, self.server.simulator.exchange(request) as answer:
                content = b"".join(answer.chunks)
        except TransportError:
            self.close_connection = True
            return
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        if answer.status != 204:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if answer.status != 204:
            self.wfile.write(content)

    do_GET = respond  # noqa: N815
    do_POST = respond  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def served(simulator: RepositorySimulator) -> Iterator[str]:
    """Serve a simulator; its ``server_url`` becomes the address, which is yielded too."""
    with _Server(simulator) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        simulator.server_url = f"http://127.0.0.1:{server.server_port}"
        try:
            yield simulator.server_url
        finally:
            server.shutdown()
            thread.join()

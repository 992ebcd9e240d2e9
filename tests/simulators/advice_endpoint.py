"""An OpenAI-compatible endpoint that lives in a thread, counts its calls, and misbehaves when a test says so."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

GOOD = "The device vibrates more than healthy ones do.\n\nA bearing may be worn.\n\nCheck the mounting of the sensor first."


def completion(content: Any) -> bytes:
    """A chat completion that says something."""
    return json.dumps(
        {"id": "1", "choices": [{"index": 0, "message": {"role": "assistant", "content": content}}]}
    ).encode()


class AdviceEndpoint(ThreadingHTTPServer):
    """What it answers: ``status``, ``body`` and ``headers``; ``delay`` before it, ``drip`` between its bytes."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}/v1"
        self.status, self.body, self.headers = 200, completion(GOOD), {"Content-Type": "application/json"}
        self.delay = self.drip = 0.0
        self.endless = False
        self.calls: list[dict[str, Any]] = []
        self.lock = threading.Lock()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that gave up is what tests are about."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: AdviceEndpoint

    def do_POST(self) -> None:
        sent = self.rfile.read(int(self.headers["Content-Length"]))
        call = {"path": self.path, "key": self.headers.get("Authorization"), "body": json.loads(sent)}
        with self.server.lock:
            self.server.calls.append(call)
        time.sleep(self.server.delay)
        self.send_response(self.server.status)
        for name, value in self.server.headers.items():
            self.send_header(name, value)
        if self.server.endless:
            self.send_header("Connection", "close")
            self.end_headers()
            while True:
                self.wfile.write(b" " * 8192)
        self.send_header("Content-Length", str(len(self.server.body)))
        self.end_headers()
        if not self.server.drip:
            self.wfile.write(self.server.body)
            return
        for byte in self.server.body:
            self.wfile.write(bytes([byte]))
            self.wfile.flush()
            time.sleep(self.server.drip)

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def advice_endpoint() -> Iterator[AdviceEndpoint]:
    """Serve on a free port of this machine until the block ends."""
    with AdviceEndpoint() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()

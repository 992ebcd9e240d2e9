"""The page gets a host of its own: a browser that keeps it in the operators' origin lets it go."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import ClassVar

import pytest
from playwright.sync_api import BrowserContext

from sync_server.web_assets import hosts

WORKER = "/device/service-worker.js"
# A page as a browser keeps it: its worker answers for it, whatever the server says.
KEEPING = b"""
self.addEventListener("install", (event) => event.waitUntil(caches.open("page-1")));
self.addEventListener("activate", (event) => event.waitUntil(self.clients.claim()));
self.addEventListener("fetch", (event) => event.respondWith(new Response("kept")));
"""


class Site(BaseHTTPRequestHandler):
    """Serves a worker, and one word for everything else."""

    worker: ClassVar[bytes] = KEEPING

    def do_GET(self) -> None:
        script = self.path == WORKER
        body = self.worker if script else b"served"
        self.send_response(200)
        self.send_header("Content-Type", "text/javascript" if script else "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def address(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a site; its worker is put back afterwards."""
    monkeypatch.setattr(Site, "worker", KEEPING)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Site)
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_kept_page_leaves(address: str, window: Callable[..., BrowserContext]) -> None:
    page = window().new_page()
    page.goto(f"{address}/device/")
    page.evaluate(f"navigator.serviceWorker.register('{WORKER}')")
    page.wait_for_function("navigator.serviceWorker.controller !== null")
    page.reload()
    assert page.inner_text("body") == "kept"
    Site.worker = hosts._MOVED_WORKER.read_bytes()
    page.evaluate("void navigator.serviceWorker.getRegistration().then((found) => found.update())")
    page.wait_for_function("document.body.innerText === 'served'")
    assert page.evaluate("caches.keys()") == []
    page.wait_for_function("navigator.serviceWorker.getRegistrations().then((all) => all.length === 0)")

"""The device's transport straight into the server's app: the real uploader against the real ingest, without a socket."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from flask.testing import FlaskClient

from edge_runtime.transport import Answer, Request


@dataclass
class AppTransport:
    """Implements :class:`edge_runtime.transport.Transport`."""

    client: FlaskClient
    server_url: str = "http://app.test"

    @contextlib.contextmanager
    def exchange(self, request: Request) -> Iterator[Answer]:
        answer = self.client.open(request.path, method=request.method, headers=dict(request.headers), data=request.body)
        headers = {name.lower(): value for name, value in answer.headers.items()}
        yield Answer(answer.status_code, headers, iter([answer.data]))

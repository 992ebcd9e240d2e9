"""The least that gunicorn can do for a poll: a WSGI app that says the same bytes, and looks at nothing but the path.

``RAW_POLLS`` names a JSON file with the answers: path to status line, headers and body.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

_ANSWERS = {
    path: (status, [tuple(header) for header in headers], body.encode())
    for path, (status, headers, body) in json.loads(Path(os.environ["RAW_POLLS"]).read_text("utf-8")).items()
}


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Say what the file holds for the path; with any If-None-Match at all, 304."""
    status, headers, body = _ANSWERS[environ["PATH_INFO"]]
    if "HTTP_IF_NONE_MATCH" in environ and status.startswith("200"):
        start_response("304 NOT MODIFIED", [one for one in headers if one[0] != "Content-Length"])
        return ()
    start_response(status, headers)
    return (body,)

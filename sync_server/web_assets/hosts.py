"""A host of its own for the device's page, so that it shares no origin with an operator's log-in.

With the setting ``device_page_url``, that host answers what a device needs and nothing else, and every other host sends
``/device/`` there. Cookies of operators are bound to the host that set them, so none ever reaches the page's. Browsers
that visited before keep the page in the operators' origin by its service worker, which takes no redirect for an answer:
they get a worker that takes itself and what it kept away.
"""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urlsplit

from flask import Blueprint, Response, redirect, request
from werkzeug.wrappers import Response as BaseResponse

from edge_runtime.contract import routes
from sync_server.app_state import get_config
from sync_server.errors import RequestError

blueprint = Blueprint("device_host", __name__)

PAGE = "/device/"
_WORKER = f"{PAGE}service-worker.js"
_MOVED_WORKER = Path(__file__).with_name("moved_worker.js")
_ANSWERED = (routes.DEVICES, routes.RESULTS, routes.DEVICE_STATUS, routes.HEALTH, PAGE.rstrip("/"))
_ANSWERED_BELOW = (PAGE, routes.METADATA, routes.TARGETS)
_PORT = re.compile(r":[0-9]*\Z")  # an IPv6 address ends with a bracket


def host_name(host: str) -> str:
    """Return the name in a Host header: lower case and without a port, which proxies leave out and cookies ignore."""
    return _PORT.sub("", host.lower())


@blueprint.before_app_request
def _keep_hosts_apart() -> BaseResponse | None:
    """Answer only the device's doors on the device's host, and its page nowhere else."""
    url = get_config().device_page_url
    if url is None:
        return None
    if host_name(request.host) != host_name(urlsplit(url).netloc):
        return _answer_elsewhere(url)
    if request.path == "/":
        return redirect(PAGE)
    if request.path in _ANSWERED or request.path.startswith(_ANSWERED_BELOW):
        return None
    raise RequestError(404, "not_found", "This host answers devices only.", advice=f"Open {PAGE} for the device.")


def _answer_elsewhere(url: str) -> BaseResponse | None:
    """Send the page's addresses to its own host at ``url``; None for what the operators' host answers itself."""
    if request.path == _WORKER:
        worker = Response(_MOVED_WORKER.read_bytes(), content_type="text/javascript; charset=utf-8")
        worker.headers["Cache-Control"] = "no-cache"
        return worker
    elsewhere = request.path == PAGE.rstrip("/") or request.path.startswith(PAGE)
    return redirect(url.rstrip("/") + request.path) if elsewhere else None

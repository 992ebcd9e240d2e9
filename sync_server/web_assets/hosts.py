"""A host of its own for the device's page, so that it shares no origin with an operator's log-in.

With the setting ``device_page_url``, that host answers what a device needs and nothing else, and every other host sends
``/device/`` there. Cookies of operators are bound to the host that set them, so none ever reaches the page's.
"""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from flask import Blueprint, redirect, request
from werkzeug.wrappers import Response as BaseResponse

from edge_runtime.contract import routes
from sync_server.app_state import get_config
from sync_server.errors import RequestError

blueprint = Blueprint("device_host", __name__)

PAGE = "/device/"
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
        elsewhere = request.path == PAGE.rstrip("/") or request.path.startswith(PAGE)
        return redirect(url.rstrip("/") + request.path) if elsewhere else None
    if request.path == "/":
        return redirect(PAGE)
    if request.path in _ANSWERED or request.path.startswith(_ANSWERED_BELOW):
        return None
    raise RequestError(404, "not_found", "This host answers devices only.", advice=f"Open {PAGE} for the device.")

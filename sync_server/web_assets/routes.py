"""``/device/``: a device in the browser; ``/static/built/``: the dashboard's scripts."""

from __future__ import annotations

from pathlib import Path

import msgspec
from flask import Blueprint, Response, redirect, send_from_directory
from werkzeug.wrappers import Response as BaseResponse

from edge_runtime.contract.names import check_name
from sync_server.app_state import get_config
from sync_server.web_assets.built import dashboard_entry, dashboard_files, device_files

blueprint = Blueprint("web_assets", __name__)

# The page may run its own scripts and the wasm runtime, talk to the server it came from, and nothing else. It is a
# file, since the build writes it into the service worker, too, which answers for the page without a network.
DEVICE_HEADERS = msgspec.json.decode(Path(__file__).with_name("page_headers.json").read_bytes(), type=dict[str, str])


@blueprint.app_context_processor
def _template_names() -> dict[str, object]:
    """Give every template ``dashboard_entry(source)``."""
    return {"dashboard_entry": dashboard_entry}


@blueprint.get("/device")
def device_without_slash() -> BaseResponse:
    """Send people who forgot the slash on."""
    return redirect("/device/", 308)


@blueprint.get("/device/", defaults={"name": "index.html"})
@blueprint.get("/device/<path:name>")
def device_file(name: str) -> Response:
    """Serve the page and what belongs to it; workers take their policy from their own answer, so all carry it."""
    response = device_files().answer(name)
    response.headers.update(DEVICE_HEADERS)
    return response


@blueprint.get("/device/recordings/<model>.csv")
def recording(model: str) -> Response:
    """Serve telemetry that an operator put into the data folder for browsers to replay; it is public.

    The page reads it as `edge-runtime score --input` would: a column ``timestamp`` and one a signal.
    """
    response = send_from_directory(
        get_config().data_dir / "recordings", f"{check_name('model', model)}.csv", mimetype="text/csv"
    )
    response.headers["Cache-Control"] = "no-cache"
    return response


@blueprint.get("/static/built/<path:name>")
def dashboard_file(name: str) -> Response:
    """Serve a script of the dashboard."""
    return dashboard_files().answer(name)

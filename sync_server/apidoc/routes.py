"""``/apidoc`` and ``/apidoc/openapi.json``: open to everybody, since they hold nothing that the code does not say."""

from __future__ import annotations

from typing import Any, cast

import msgspec
from flask import Blueprint, Flask, Response, current_app, render_template

from sync_server.apidoc.document import document

blueprint = Blueprint("apidoc", __name__, template_folder="templates")


def _document() -> dict[str, Any]:
    """The document of this app, made when it is first asked for: it costs some milliseconds and never changes."""
    made = current_app.extensions.get("openapi")
    if made is None:
        made = current_app.extensions["openapi"] = document(cast("Flask", current_app._get_current_object()))  # type: ignore[attr-defined]
    return cast("dict[str, Any]", made)


@blueprint.get("/apidoc/openapi.json")
def openapi_json() -> Response:
    """Return the OpenAPI document."""
    return Response(msgspec.json.encode(_document()), content_type="application/json")


@blueprint.get("/apidoc")
def page() -> str:
    """Show the API to people; rendered here, so that nothing is fetched from elsewhere."""
    return render_template("apidoc.html", spec=_document())

"""``/devices/add-browser``: a link, also as a QR code, that turns the browser which opens it into a device."""

from __future__ import annotations

import io

from flask import Blueprint, Response, make_response, render_template, request

from sync_server.access.guard import current_actor, login_required
from sync_server.app_state import get_config
from sync_server.db import session_scope
from sync_server.devices.enrolment import browser_link, create_enrolment
from sync_server.errors import RequestError
from sync_server.repository.metadata import enrolment_facts
from sync_server.rollouts.models import rollouts_by_channel

blueprint = Blueprint("add_browser", __name__)

LASTS_DAYS = 1


@blueprint.get("/devices/add-browser")
@login_required
def choose() -> str:
    """Ask which channel the browser is to follow."""
    with session_scope() as session:
        channels = {name: rollout.model for name, rollout in rollouts_by_channel(session).items()}
    return render_template("add_browser.html", channels=channels, link=None, chosen=request.args.get("channel"))


@blueprint.post("/devices/add-browser")
@login_required
def add() -> Response:
    """Make a link for one browser and show it this once."""
    actor = current_actor()
    if actor.kind != "ops":
        raise RequestError(403, "wrong_kind", "A viewer may look, and not add devices.", advice="Ask an operator.")
    channel = request.form.get("channel", "")
    with session_scope() as session:
        rollout = rollouts_by_channel(session).get(channel)
        if rollout is None:
            raise RequestError(
                422, "no_channel", f"There is no channel {channel[:64]!r}.", advice="Choose one from the list."
            )
        root_digest, targets_version = enrolment_facts(session)
        line = create_enrolment(
            session, model=rollout.model, channel=channel, uses=1, expires_days=LASTS_DAYS,
            url=get_config().device_address, root_digest=root_digest, targets_version=targets_version,
            actor=actor.label, kind="demo",
        )  # fmt: skip
    link = browser_link(line)
    response = make_response(
        render_template("add_browser.html", link=link, code=_qr_code(link), channel=channel, model=rollout.model)
    )
    response.headers["Cache-Control"] = "no-store"
    return response


def _qr_code(content: str) -> str:
    """Return a QR code as an SVG element without a style of its own, which the pages' policy would refuse."""
    import segno

    drawing = io.BytesIO()
    segno.make(content, error="m").save(
        drawing, kind="svg", xmldecl=False, svgns=False, omitsize=True, svgclass="qr", lineclass=None, border=4,
        light="#fff", title="QR code of the link",
    )  # fmt: skip
    return drawing.getvalue().decode()

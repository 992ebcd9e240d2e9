"""Pages of releases and rollouts: what runs where, how its gates stand, and what a person may do about it."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, redirect, render_template, request
from werkzeug.wrappers import Response as BaseResponse

from edge_runtime.contract.names import check_name
from sync_server.access.guard import current_actor, login_required
from sync_server.app_state import get_online_key
from sync_server.dashboard.releases import channels, releases
from sync_server.dashboard.rollout_plots import gate_plots
from sync_server.db import session_scope, utc_now
from sync_server.errors import RequestError
from sync_server.rollouts.progress import progress
from sync_server.rollouts.requests import MAX_NOTE_CHARACTERS, Advance, Change, Pause, Resume, RollBack
from sync_server.rollouts.service import change_rollout

blueprint = Blueprint("rollout_pages", __name__)

REFRESH_SECONDS = 60
_LOOKS_LISTED = 24


@blueprint.get("/rollouts")
@login_required
def rollouts() -> str:
    """List channels with their rollouts, and releases."""
    with session_scope() as session:
        return render_template(
            "rollouts.html", channels=channels(session), releases=releases(session), refresh=REFRESH_SECONDS
        )


@blueprint.get("/rollouts/<channel>")
@login_required
def rollout(channel: str) -> str:
    """Show one channel's rollout: stages, gates live, devices that are late, what was done."""
    check_name("channel", channel)
    with session_scope() as session:
        shown = progress(session, channel, utc_now())
        standing = next(row for row in channels(session) if row["name"] == channel)
    return render_template(
        "rollout.html",
        **shown,
        standing=standing,
        plots=gate_plots(shown["looks"], shown["steps"]),
        listed=shown["looks"][: -_LOOKS_LISTED - 1 : -1],
        actions=_possible(shown),
        note_characters=MAX_NOTE_CHARACTERS,
        refresh=REFRESH_SECONDS,
        now=utc_now(),
    )


@blueprint.post("/rollouts/<channel>")
@login_required
def change(channel: str) -> BaseResponse:
    """Pause, resume, advance or roll back from the page's forms, and show the page again."""
    check_name("channel", channel)
    actor = current_actor()
    if actor.kind != "ops":
        raise RequestError(403, "wrong_kind", "A viewer may look, and not decide.", advice="Ask an operator.")
    wanted = _wanted(request.form)
    with session_scope() as session:
        change_rollout(session, get_online_key(), channel, wanted, actor=actor.label, now=utc_now())
    return redirect(f"/rollouts/{channel}", 303)


def _possible(shown: dict[str, Any]) -> tuple[str, ...]:
    """Return what a person may do now, as names of the page's forms."""
    state, run, plan = shown["rollout"]["state"], shown["run"], shown["plan"]
    if state == "rolled_back":
        return ()
    if state == "paused":
        return ("resume", "roll_back")
    more = plan is not None and run["outcome"] is None and run["stage"] + 1 < len(plan["stages"])
    return ("pause", *(("advance",) if more else ()), "roll_back")


def _wanted(form: Any) -> Change:
    """Return the change that a form asks for.

    Raises:
        RequestError: 422 for another action, a note that is missing or too long, a roll-back that was not confirmed.
    """
    action, note = form.get("action", ""), " ".join(form.get("note", "").split())
    if not note or len(note) > MAX_NOTE_CHARACTERS:
        raise RequestError(
            422, "bad_note", f"A reason of 1 to {MAX_NOTE_CHARACTERS} characters is needed.",
            advice="Say in a few words why; it stays in the audit trail.",
        )  # fmt: skip
    if action == "roll_back" and form.get("sure") != "yes":
        raise RequestError(
            422,
            "not_confirmed",
            "The roll-back was not confirmed.",
            advice="Go back and tick the box.",
        )
    if action == "advance":
        return Advance(from_stage=_stage(form.get("from_stage", "")), note=note)
    simple: dict[str, type[Pause | Resume | RollBack]] = {"pause": Pause, "resume": Resume, "roll_back": RollBack}
    if action not in simple:
        raise RequestError(422, "bad_action", f"There is no action {action[:20]!r}.", advice="Load the page again.")
    return simple[action](note=note)


def _stage(content: str) -> int:
    if not (content.isascii() and content.isdigit() and len(content) <= 3):
        raise RequestError(422, "bad_action", "The form names no stage.", advice="Load the page again.")
    return int(content)

"""Steer which devices get which release: the rollout of a channel, asked of the server.

The server signs rollouts into timestamp.json; what release keys bind (model, channels, floor) it cannot change.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from edge_runtime.contract import routes
from edge_runtime.contract.names import check_name
from edge_runtime.contract.rollout import BUCKETS, Rollout
from edge_runtime.errors import InputError, TransportError
from exporter.server import Answer, Server


def change_channel(server: Server, channel: str, change: dict[str, Any]) -> Rollout:
    """Start, grow, widen, pause, resume or roll back the rollout of a channel.

    Args:
        server: The server, with a publisher or operator token.
        channel: The channel.
        change: The request: ``action`` and what belongs to it.

    Returns:
        The rollout as the server signs it now.

    Raises:
        TransportError: No answer, or a refusal.
        ContractError: The channel is no name, or the answer no rollout.
    """
    path = routes.CHANNELS + check_name("channel", channel)
    body = json.dumps(change).encode()
    return _rollout(server.send("PUT", path, body, "application/json"), f"PUT {path}")


def show_channel(server: Server, channel: str) -> Rollout:
    """Return the rollout of a channel.

    Raises:
        TransportError: No answer, or a refusal.
        ContractError: The channel is no name, or the answer no rollout.
    """
    path = routes.CHANNELS + check_name("channel", channel)
    return _rollout(server.get(path), f"GET {path}")


def show_progress(server: Server, channel: str) -> dict[str, Any]:
    """Return how the rollout of a channel goes: its plan, where it stands, what its gates found, its devices.

    Raises:
        TransportError: No answer, or a refusal.
        ContractError: The channel is no name.
    """
    path = f"{routes.CHANNELS}{check_name('channel', channel)}/progress"
    return server.get(path).json(f"GET {path}")


def advance(server: Server, channel: str, *, note: str = "") -> Rollout:
    """Go to the next stage of a rollout's plan without waiting, or end its watch in the last one; safe to repeat.

    Raises:
        TransportError: No answer, or a refusal: it has no plan or is paused.
        ContractError: The channel is no name, or the answer no rollout.
    """
    run = show_progress(server, channel).get("run") or {}
    return change_channel(server, channel, {"action": "advance", "from_stage": run.get("stage", 0), "note": note})


def start_rollout(
    server: Server, channel: str, model: str, release: int, share: int, cohorts: Sequence[str] | None = None,
    *, plan: Mapping[str, Any] | None = None, note: str = "",
) -> Rollout:  # fmt: skip
    """Start a rollout; starting the one that runs already is success, so that a command can be repeated.

    Args:
        server: The server, with a publisher or operator token.
        channel: The channel.
        model: The model.
        release: The release number.
        share: Ten-thousandths of the channel's devices.
        cohorts: Limit it to these; None: all.
        plan: Its stages and gates instead of share and cohorts; an empty one is the server's default.
        note: Why, for the audit trail.

    Raises:
        InputError: The share is out of range.
        TransportError: No answer, or a refusal.
    """
    if not 0 <= share <= BUCKETS:
        raise InputError(f"A share of {share} is out of range.", advice=f"Give 0 to {BUCKETS}, or 0% to 100%.")
    change: dict[str, Any] = {
        "action": "start",
        "model": model,
        "release": release,
        "share": share,
        "cohorts": None if cohorts is None else list(cohorts),
        "note": note,
    }
    if plan is not None:
        change["plan"] = plan
    try:
        return change_channel(server, channel, change)
    except TransportError as error:
        if error.status != 409:
            raise
        # An earlier attempt may have arrived although its answer was lost.
        running = _running(server, channel)
        if running is None or running.state == "rolled_back" or (running.model, running.release) != (model, release):
            raise
        # A plan may have moved it on since.
        who = (share, None if cohorts is None else tuple(sorted(cohorts)))
        if plan is None and (running.share, running.cohorts) != who:
            raise
        return running


def add_cohorts(server: Server, channel: str, cohorts: Sequence[str], *, note: str = "") -> Rollout:
    """Let further cohorts into the running rollout of a channel; one that reaches all reaches them already.

    Raises:
        TransportError: No answer, or a refusal.
    """
    running = show_channel(server, channel)
    if running.cohorts is None:
        return running
    wider = sorted({*running.cohorts, *cohorts})
    return change_channel(server, channel, {"action": "widen", "cohorts": wider, "note": note})


def _running(server: Server, channel: str) -> Rollout | None:
    try:
        return show_channel(server, channel)
    except TransportError:
        return None


def _rollout(answer: Answer, what: str) -> Rollout:
    return Rollout.from_dict(answer.json(what))

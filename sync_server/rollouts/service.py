"""The rules of rollouts: what may follow what on a channel. One signed timestamp comes out of every change.

::

    start ─► running ─► paused ─► running        share, cohorts: only while running, only more
                │          │                     advance: the same, to the next stage of the rollout's plan; in the
                │          │                     last one: the watch ends, and nothing that is signed changes
                └──────────┴─► rolled_back       a new start: only when running at share 10,000 for all cohorts,
                                                 or when rolled back

A channel carries one model. What it runs is ``release``, where it may go back to is ``previous``: the release that the
finished rollout brought, or the one that a rolled-back rollout fell back on. So there are never three. A rollout that
is limited to cohorts has not finished: everybody else runs ``previous``, and would be sent to ``release``, which nobody
chose for them, as the next one's ``previous`` (docs/adr/0009).

Asking for what already is changes nothing and is no error: answers get lost.
"""

from __future__ import annotations

import dataclasses
import secrets
from datetime import datetime

import msgspec
from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from edge_runtime.contract.names import check_name
from edge_runtime.contract.release import custom_of, floor_of
from edge_runtime.contract.rollout import BUCKETS, MAX_CHANNELS, Rollout
from sync_server.access.audit import audit
from sync_server.db import lock_for_transaction
from sync_server.errors import RequestError
from sync_server.repository import metadata
from sync_server.repository.signing import sign_timestamp
from sync_server.rollouts.checks import (
    check_alive,
    check_note,
    check_running,
    check_share,
    check_size,
    checked_cohorts,
    no_channel,
)
from sync_server.rollouts.models import ROLLOUT_IDS, Channel
from sync_server.rollouts.plan import Plan, check_stages
from sync_server.rollouts.requests import Advance, Change, Pause, Resume, RollBack, Share, Start, Widen
from sync_server.rollouts.runs import advanced, finish_if_last, has_plan, record, stage_of

_ACTIONS: dict[type[Change], str] = {
    Start: "start", Share: "share", Widen: "widen", Pause: "pause", Resume: "resume", Advance: "advance",
    RollBack: "roll_back",
}  # fmt: skip


def change_rollout(
    session: Session,
    key: ec.EllipticCurvePrivateKey,
    channel: str,
    change: Change,
    *,
    actor: str,
    now: datetime,
) -> Rollout:
    """Apply a change to a channel, sign the timestamp that tells of it, and audit it; all or nothing.

    Args:
        session: The open transaction.
        key: The online key.
        channel: The channel's name.
        change: What is asked for.
        actor: Who asks, for the audit trail.
        now: The server's clock.

    Returns:
        The channel's rollout afterwards.

    Raises:
        ContractError: The channel's or model's name breaks its rule.
        RequestError: 404 no such channel, 409 the rules above, 422 a value that makes no sense.
        TrustError: The online key is not the one in root.
    """
    check_name("channel", channel)
    check_note(change.note)
    lock_for_transaction(session, metadata.LOCK)
    row = session.get(Channel, channel)
    before = None if row is None else row.to_rollout()
    after = _after(session, channel, before, change)
    if after == before:
        if isinstance(change, Advance):
            finish_if_last(session, after, change, actor=actor, now=now)
        return after
    _check_runs(session, channel, after)
    _store(session, channel, row, after, now)
    sign_timestamp(session, key, now)
    action = _ACTIONS[type(change)]
    record(session, channel, before, after, change, action=action, actor=actor, now=now)
    detail = {"before": None if before is None else before.to_dict(), "after": after.to_dict()}
    audit(
        session,
        actor,
        f"rollout.{action}",
        f"channel:{channel}",
        detail | ({"note": change.note} if change.note else {}),
    )
    return after


def _after(session: Session, channel: str, before: Rollout | None, change: Change) -> Rollout:
    """Return the rollout that a change leads to."""
    if isinstance(change, Start):
        after = _started(session, channel, before, _by_plan(change))
        if change.plan is not None:
            _check_plan(change.plan, after)
        return after
    if before is None:
        raise no_channel(channel)
    if isinstance(change, Advance):
        check_running(channel, before)
        return advanced(session, channel, before, change)
    return _changed(channel, before, change)


def _by_plan(change: Start) -> Start:
    """Return a start with the share and cohorts of its plan's first stage."""
    if change.plan is None:
        return change
    if change.share or change.cohorts is not None:
        raise RequestError(
            422, "plan_and_share", "A start has a plan and a share or cohorts of its own.",
            advice="Say it in the first stage of the plan.",
        )  # fmt: skip
    check_stages(change.plan)
    for stage in change.plan.stages:
        checked_cohorts(stage.cohorts)
    first = change.plan.stages[0]
    return msgspec.structs.replace(change, share=first.share, cohorts=first.cohorts)


def _check_plan(plan: Plan, first: Rollout) -> None:
    """Check what a plan needs of the rollout it is for: a way back, and room in the timestamp for its widest stage."""
    if plan.on_trip == "roll_back" and first.previous is None:
        raise RequestError(
            422, "bad_plan", "The plan rolls back when a gate trips, and there is no release to go back to.",
            advice='Use on_trip = "pause" for the first rollout of a channel.',
        )  # fmt: skip
    for stage in plan.stages:
        check_size(stage_of(first, stage))


def find_rollout(session: Session, channel: str) -> Rollout:
    """Return a channel's rollout.

    Raises:
        RequestError: 404, there is none.
    """
    row = session.get(Channel, channel)
    if row is None:
        raise no_channel(channel)
    return row.to_rollout()


def _started(session: Session, channel: str, before: Rollout | None, change: Start) -> Rollout:
    """Return the new rollout that a start asks for."""
    cohorts = checked_cohorts(change.cohorts)
    check_name("model", change.model)
    check_share(change.share)
    if before is not None:
        same = (before.model, before.release, before.share, before.cohorts, before.state)
        asked = (change.model, change.release, change.share, cohorts, "running")
        if same == asked and has_plan(session, before, change.plan):
            return before
        _check_may_start(channel, before, change)
    elif session.scalar(select(func.count()).select_from(Channel)) == MAX_CHANNELS:
        raise RequestError(409, "too_many_channels", f"There are {MAX_CHANNELS} channels already; no more fit.")
    previous = None if before is None else before.previous if before.state == "rolled_back" else before.release
    number = session.execute(select(ROLLOUT_IDS.next_value())).scalar_one()
    return Rollout(
        id=number,
        model=change.model,
        release=change.release,
        previous=previous,
        share=change.share,
        salt=secrets.token_hex(16),
        state="running",
        cohorts=cohorts,
    )


def _check_may_start(channel: str, before: Rollout, change: Start) -> None:
    """Check that the last rollout of a channel has ended, and that the new one brings something else."""
    if before.state != "rolled_back" and (before.share < BUCKETS or before.state == "paused"):
        raise RequestError(
            409, "rollout_open",
            f"Channel {channel} still rolls out release {before.release} ({before.state}, share {before.share}).",
            advice="Resume it and grow its share to 10000, or roll it back, then start the next one.",
        )  # fmt: skip
    if before.state != "rolled_back" and before.cohorts is not None:
        raise RequestError(
            409, "rollout_limited",
            f"Channel {channel} rolls out release {before.release} to the cohorts {', '.join(before.cohorts)} only; all"
            " other devices would jump to it as the next rollout's previous release.",
            advice="Widen it to all cohorts or roll it back, then start the next one.",
        )  # fmt: skip
    if before.model != change.model:
        raise RequestError(
            409, "other_model", f"Channel {channel} carries the model {before.model}, not {change.model}.",
            advice="Use a channel of its own for each model.",
        )  # fmt: skip
    running = before.previous if before.state == "rolled_back" else before.release
    if change.release == running:
        raise RequestError(409, "same_release", f"Channel {channel} runs release {running} already.")


def _changed(channel: str, before: Rollout, change: Share | Widen | Pause | Resume | RollBack) -> Rollout:
    """Return the rollout after a change of the one that there is."""
    if isinstance(change, RollBack):
        return dataclasses.replace(before, state="rolled_back")
    if isinstance(change, Pause | Resume):
        check_alive(channel, before)
        return dataclasses.replace(before, state="paused" if isinstance(change, Pause) else "running")
    check_running(channel, before)
    if isinstance(change, Widen):
        return dataclasses.replace(before, cohorts=_wider_cohorts(channel, before, change))
    check_share(change.share)
    if change.share < before.share:
        raise RequestError(
            409, "share_shrinks", f"The share of channel {channel} is {before.share} and can only grow.",
            advice="Pause the rollout, or roll it back.",
        )  # fmt: skip
    return dataclasses.replace(before, share=change.share)


def _wider_cohorts(channel: str, before: Rollout, change: Widen) -> tuple[str, ...] | None:
    """Return the cohorts of a widening; none that is in may be left out, as its devices would go back."""
    cohorts = checked_cohorts(change.cohorts)
    left_out = [] if cohorts is None else sorted(set(before.cohorts or ()) - set(cohorts))
    if left_out or (before.cohorts is None and cohorts is not None):
        who = ", ".join(left_out) or "all cohorts"
        raise RequestError(
            409, "cohorts_shrink", f"The rollout on channel {channel} reaches {who} already and can only reach more.",
            advice="Name every cohort that is in, and the new ones; or roll it back.",
        )  # fmt: skip
    return cohorts


def _check_runs(session: Session, channel: str, rollout: Rollout) -> None:
    """Check that devices can run what they are sent to: listed, made for the channel, and above the floor."""
    targets = metadata.current_targets(session)
    floor = floor_of(targets.unrecognized_fields, rollout.model)
    number = rollout.previous if rollout.state == "rolled_back" else rollout.release
    if rollout.state == "paused" or number is None:
        return
    if number < floor:
        raise RequestError(
            409, "below_floor", f"Release {number} of {rollout.model} is below the floor {floor} of the release keys.",
            advice="Use a newer release; pause the rollout to stop it where it is.",
        )  # fmt: skip
    customs = [custom_of(path, target.unrecognized_fields) for path, target in targets.targets.items()]
    found = [custom for custom in customs if (custom.model, custom.release_number) == (rollout.model, number)]
    if not any(channel in custom.channels for custom in found):
        reason = "is not made for" if found else "is not listed, so it cannot run on"
        raise RequestError(
            409, "release_missing" if not found else "wrong_channel",
            f"Release {number} of {rollout.model} {reason} channel {channel}.",
            advice="Publish it for this channel first.",
        )  # fmt: skip


def _store(session: Session, channel: str, row: Channel | None, rollout: Rollout, now: datetime) -> None:
    """Write the channel's row; its entry in the timestamp must keep to its share of the timestamp's size."""
    check_size(rollout)
    if row is None:
        row = Channel(name=channel)
        session.add(row)
    row.rollout_id, row.model, row.release, row.previous = rollout.id, rollout.model, rollout.release, rollout.previous
    row.share, row.salt, row.state = rollout.share, rollout.salt, rollout.state
    row.cohorts = None if rollout.cohorts is None else list(rollout.cohorts)
    row.updated_at = now
    session.flush()

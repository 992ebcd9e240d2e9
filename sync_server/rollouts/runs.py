"""The record of a rollout beside what is signed: its plan, its stage, its segment, its steps.

:func:`record` is called for every change of a channel, in its transaction, whoever asks for it. It decides nothing.
"""

from __future__ import annotations

import dataclasses
from datetime import datetime

import msgspec
from sqlalchemy import select
from sqlalchemy.orm import Session

from edge_runtime.contract.rollout import Rollout
from sync_server.access.audit import audit
from sync_server.errors import RequestError
from sync_server.rollouts.announcing import announce
from sync_server.rollouts.models import RolloutRun, RolloutStep
from sync_server.rollouts.plan import Plan, Stage
from sync_server.rollouts.requests import Advance, Change, Pause, RollBack, Start


def find_run(session: Session, rollout_id: int) -> RolloutRun | None:
    """Return the run of a rollout; None only for one that an older server made after this schema came."""
    return session.get(RolloutRun, rollout_id)


def plan_of(run: RolloutRun) -> Plan | None:
    """Return a run's plan, None when it has none.

    Raises:
        RequestError: 409, a newer server stored it and this one does not know all of it.
    """
    try:
        return None if run.plan is None else Plan.from_stored(run.plan)
    except msgspec.ValidationError as error:
        raise RequestError(
            409, "unknown_plan",
            f"The plan of rollout {run.rollout_id} on channel {run.channel} has something that this server does not"
            f" know ({error}).",
            advice="Use a server of the version that started it; pause or roll back by hand until then.",
        ) from error  # fmt: skip


def has_plan(session: Session, rollout: Rollout, plan: Plan | None) -> bool:
    """Say whether a rollout goes by this plan; none asked for is any."""
    run = None if plan is None else find_run(session, rollout.id)
    return plan is None or (run is not None and plan_of(run) == plan)


def next_stage(run: RolloutRun, rollout: Rollout) -> int | None:
    """Return the number of the next stage that reaches somebody new, None after the last."""
    plan = plan_of(run)
    stages = () if plan is None else plan.stages
    for number in range(run.stage + 1, len(stages)):
        if stage_of(rollout, stages[number]) != rollout:
            return number
    return None


def stage_of(rollout: Rollout, stage: Stage) -> Rollout:
    """Return a rollout as a stage wants it; who is in already stays in, whatever the stage says."""
    share = max(rollout.share, stage.share)
    if rollout.cohorts is None or stage.cohorts is None:
        return dataclasses.replace(rollout, share=share, cohorts=None)
    return dataclasses.replace(rollout, share=share, cohorts=tuple(sorted({*rollout.cohorts, *stage.cohorts})))


def advanced(session: Session, channel: str, before: Rollout, change: Advance) -> Rollout:
    """Return the rollout in its plan's next stage; unchanged in its last one, see :func:`finish_if_last`.

    Raises:
        RequestError: 409, it has no plan.
    """
    run = find_run(session, before.id)
    plan = None if run is None else plan_of(run)
    if run is None or plan is None:
        raise RequestError(
            409, "no_plan", f"The rollout on channel {channel} has no plan.", advice="Give it a share instead."
        )
    if change.from_stage != run.stage:
        return before  # it went on already: the answer to an earlier request was lost, or the time was up
    number = next_stage(run, before)
    return before if number is None else stage_of(before, plan.stages[number])


def finish_if_last(session: Session, rollout: Rollout, change: Advance, *, actor: str, now: datetime) -> None:
    """End the watch when somebody advances out of the last stage; asked twice, once."""
    run = find_run(session, rollout.id)
    if run is None or run.outcome is not None or change.from_stage != run.stage:
        return
    if next_stage(run, rollout) is None:
        finish(session, run, actor=actor, note=change.note, now=now)


def finish(session: Session, run: RolloutRun, *, actor: str, note: str, now: datetime) -> None:
    """End a run after its last stage, and tell of it. Nothing that is signed changes."""
    end(run, "finished", now)
    detail: dict[str, object] = {"note": note} if note else {}
    audit(session, actor, "rollout.finish", f"channel:{run.channel}", {"rollout": run.rollout_id, **detail})
    announce(session, "rollout.finished", run, {"by": actor, **detail})


def record(
    session: Session, channel: str, before: Rollout | None, after: Rollout, change: Change,
    *, action: str, actor: str, now: datetime,
) -> None:  # fmt: skip
    """Keep the run of a rollout in step with what is signed.

    Args:
        session: The transaction of the change.
        channel: The channel's name.
        before: What was signed, None for a channel's first rollout.
        after: What is signed now; differs from ``before``.
        change: What was asked for.
        action: Its name in the audit trail.
        actor: Who asked.
        now: The server's clock.
    """
    run = find_run(session, after.id)
    if run is None:
        _end_open_runs(session, channel, now)
        run = _new_run(channel, after, change.plan if isinstance(change, Start) else None, now)
        session.add(run)
        session.flush()
    elif isinstance(change, RollBack):
        end(run, "rolled_back", now)
    elif isinstance(change, Advance) and before is not None:
        _begin_segment(run, now, stage=next_stage(run, before))
    elif not isinstance(change, Pause):  # by hand: other devices are in now, or it went on after a pause
        run.stage = _stage_reached(run, after)
        _begin_segment(run, now)
    run.trouble = None
    session.add(
        RolloutStep(
            rollout_id=run.rollout_id, at=now, action=action, actor=actor, note=change.note, share=after.share,
            state=after.state, cohorts=None if after.cohorts is None else list(after.cohorts),
        )
    )  # fmt: skip


def _stage_reached(run: RolloutRun, rollout: Rollout) -> int:
    """Return the last stage, from the present one on, that reaches nobody new."""
    plan = plan_of(run)
    stages = () if plan is None else plan.stages
    reached = [n for n in range(run.stage, len(stages)) if stage_of(rollout, stages[n]) == rollout]
    return max(reached, default=run.stage)


def end(run: RolloutRun, outcome: str, now: datetime) -> None:
    """Note how a run ended, once."""
    if run.outcome is None:
        run.outcome, run.ended_at, run.trouble = outcome, now, None


def _new_run(channel: str, rollout: Rollout, plan: Plan | None, now: datetime) -> RolloutRun:
    return RolloutRun(
        rollout_id=rollout.id, channel=channel, model=rollout.model, release=rollout.release, started_at=now,
        plan=None if plan is None else plan.to_dict(), stage=0, segment=0, extra_segments=0, unplanned=False,
        segment_at=now, ticked_at=now, watched_seconds=0.0, looked_seconds=0.0, looks=0,
    )  # fmt: skip


def _end_open_runs(session: Session, channel: str, now: datetime) -> None:
    for run in session.scalars(select(RolloutRun).where(RolloutRun.channel == channel, RolloutRun.outcome.is_(None))):
        end(run, "replaced", now)


def _begin_segment(run: RolloutRun, now: datetime, *, stage: int | None = None) -> None:
    """Begin a segment: of a stage of the plan, or one that nobody planned, within the present stage."""
    run.segment += 1
    run.unplanned = stage is None
    if stage is None:
        run.extra_segments += 1
    else:
        run.stage = stage
    run.segment_at = run.ticked_at = now
    run.watched_seconds = run.looked_seconds = 0.0
    run.looks = 0

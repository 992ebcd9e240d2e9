"""What moves a rollout by its plan: it looks at the gates, advances, pauses or rolls back, and ends the watch.

Upkeep calls :func:`tend` each minute; all it knows is in the database, so it may die anywhere and be run by anybody.

1. **Time.** Only time that the server saw pass counts: each turn adds what passed since the last one, at most the time
   between two looks, and nothing when the clock went back. A server that was off for hours, or whose clock jumped,
   never takes a stage for longer than it was, and after half the hours that make a device silent it gives devices the
   time between two looks to come back. It is added under the lock of every change, to the run as it is then.
2. **Look**, each ``look_minutes`` of that time, while the rollout runs. The figures are read without any lock; then one
   transaction, under the lock of every change, checks that nothing has moved meanwhile, stores what was found and acts.
3. **Act.** A tripped gate pauses or rolls back by policy. When all hold and the stage's least time and devices are
   reached, the next stage begins; after the last one the run is finished.

What goes wrong (the online key is missing or not the one in root, the release is below the floor by now, the plan
is a newer server's) changes nothing, is told with the run as its ``trouble``, and is tried again at the next turn.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy import and_, exists, or_, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from edge_runtime.contract.rollout import BUCKETS, STATES, Rollout
from edge_runtime.errors import StellaError
from sync_server.db import Database, is_away, lock_for_transaction, try_lock_for_transaction
from sync_server.errors import RequestError
from sync_server.repository.metadata import LOCK
from sync_server.rollouts import metrics
from sync_server.rollouts.announcing import announce
from sync_server.rollouts.figures import Scale, read_figures
from sync_server.rollouts.findings import Finding
from sync_server.rollouts.gates import judge
from sync_server.rollouts.models import Channel, RolloutLook, RolloutRun, rollouts_by_channel
from sync_server.rollouts.plan import Plan
from sync_server.rollouts.reach import note_reach, note_silence
from sync_server.rollouts.requests import MAX_NOTE_CHARACTERS, Advance, Pause, RollBack
from sync_server.rollouts.runs import end, finish, next_stage, plan_of
from sync_server.rollouts.service import change_rollout
from sync_server.rollouts.spending import budget

log = logging.getLogger(__name__)

ACTOR = "server"
ReadKey = Callable[[], ec.EllipticCurvePrivateKey]


@dataclass(frozen=True, slots=True)
class _Look:
    """What one look found, before it is stored."""

    findings: list[Finding]
    scale: Scale
    budget: float

    @property
    def verdict(self) -> str:
        """The worst of the gates' verdicts."""
        verdicts = {finding.verdict for finding in self.findings}
        return "tripped" if "tripped" in verdicts else "few" if "few" in verdicts else "holds"

    @property
    def why(self) -> str:
        """The sentences of the gates that tripped."""
        return " ".join(f"Gate {f.gate}: {f.why}" for f in self.findings if f.verdict == "tripped")


def tend(database: Database, read_key: ReadKey, *, now: datetime) -> None:
    """Do what is due for every rollout, see :func:`open_runs`.

    Args:
        database: The database.
        read_key: Returns the online key; read only when something is signed.
        now: The server's clock.
    """
    _measure(database)
    for number in open_runs(database):
        try:
            _tend_one(database, read_key, number, now)
        except StellaError as error:
            _note_trouble(database, number, error)
        except DBAPIError as error:  # a statement of this one failed; a database that is away is everybody's trouble
            if is_away(error):
                raise
            log.exception("rollout %d could not be looked at and will be tried again", number)


def open_runs(database: Database) -> list[int]:
    """Return the ids of the rollouts that have not ended, and of those whose last devices are still on their way."""
    is_signed = exists().where(Channel.rollout_id == RolloutRun.rollout_id)
    on_its_way = and_(RolloutRun.outcome == "finished", RolloutRun.reach_at.is_(None), is_signed)
    statement = select(RolloutRun.rollout_id).where(or_(RolloutRun.outcome.is_(None), on_its_way))
    with database.session() as session:
        return list(session.scalars(statement.order_by(RolloutRun.rollout_id)))


def _tend_one(database: Database, read_key: ReadKey, number: int, now: datetime) -> None:
    """Take one rollout's turn, unless another process is at it."""
    with database.session() as turn:  # holds the lock of the turn, and reads; what is written is committed apart
        if not try_lock_for_transaction(turn, f"rollout:{number}"):
            return
        with database.session() as session:
            run, rollout = _load(session, number)
            if rollout.id == number:
                _note(session, run, rollout, now)
        with database.session() as session:  # what a person changed during these long scans is seen, and kept
            lock_for_transaction(session, LOCK)
            run, rollout = _load(session, number)
            if rollout.id != number:  # a server of an older version started the next one
                end(run, "replaced", now)
                return
            plan = plan_of(run)
            _tick(run, plan, now, counts=rollout.state == "running" and run.outcome is None)
        metrics.STAGE.labels(run.channel).set(run.stage)
        if plan is None or run.outcome is not None or rollout.state != "running" or not _is_look_due(run, plan):
            return
        look = _look(turn, run, rollout, plan, now)
        seen = (run.segment, run.looks, rollout)
        with database.session() as session:
            lock_for_transaction(session, LOCK)
            run, rollout = _load(session, number)
            if (run.segment, run.looks, rollout) == seen:
                _act(session, read_key, run, rollout, plan, look, now)
                run.trouble = None


def _load(session: Session, number: int) -> tuple[RolloutRun, Rollout]:
    run = session.get_one(RolloutRun, number)
    return run, session.get_one(Channel, run.channel).to_rollout()


def _note(session: Session, run: RolloutRun, rollout: Rollout, now: datetime) -> None:
    """Note what scans of all devices tell; nobody else writes these columns."""
    plan = plan_of(run)
    note_reach(session, run, rollout, now)
    if plan is not None:
        note_silence(session, run, rollout, plan.gates.silent.hours, now)


def _tick(run: RolloutRun, plan: Plan | None, now: datetime, *, counts: bool) -> None:
    """Add the time that passed since the last turn, see 1. above."""
    most = timedelta(minutes=plan.look_minutes if plan is not None else 0)
    passed = min(max(now - run.ticked_at, timedelta(0)), most)
    if counts:
        run.watched_seconds += passed.total_seconds()
    if plan is not None and now - run.ticked_at > timedelta(hours=plan.gates.silent.hours) / 2:
        run.looked_seconds = run.watched_seconds  # the next look waits: nobody could come while the server was off
    run.ticked_at = now
    run.segment_at = min(run.segment_at, now)  # a clock that was set back: nothing began later than now


def _is_look_due(run: RolloutRun, plan: Plan) -> bool:
    return run.watched_seconds - run.looked_seconds >= plan.look_minutes * 60


def _look(session: Session, run: RolloutRun, rollout: Rollout, plan: Plan, now: datetime) -> _Look:
    figures, scale = read_figures(session, run, rollout, plan, now)
    may_spend = budget(
        plan.error_rate,
        stage=run.stage,
        stages=len(plan.stages),
        extra=run.extra_segments if run.unplanned else 0,
        look=run.looks + 1,
        planned=max(1, math.ceil(plan.stages[run.stage].minutes / plan.look_minutes)),
    )
    return _Look(judge(figures, plan, may_spend), scale, may_spend)


def _act(
    session: Session, read_key: ReadKey, run: RolloutRun, rollout: Rollout, plan: Plan, look: _Look, now: datetime
) -> None:
    """Store a look and do what follows from it, all or nothing."""
    run.looks += 1
    run.looked_seconds = run.watched_seconds
    session.add(
        RolloutLook(
            rollout_id=run.rollout_id, at=now, stage=run.stage, segment=run.segment, look=run.looks,
            share=rollout.share, budget=look.budget, verdict=look.verdict, devices=look.scale.to_dict(),
            gates=[finding.to_dict() for finding in look.findings],
        )
    )  # fmt: skip
    session.flush()
    if look.verdict == "tripped":
        _stop(session, read_key, run, plan, look, now)
    elif waits_for(run, plan, look.scale.activated, look.verdict) is None:
        _go_on(session, read_key, run, rollout, now)
    _count(run.channel, look)


def waits_for(run: RolloutRun, plan: Plan, activated: int, verdict: str) -> str | None:
    """Say what a stage still waits for, None when it is over.

    Args:
        run: The run.
        plan: Its plan.
        activated: Devices that count and run the release.
        verdict: Of the newest look.
    """
    stage = plan.stages[run.stage]
    if run.watched_seconds < stage.minutes * 60:
        return f"time: {run.watched_seconds / 60:.0f} of {stage.minutes} minutes"
    if verdict == "tripped":
        return "a person: a gate tripped"
    if plan.when_small == "go_on":
        return None
    if activated < stage.devices:
        return f"devices: {activated} of {stage.devices} run the release"
    return "devices: not enough for every gate" if verdict == "few" else None


def _stop(session: Session, read_key: ReadKey, run: RolloutRun, plan: Plan, look: _Look, now: datetime) -> None:
    """Pause or roll back by policy; pause where the way back is closed."""
    why = look.why[:MAX_NOTE_CHARACTERS]
    change: Pause | RollBack = RollBack(note=why) if plan.on_trip == "roll_back" else Pause(note=why)
    try:
        change_rollout(session, read_key(), run.channel, change, actor=ACTOR, now=now)
    except RequestError as error:
        if not isinstance(change, RollBack):
            raise
        log.error("rollout %d cannot be rolled back, so it is paused: %s", run.rollout_id, error)
        change = Pause(note=f"Rolling back was refused: {error.message} {why}"[:MAX_NOTE_CHARACTERS])
        change_rollout(session, read_key(), run.channel, change, actor=ACTOR, now=now)
    did = "paused" if isinstance(change, Pause) else "rolled_back"
    announce(session, "rollout.tripped", run, {"did": did, "why": why, "gates": [f.to_dict() for f in look.findings]})


def _go_on(session: Session, read_key: ReadKey, run: RolloutRun, rollout: Rollout, now: datetime) -> None:
    """Begin the next stage, or end the watch after the last."""
    if next_stage(run, rollout) is None:
        finish(session, run, actor=ACTOR, note="", now=now)
        return
    after = change_rollout(session, read_key(), run.channel, Advance(from_stage=run.stage), actor=ACTOR, now=now)
    announce(session, "rollout.advanced", run, {"share": after.share, "stage": run.stage})


def _note_trouble(database: Database, number: int, error: StellaError) -> None:
    with database.session() as session:
        run = session.get_one(RolloutRun, number)
        metrics.TROUBLE.labels(run.channel).inc()
        if run.trouble != error.message:
            log.error("rollout %d on channel %s stays as it is: %s", number, run.channel, error)
            run.trouble = error.message
            announce(session, "rollout.stuck", run, {"why": error.message})


def _measure(database: Database) -> None:
    """Set the gauges of every channel, whoever changed it last."""
    with database.session() as session:
        rollouts = rollouts_by_channel(session)
    for channel, rollout in rollouts.items():
        metrics.SHARE.labels(channel).set(rollout.share / BUCKETS)
        for state in STATES:
            metrics.STATE.labels(channel, state).set(rollout.state == state)


def _count(channel: str, look: _Look) -> None:
    metrics.LOOKS.labels(channel, look.verdict).inc()
    metrics.DEVICES.labels(channel, "inside").set(look.scale.inside)
    metrics.DEVICES.labels(channel, "outside").set(look.scale.outside)
    for finding in look.findings:
        if finding.verdict == "tripped":
            metrics.TRIPS.labels(channel, finding.gate).inc()

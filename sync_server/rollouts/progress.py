"""``GET /api/channels/<channel>/progress``: the plan, where it stands, what the gates found, what is left to do."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from edge_runtime.contract.rollout import Rollout
from sync_server.rollouts.controller import waits_for
from sync_server.rollouts.maintenance import maintenance
from sync_server.rollouts.models import RolloutLook, RolloutRun, RolloutStep
from sync_server.rollouts.plan import Plan
from sync_server.rollouts.runs import find_run, plan_of
from sync_server.rollouts.service import find_rollout

# Looks an hour apart over two weeks; older ones of a longer rollout are left out.
MAX_LOOKS = 336
MAX_STEPS = 200


def progress(session: Session, channel: str, now: datetime) -> dict[str, Any]:
    """Return how the rollout of a channel goes, JSON-ready.

    Args:
        session: The open transaction.
        channel: The channel's name.
        now: The server's clock.

    Returns:
        ``rollout`` as it is signed; ``plan`` or None; ``run``: ``stage``, ``watched_minutes``, ``waits_for``,
        ``outcome``, ``trouble`` and times; ``looks`` (oldest first, each with its ``gates``); ``steps`` (oldest first);
        ``maintenance``. A rollout without a record has only the first.

    Raises:
        RequestError: 404, there is no rollout.
    """
    rollout = find_rollout(session, channel)
    run = find_run(session, rollout.id)
    answer: dict[str, Any] = {"channel": channel, "rollout": rollout.to_dict(), "plan": None, "run": None}
    if run is None:
        return {**answer, "looks": [], "steps": [], "maintenance": None}
    looks = _newest(session, RolloutLook, run, MAX_LOOKS)
    plan = plan_of(run)
    return {
        **answer,
        "plan": run.plan,
        "run": _standing(run, plan, rollout, looks[-1] if looks else None),
        "looks": [_look(look) for look in looks],
        "steps": [_step(step) for step in _newest(session, RolloutStep, run, MAX_STEPS)],
        "maintenance": maintenance(session, run, rollout, now),
    }


def _newest(session: Session, kind: Any, run: RolloutRun, most: int) -> list[Any]:
    """Return the newest rows of a run, oldest first."""
    statement = select(kind).where(kind.rollout_id == run.rollout_id).order_by(kind.id.desc()).limit(most)
    return list(session.scalars(statement))[::-1]


def _standing(run: RolloutRun, plan: Plan | None, rollout: Rollout, look: RolloutLook | None) -> dict[str, Any]:
    return {
        "started_at": run.started_at,
        "stage": run.stage,
        "stage_began_at": run.segment_at,
        "watched_minutes": round(run.watched_seconds / 60, 1),
        "looks": run.looks,
        "waits_for": _waits_for(run, plan, rollout, look),
        "outcome": run.outcome,
        "ended_at": run.ended_at,
        "trouble": run.trouble,
        "seen_at": run.ticked_at,
    }


def _waits_for(run: RolloutRun, plan: Plan | None, rollout: Rollout, look: RolloutLook | None) -> str | None:
    if plan is None or run.outcome is not None:
        return None
    if rollout.state == "paused":
        return "a person: it is paused"
    if look is None or look.segment != run.segment:
        return "the first look of this stage"
    return waits_for(run, plan, int(look.devices["activated"]), look.verdict) or "the next look"


def _look(look: RolloutLook) -> dict[str, Any]:
    fields = ("at", "stage", "segment", "look", "share", "budget", "verdict", "devices", "gates")
    return {field: getattr(look, field) for field in fields}


def _step(step: RolloutStep) -> dict[str, Any]:
    return {field: getattr(step, field) for field in ("at", "action", "actor", "note", "share", "state", "cohorts")}

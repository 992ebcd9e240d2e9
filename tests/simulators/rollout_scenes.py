"""Stories of small fleets under a plan, told to a real database with a simulated clock."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy import select

from benchmarks.rollout_fleet import Nature, RandomFleet
from benchmarks.rollout_story import CHANNEL, Release, Story
from sync_server.access.models import AuditEntry
from sync_server.db import Database
from sync_server.rollouts.models import RolloutRun
from sync_server.rollouts.plan import Plan, Stage
from sync_server.rollouts.progress import progress
from sync_server.rollouts.requests import Change
from sync_server.rollouts.service import change_rollout

Tell = Callable[..., Story]
# Two stages of eight hours; a look each four.
SHORT = Plan(stages=(Stage(2000, 480), Stage(10_000, 480)), look_minutes=240)


def teller(database: Database, key: ec.EllipticCurvePrivateKey) -> Tell:
    """Return a function that begins a story of a small fleet; ``plan=None`` starts nothing."""

    def begin(devices: int = 120, plan: Plan | None = SHORT, release: Release | None = None, **options: Any) -> Story:
        fleet = RandomFleet(Nature(devices=devices), seed=1)
        story = Story(database, fleet, key, release or Release(), **options)
        if plan is not None:
            story.start(plan)
        return story

    return begin


def do(story: Story, change: Change, actor: str = "ops:alice") -> Any:
    with story.database.session() as session:
        return change_rollout(session, story.key, CHANNEL, change, actor=actor, now=story.now)


def seen(story: Story) -> dict[str, Any]:
    with story.database.session() as session:
        return progress(session, CHANNEL, story.now)


def run_of(story: Story) -> RolloutRun:
    with story.database.session() as session:
        return session.scalars(select(RolloutRun).order_by(RolloutRun.rollout_id.desc()).limit(1)).one()


def audited(story: Story) -> list[tuple[str, str]]:
    with story.database.session() as session:
        rows = session.execute(select(AuditEntry.action, AuditEntry.actor).order_by(AuditEntry.id))
        return [(action, actor) for action, actor in rows if action.startswith("rollout.")]

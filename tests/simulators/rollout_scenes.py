"""Stories of small fleets under a plan, told to a real database with a simulated clock."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from benchmarks.rollout_fleet import Nature, RandomFleet
from benchmarks.rollout_story import Release, Story
from sync_server.db import Database
from sync_server.rollouts.plan import Plan, Stage

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

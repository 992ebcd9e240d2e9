"""A rollout on a random fleet without a database: the gates and budgets alone, hundreds of times.

Time passes in steps of one look. Stages end as the controller ends them; nobody is ever late, fails or falls silent, so
what is measured is what the telemetry alone gives away.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from benchmarks.rollout_fleet import Floats, Nature, RandomFleet, add
from sync_server.rollouts.findings import Counted, Figures
from sync_server.rollouts.gates import judge
from sync_server.rollouts.plan import Plan
from sync_server.rollouts.spending import budget

_LONGEST = 4  # times a stage's least time, for one that waits for devices


@dataclass(frozen=True, slots=True)
class Trial:
    """How a rollout went.

    Attributes:
        tripped: The gates that tripped, none when it came to its end.
        hours: Until then.
        stage: The stage, from 0.
        had_it: Share of the devices that ran the release then.
    """

    tripped: tuple[str, ...]
    hours: float
    stage: int
    had_it: float


def try_out(seed: int, plan: Plan, nature: Nature, *, rise: float = 1.0, slower: float = 1.0) -> Trial:
    """Roll a release out to a fleet of its own.

    Args:
        seed: Of the fleet and the draw.
        plan: The plan.
        nature: What the fleet is like.
        rise: Times as many anomalous windows as the old release.
        slower: Times its latency.
    """
    fleet = RandomFleet(nature, seed)
    before = fleet.count(24)
    for _ in range(6):
        before = add(before, fleet.count(24))
    buckets = fleet.rng.integers(0, 10_000, nature.devices)
    training = np.tile(fleet.training_shares(), (nature.devices, 1))
    hours = 0.0
    for number, stage in enumerate(plan.stages):
        treated = buckets < stage.share
        planned = max(1, math.ceil(stage.minutes / plan.look_minutes))
        now: Counted | None = None
        for look in range(1, _LONGEST * planned + 1):
            step = plan.look_minutes // 60
            counted = fleet.count(step, np.where(treated, rise, 1.0), np.where(treated, slower, 1.0))
            now, hours = counted if now is None else add(now, counted), hours + step
            spend = budget(plan.error_rate, stage=number, stages=len(plan.stages), extra=0, look=look, planned=planned)
            found = judge(_figures(treated, now, before, training), plan, spend)
            tripped = tuple(finding.gate for finding in found if finding.verdict == "tripped")
            if tripped:
                return Trial(tripped, hours, number, float(treated.mean()))
            if look >= planned and (plan.when_small == "go_on" or all(f.verdict == "holds" for f in found)):
                break
    return Trial((), hours, len(plan.stages) - 1, float(treated.mean()))


def _figures(treated: np.typing.NDArray[np.bool_], now: Counted, before: Counted, training: Floats) -> Figures:
    none = np.zeros(len(treated), bool)
    return Figures(treated, treated, none, none, now, before, training, training)

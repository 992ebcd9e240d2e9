"""How much of a rollout's error rate each test may spend, so that all of them together keep to it.

A rollout with no fault may be stopped with probability ``error_rate`` at most, over all gates, looks and stages. Each
test gets a budget, and trips only when its p-value is not above it; by the union bound (Bonferroni) the sum of the
budgets bounds the family-wise error, whatever the tests have to do with each other. Spreading a budget over looks is
alpha spending (Lan and DeMets, Biometrika 70, 1983), with a spending function that grows with time.

- 90 % go to the planned stages, each twice as much as the next: the first one has the fewest devices. 10 % are for the
  segments that nobody planned (after a share by hand, a resume, a widening): the j-th gets 1 / (j (j + 1)) of them.
- Within a segment 80 % go to the planned looks, the k-th of K in proportion to k; 20 % to those that come later because
  the stage has to wait: the j-th gets 1 / (j (j + 1)) of them.
- Within a look each gate has a fixed weight, whether it is on or not.
"""

from __future__ import annotations

from collections.abc import Mapping

WEIGHTS: Mapping[str, float] = {"failures": 0.15, "anomalies": 0.4, "scores": 0.15, "latency": 0.15, "silent": 0.15}
_PLANNED = 0.9
_ON_TIME = 0.8


def _series(number: int) -> float:
    """The terms 1/2, 1/6, 1/12 ... of a series that sums to 1."""
    return 1.0 / (number * (number + 1))


def stage_part(stage: int, stages: int, extra: int) -> float:
    """Return the part of the error rate that one segment may spend.

    Args:
        stage: Number of the stage, from 0.
        stages: Number of stages.
        extra: 0 for the stage's planned segment, else which unplanned one of the rollout it is, from 1.
    """
    if extra:
        return (1 - _PLANNED) * _series(extra)
    return float(_PLANNED * 0.5 ** (stage + 1) / (1 - 0.5**stages))


def look_part(look: int, planned: int) -> float:
    """Return the part of a segment's budget that one look may spend.

    Args:
        look: Number of the look in the segment, from 1.
        planned: Looks that the stage's least time holds.
    """
    if look <= planned:
        return _ON_TIME * 2 * look / (planned * (planned + 1))
    return (1 - _ON_TIME) * _series(look - planned)


def budget(error_rate: float, *, stage: int, stages: int, extra: int, look: int, planned: int) -> float:
    """Return what all gates of one look may spend together."""
    return error_rate * stage_part(stage, stages, extra) * look_part(look, planned)

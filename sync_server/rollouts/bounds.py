"""The statistics of the gates: bounds on p-values that hold for every fleet, however its devices differ.

All are pure functions of numpy arrays, deterministic, and linear in the number of devices. Why these and no others:
docs/adr/0014.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from edge_runtime.contract.histogram import BINS

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

_STEPS = 40  # halvings of the search for the exponent: 1e-12 of its range
_LARGEST_EXPONENT = 512.0
# Added to each bin's share, so that a bin that one side never fills weighs something finite.
_PSI_FLOOR = 1e-4


def randomisation_bound(values: Floats, treated: Flags) -> float:
    """Bound the p-value of "the treated devices' mean is this high by chance".

    Who is treated was drawn: a device's bucket is a hash over a fresh random salt. Were the release the same, every
    device would have the value it has in either group, so the treated are a sample without replacement from the values.
    Hoeffding (JASA 58, 1963, theorem 4) bounds the moments of its sum by those of a sample with replacement, so for
    every a > 0: P(mean >= t) <= (mean(exp(a x)) / exp(a t))^n. The best ``a`` is found by halving; the bound holds for
    any other as well, so that no rounding of the search makes it wrong.

    Args:
        values: [devices], any figure that does not depend on who is treated.
        treated: [devices].

    Returns:
        At most 1; 1 when one group is empty or nothing varies.
    """
    count = int(treated.sum())
    spread = float(values.std()) if len(values) else 0.0
    if count in (0, len(values)) or not spread > 0:
        return 1.0
    x = (values - values.mean()) / spread
    wanted = float(x[treated].mean())
    if wanted <= 0:
        return 1.0
    low, high = 0.0, 1.0
    while high < _LARGEST_EXPONENT and _tilted_mean(x, high) < wanted:
        low, high = high, 2 * high
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if _tilted_mean(x, middle) < wanted else (low, middle)
    largest = float(x.max())
    log_mean = low * largest + math.log(float(np.exp(low * (x - largest)).mean()))
    return min(1.0, math.exp(count * (log_mean - low * wanted)))


def _tilted_mean(x: Floats, exponent: float) -> float:
    weights = np.exp(exponent * (x - x.max()))
    return float(weights @ x / weights.sum())


def binomial_tail(successes: int, trials: int, chance: float) -> float:
    """Return P(X >= successes) for X ~ Binomial(trials, chance), 0 < chance < 1; exact up to rounding."""
    if successes <= 0:
        return 1.0
    counts = np.arange(successes, trials + 1, dtype=np.float64)
    steps = np.log((trials - counts[:-1]) / (counts[:-1] + 1)) + math.log(chance / (1 - chance))
    first = math.lgamma(trials + 1) - math.lgamma(successes + 1) - math.lgamma(trials - successes + 1)
    first += successes * math.log(chance) + (trials - successes) * math.log1p(-chance)
    logs = first + np.concatenate(([0.0], np.cumsum(steps)))
    return min(1.0, math.exp(float(logs.max())) * float(np.exp(logs - logs.max()).sum()))


def less_own_past(now: Floats, before: Floats) -> Floats:
    """Return what of each device's figure its own past does not explain.

    The line of ``now`` over ``before`` is fitted over all devices, whatever their group, so that a test of the
    remainders is as valid as one of the figures themselves, and sharper (Deng et al., WSDM 2013). What all devices
    share, such as a hot day, is in the line's height and falls away. Devices without a past are measured from their own
    mean.

    Args:
        now: [devices], finite.
        before: [devices], NaN without a past.

    Returns:
        [devices].
    """
    rest = np.empty_like(now)
    has_past = np.isfinite(before)
    rest[~has_past] = now[~has_past] - now[~has_past].mean() if (~has_past).any() else 0.0
    if has_past.any():
        y, x = now[has_past] - now[has_past].mean(), before[has_past] - before[has_past].mean()
        squares = float(x @ x)
        rest[has_past] = y - x * (float(x @ y) / squares if squares > 0 else 0.0)
    return rest


def psi(shares: Floats, expected: Floats) -> Floats:
    """Return population stability indices: sum over bins of (p - q) ln(p / q).

    Below 0.1 is read as stable, above 0.25 as another population (Siddiqi, Credit Risk Scorecards, 2006). Each bin gets
    0.0001 before shares are taken.

    Args:
        shares: [..., 15], adding up to 1.
        expected: [..., 15], adding up to 1.
    """
    scale = 1 + BINS * _PSI_FLOOR
    p, q = (shares + _PSI_FLOOR) / scale, (expected + _PSI_FLOOR) / scale
    index: Floats = ((p - q) * np.log(p / q)).sum(axis=-1)
    return index

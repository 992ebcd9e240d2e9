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

_STEPS = 12  # Newton's method is at the tenth digit after six
_LARGEST_EXPONENT = 512.0
# Added to each bin's share, so that a bin that one side never fills weighs something finite.
_PSI_FLOOR = 1e-4


def randomisation_bounds(values: Floats, treated: Flags) -> Floats:
    """Bound the p-values of "the treated devices' mean is this high by chance", one figure a row.

    Who is treated was drawn: a device's bucket is a hash over a fresh random salt. Were the release the same, every
    device would have the value it has in either group, so the treated are a sample without replacement from the values.
    Hoeffding (JASA 58, 1963, theorem 4) bounds the moments of its sum by those of a sample with replacement, so for
    every a > 0: P(mean >= t) <= (mean(exp(a x)) / exp(a t))^n. The best ``a`` is searched by Newton's method; the bound
    holds for every other as well, so that no rounding of the search makes it wrong.

    Args:
        values: [figures, devices], any that do not depend on who is treated.
        treated: [devices].

    Returns:
        [figures], at most 1; 1 where one group is empty or nothing varies.
    """
    count, bounds = int(treated.sum()), np.ones(len(values))
    if count in (0, len(treated)):
        return bounds
    x = values - values.mean(axis=1, keepdims=True)
    spread = x.std(axis=1)
    wanted = x[:, treated].mean(axis=1) / np.where(spread > 0, spread, 1.0)
    rows = np.flatnonzero((spread > 0) & (wanted > 0))
    if len(rows):
        logs = _log_moment_bounds(x[rows] / spread[rows, None], wanted[rows])
        bounds[rows] = np.exp(np.minimum(0.0, count * logs))
    return bounds


def _log_moment_bounds(x: Floats, wanted: Floats) -> Floats:
    """Return min over a > 0 of log(mean(exp(a x))) - a wanted, a row each; ``x`` has mean 0 and spread 1."""
    exponent, best, largest = wanted.copy(), np.zeros(len(x)), x.max(axis=1)
    for _ in range(_STEPS):
        weights = np.exp(exponent[:, None] * (x - largest[:, None]))
        total = weights.sum(axis=1)
        best = np.minimum(best, exponent * (largest - wanted) + np.log(total / x.shape[1]))
        mean = (weights * x).sum(axis=1) / total
        variance = np.maximum((weights * x**2).sum(axis=1) / total - mean**2, 1e-12)
        step = np.clip((wanted - mean) / variance, -exponent / 2, exponent + 1)
        exponent = np.minimum(exponent + step, _LARGEST_EXPONENT)
    return best


def mean_bounds(values: Floats) -> Floats:
    """Bound the p-values of "the mean is this far above 0 by chance", one figure a row.

    The empirical Bernstein bound of Maurer and Pontil (COLT 2009, theorem 4), solved for its probability: for n
    independent values in [-1, 1] of variance V, half the mean is above half the expectation by more than
    sqrt(V log(2/p) / (2 n)) + 7 log(2/p) / (3 (n - 1)) with probability p at most.

    Args:
        values: [figures, devices], in [-1, 1], of devices that do not depend on each other; expected to be 0 at most.

    Returns:
        [figures], at most 1.
    """
    count = values.shape[1]
    if count < 2:
        return np.ones(len(values))
    half_mean = np.maximum(values.mean(axis=1), 0.0) / 2
    linear, root = 7 / (3 * (count - 1)), np.sqrt(values.var(axis=1, ddof=1) / (2 * count))
    logs = ((np.sqrt(root**2 + 4 * linear * half_mean) - root) / (2 * linear)) ** 2
    bounds: Floats = np.minimum(1.0, 2 * np.exp(-logs))
    return bounds


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

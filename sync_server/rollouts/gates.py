"""The gates: does the release behave worse than what it replaces? Pure functions of per-device figures.

Devices are compared **by assignment**: those whose bucket is in the share against those outside of it, whatever each of
them runs. Each device has one vote: its share, its mean, never its number of windows. Where enough devices are outside,
a figure is what a device's own week before does not explain, and the test is one of the draw (``bounds``); where there
are too few, as at the last stage, each device is compared with its own week before, by a sign test with a margin.
Where there is no such week either, as at a channel's first rollout, there is nothing to wait for and the gate says so.

Example::

    findings = judge(figures, plan, budget=1e-4)
    tripped = [finding for finding in findings if finding.verdict == "tripped"]
"""

from __future__ import annotations

import numpy as np

from edge_runtime.contract.histogram import BINS, EDGES
from sync_server.rollouts.bounds import (
    Flags,
    Floats,
    binomial_tail,
    less_own_past,
    mean_bounds,
    psi,
    randomisation_bounds,
)
from sync_server.rollouts.findings import LARGEST_RATIO, Figures, Finding, Sides, few, finding, incomparable
from sync_server.rollouts.plan import Plan
from sync_server.rollouts.spending import WEIGHTS

# A device whose past is much shorter than its present would look worse by chance more often than half the time.
_LEAST_PAST = 0.8
# How much of a rise of the fleet's silence is taken for weather where there is no control.
_SILENT_RISE, _MOST_TOLERATED = 1.5, 0.99


def judge(figures: Figures, plan: Plan, budget: float) -> list[Finding]:
    """Let every gate of a plan that is on look at the figures.

    Args:
        figures: Of the devices that count.
        plan: The settings.
        budget: What all gates of this look may spend of the error rate together.
    """
    gates = plan.gates
    found = []
    if gates.failures.on:
        found.append(_failures(figures, plan, budget * WEIGHTS["failures"]))
    if gates.anomalies.on:
        found.append(_anomalies(figures, plan, budget * WEIGHTS["anomalies"]))
    if gates.scores.on:
        found.append(_scores(figures, plan, budget * WEIGHTS["scores"]))
    if gates.latency.on:
        found.append(_latency(figures, plan, budget * WEIGHTS["latency"]))
    if gates.silent.on:
        found.append(_silent(figures, plan, budget * WEIGHTS["silent"]))
    return found


def _failures(figures: Figures, plan: Plan, budget: float) -> Finding:
    """Compare the devices that cannot activate the release with what is tolerated; outside nobody tries."""
    settings = plan.gates.failures
    sides = Sides(figures.decided & figures.treated, figures.treated, plan.least_devices)
    failed = int((figures.failed & sides.counted).sum())
    if sides.inside < sides.least:
        return few("failures", "limit", sides, settings.tolerated)
    share = failed / sides.inside
    return finding(
        "failures", "limit", sides, treated=share, control=settings.tolerated, effect=share,
        limit=settings.tolerated, p=binomial_tail(failed, sides.inside, settings.tolerated), budget=budget,
        says=f"{failed} of {sides.inside} devices could not activate it; {settings.tolerated:.1%} are tolerated.",
        least_count=failed >= settings.least_count,
    )  # fmt: skip


def _shares(part: Floats, whole: Floats, least: float) -> Floats:
    """Return part / whole per device, NaN where the whole is too small."""
    enough = whole >= least
    return np.where(enough, part / np.where(enough, whole, 1), np.nan)


def _anomalies(figures: Figures, plan: Plan, budget: float) -> Finding:
    now = _shares(figures.now.anomalous, figures.now.windows, plan.least_windows)
    before = _shares(figures.before.anomalous, figures.before.windows, plan.least_windows)
    settings = plan.gates.anomalies
    sides = Sides(np.isfinite(now), figures.treated, plan.least_devices)
    if not sides.has_control:
        worse = now > settings.own_week_ratio * before
        better = now < settings.own_week_ratio * before  # equal: both are zero, and say nothing
        return _against_own_week("anomalies", figures, plan, worse, better, settings.own_week_ratio, budget)
    if sides.inside < sides.least:
        return few("anomalies", "control", sides, settings.ratio)
    # Square roots: counts vary in proportion to their size, and one stormy device must not hide all others.
    rest = less_own_past(np.sqrt(now[sides.counted]), np.sqrt(before[sides.counted]))
    treated, control = sides.means(now)
    ratio = _rise(now, before, sides)
    return finding(
        "anomalies", "control", sides, treated=treated, control=control, effect=ratio, limit=settings.ratio,
        p=_bound(rest, figures.treated[sides.counted]), budget=budget,
        says=f"Anomalous windows: {treated:.2%} of a device's, {control:.2%} outside; {ratio:.2f} times as many, by"
        " these or by what their week before lets expect.",
    )  # fmt: skip


def _rise(now: Floats, before: Floats, sides: Sides) -> float:
    """Return how much more the treated have than the others: now, or over what they had before if that is more.

    These are means of all devices, so a single one that was stormy in its week before makes the second small; whether
    it is chance does not rest on either of them.
    """
    plain = _ratio(*sides.means(now))
    past = Sides(sides.counted & np.isfinite(before), sides.treated, 1)
    if past.inside < sides.least or past.outside < sides.least:
        return plain
    return max(plain, _ratio(_ratio(*past.means(now)), _ratio(*past.means(before))))


def _ratio(above: float, below: float) -> float:
    if below > 0:
        return min(above / below, LARGEST_RATIO)
    return LARGEST_RATIO if above > 0 else 1.0


def _against_own_week(
    gate: str,
    figures: Figures,
    plan: Plan,
    worse: Flags,
    better: Flags,
    margin: float,
    budget: float,
) -> Finding:
    """Let each treated device vote: worse than its own week by the margin, or not; half of them may be by chance."""
    long_enough = figures.before.windows >= np.maximum(plan.least_windows, _LEAST_PAST * figures.now.windows)
    scoring = figures.treated & (figures.now.windows >= plan.least_windows)
    counted = scoring & long_enough
    sides = Sides(counted & (worse | better), figures.treated, plan.least_devices)
    if int(counted.sum()) < sides.least:
        return _too_few(gate, figures, scoring, long_enough, plan.least_devices, margin)
    votes = int((worse & counted).sum())
    share = votes / sides.inside if sides.inside else 0.0
    return finding(
        gate, "own_week", sides, treated=share, control=0.5, effect=share, limit=0.5,
        p=binomial_tail(votes, sides.inside, 0.5), budget=budget,
        says=f"{votes} of {sides.inside} devices are worse than their own week before by more than {margin:g}.",
    )  # fmt: skip


def _too_few(gate: str, figures: Figures, scoring: Flags, has_past: Flags, least: int, limit: float) -> Finding:
    """Say whether time can bring devices to compare, or a control; a past it cannot bring."""
    counted = Sides(scoring & has_past, figures.treated, least)
    may_have_control = figures.replaces and Sides(np.ones_like(scoring), figures.treated, least).has_control
    if may_have_control or int(scoring.sum()) < least or counted.inside >= least:
        return few(gate, "own_week", counted, limit)
    return incomparable(gate, counted, limit)


def _scores(figures: Figures, plan: Plan, budget: float) -> Finding:
    """Compare score distributions: the index says how much, the shares above each edge whether it is chance."""
    settings = plan.gates.scores
    now = _shares(figures.now.histogram, figures.now.windows[:, None], plan.least_windows)
    before = _shares(figures.before.histogram, figures.before.windows[:, None], plan.least_windows)
    sides = Sides(np.isfinite(now[:, 0]), figures.treated, plan.least_devices)
    if not sides.has_control:
        return _scores_by_own_week(figures, plan, now, before, budget)
    if sides.inside < sides.least:
        return few("scores", "control", sides, settings.psi)
    groups = [now[sides.counted & group].mean(axis=0) for group in (figures.treated, ~figures.treated)]
    index = float(psi(groups[0], groups[1]))
    # An index has no distribution of its own that would hold for few and unlike devices. But two histograms differ
    # when, and only when, the share above some edge does, and for shares there is a bound.
    past = np.sqrt(_above_edges(before[sides.counted]))
    rests = [less_own_past(*pair) for pair in zip(np.sqrt(_above_edges(now[sides.counted])), past, strict=True)]
    edge, p = _clearest(randomisation_bounds(_both_ways(np.array(rests)), figures.treated[sides.counted]))
    known = sides.counted & figures.treated & np.isfinite(figures.training_now[:, 0])
    return finding(
        "scores", "control", sides, treated=index, control=None, effect=index, limit=settings.psi, p=p, budget=budget,
        says=f"Score distributions differ by a stability index of {index:.3f}, clearest at a score of {edge:g}.",
        training=_mean_index(now, figures.training_now, known) if known.any() else None,
    )  # fmt: skip


def _scores_by_own_week(figures: Figures, plan: Plan, now: Floats, before: Floats, budget: float) -> Finding:
    """Compare the index against the training histogram with that of the week before, over the devices' mean histograms.

    The index of a single device is no vote: of few windows, or of windows in bursts, it is large by chance.
    """
    limit = plan.gates.scores.training_psi
    known = np.isfinite(figures.training_now[:, 0]) & np.isfinite(figures.training_before[:, 0])
    scoring, has_past = figures.treated & np.isfinite(now[:, 0]), np.isfinite(before[:, 0])
    counted = scoring & has_past & known
    sides = Sides(counted, figures.treated, plan.least_devices)
    if sides.inside < sides.least:
        has_past &= np.isfinite(figures.training_before[:, 0])
        return _too_few("scores", figures, scoring, has_past, sides.least, limit)
    index = _mean_index(now, figures.training_now, counted)
    past = _mean_index(before, figures.training_before, counted)
    edge, p = _clearest(mean_bounds(_both_ways(_above_edges(now[counted]) - _above_edges(before[counted]))))
    return finding(
        "scores", "own_week", sides, treated=index, control=past, effect=index - past, limit=limit, p=p, budget=budget,
        says=f"Stability index against the training histogram: {index:.3f}, {past:.3f} in their own week before,"
        f" clearest at a score of {edge:g}.",
        training=index,
    )  # fmt: skip


def _mean_index(shares: Floats, training: Floats, counted: Flags) -> float:
    return float(psi(shares[counted].mean(axis=0), training[counted].mean(axis=0)))


def _above_edges(shares: Floats) -> Floats:
    """Return [14, devices] the shares of windows above each inner edge."""
    above: Floats = np.clip(np.cumsum(shares[:, ::-1], axis=1)[:, ::-1][:, 1:], 0, 1).T
    return above


def _both_ways(figures: Floats) -> Floats:
    return np.concatenate((figures, -figures))


def _clearest(bounds: Floats) -> tuple[float, float]:
    """Return the edge with the smallest bound of both directions, and that bound times the number of tests made."""
    place = int(bounds.argmin())
    return EDGES[1 + place % (BINS - 1)], min(1.0, len(bounds) * float(bounds[place]))


def _bound(figure: Floats, treated: Flags) -> float:
    return float(randomisation_bounds(figure[None], treated)[0])


def _latency(figures: Figures, plan: Plan, budget: float) -> Finding:
    settings = plan.gates.latency
    now = _shares(figures.now.latency_sum_us, figures.now.latency_count, plan.least_windows)
    before = _shares(figures.before.latency_sum_us, figures.before.latency_count, plan.least_windows)
    sides = Sides(np.isfinite(now), figures.treated, plan.least_devices)
    if not sides.has_control:
        worse, better = now > settings.ratio * before, now <= settings.ratio * before
        return _against_own_week("latency", figures, plan, worse, better, settings.ratio, budget)
    if sides.inside < sides.least:
        return few("latency", "control", sides, settings.ratio)
    # Logarithms: what a release costs is a factor on a fast machine and on a slow one. A mean of 0 us counts as 1.
    logs = [np.log(np.maximum(mean[sides.counted], 1.0)) for mean in (now, before)]
    treated, control = sides.means(now)
    ratio = _rise(now, before, sides)
    return finding(
        "latency", "control", sides, treated=treated, control=control, effect=ratio, limit=settings.ratio,
        p=_bound(less_own_past(logs[0], logs[1]), figures.treated[sides.counted]), budget=budget,
        says=f"Scoring a window takes {treated:.0f} us, {control:.0f} us outside; {ratio:.2f} times as long, by these"
        " or by what their week before lets expect.",
    )  # fmt: skip


def _silent(figures: Figures, plan: Plan, budget: float) -> Finding:
    settings = plan.gates.silent
    sides = Sides(np.ones_like(figures.treated), figures.treated, plan.least_devices)
    if sides.inside < sides.least:
        return few("silent", "control" if sides.has_control else "limit", sides, settings.difference)
    if sides.has_control:
        silent = figures.silent.astype(np.float64)
        treated, control = sides.means(silent)
        return finding(
            "silent", "control", sides, treated=treated, control=control, effect=treated - control,
            limit=settings.difference, p=_bound(silent, figures.treated), budget=budget,
            says=f"Silent for {settings.hours} h: {treated:.1%} of the devices, {control:.1%} outside.",
        )  # fmt: skip
    count = int((figures.silent & figures.treated).sum())
    share = count / sides.inside
    # Devices that come once a day are always silent by this measure: what the fleet did before is no fault.
    tolerated = min(max(settings.tolerated, _SILENT_RISE * figures.silent_before), _MOST_TOLERATED)
    return finding(
        "silent", "limit", sides, treated=share, control=figures.silent_before, effect=share, limit=tolerated,
        p=binomial_tail(count, sides.inside, tolerated), budget=budget,
        says=f"Silent for {settings.hours} h: {share:.1%} of the devices; {tolerated:.1%} are tolerated.",
    )  # fmt: skip

"""The gates: does the release behave worse than what it replaces? Pure functions of per-device figures.

Devices are compared **by assignment**: those whose bucket is in the share against those outside of it, whatever each of
them runs. Each device has one vote: its share, its mean, never its number of windows. Where enough devices are outside,
a figure is what a device's own week before does not explain, and the test is one of the draw (``bounds``); where there
are too few, as at the last stage, each device is compared with its own week before, by a sign test with a margin.

Example::

    findings = judge(figures, plan, budget=1e-4)
    tripped = [finding for finding in findings if finding.verdict == "tripped"]
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from edge_runtime.contract.histogram import BINS, EDGES
from sync_server.rollouts.bounds import (
    Flags,
    Floats,
    binomial_tail,
    less_own_past,
    psi,
    randomisation_bounds,
)
from sync_server.rollouts.plan import Plan
from sync_server.rollouts.spending import WEIGHTS

Verdict = Literal["holds", "few", "tripped"]
_LARGEST_RATIO = 1000.0  # what is shown of a ratio over nothing
# A device whose past is much shorter than its present would look worse by chance more often than half the time.
_LEAST_PAST = 0.8
# Windows that the index of one device's histogram needs, 20 a bin: of an hour's 60 windows, chance alone makes it 0.25.
_LEAST_SCORED = 20 * BINS


@dataclass(frozen=True, slots=True)
class Counted:
    """What devices counted in one stretch of time; zero everywhere for a device that sent nothing.

    Attributes:
        windows: [devices] windows scored.
        anomalous: [devices] anomalous ones among them.
        histogram: [devices, 15] windows by anomaly score.
        latency_count: [devices] windows timed.
        latency_sum_us: [devices] microseconds they took.
    """

    windows: Floats
    anomalous: Floats
    histogram: Floats
    latency_count: Floats
    latency_sum_us: Floats


@dataclass(frozen=True, slots=True)
class Figures:
    """What is known of the devices that count in a stage.

    Attributes:
        treated: [devices] the bucket is in the share.
        decided: [devices] it runs the release, or said why it cannot.
        failed: [devices] it said why it cannot.
        silent: [devices] it came since the stage began, and then no more.
        now: Since the stage began, at most a week.
        before: In the week before the rollout.
        training_now: [devices, 15] shares of the training histogram of what it runs, NaN unless that is the release.
        training_before: [devices, 15] the same of the release before.
    """

    treated: Flags
    decided: Flags
    failed: Flags
    silent: Flags
    now: Counted
    before: Counted
    training_now: Floats
    training_before: Floats


@dataclass(frozen=True, slots=True)
class Finding:
    """What one gate found at one look.

    Attributes:
        gate: Its name.
        against: ``control``, ``own_week`` or ``limit``.
        verdict: ``holds``, ``few`` (not enough devices to say anything) or ``tripped``.
        devices: Treated devices that were counted.
        control_devices: Those outside of the share.
        treated: The figure of the treated devices, None without any.
        control: What it is compared with, None without anything.
        effect: The size that must not reach ``limit``: a ratio, a difference, an index or a share.
        limit: From which size on it matters.
        p: Bound on the probability of so clear a difference by chance.
        budget: What ``p`` has to keep above.
        why: One sentence for people.
        training: Of the scores: the index of the treated devices that run the release against its training histogram.
    """

    gate: str
    against: Literal["control", "own_week", "limit"]
    verdict: Verdict
    devices: int
    control_devices: int
    treated: float | None
    control: float | None
    effect: float | None
    limit: float
    p: float | None
    budget: float
    why: str
    training: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the finding as it is stored and shown."""
        return asdict(self)


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


@dataclass(frozen=True, slots=True)
class _Sides:
    """Which devices count on each side, and whether they are enough."""

    counted: Flags
    treated: Flags
    least: int

    @property
    def inside(self) -> int:
        return int((self.counted & self.treated).sum())

    @property
    def outside(self) -> int:
        return int((self.counted & ~self.treated).sum())

    @property
    def has_control(self) -> bool:
        return self.outside >= self.least

    def means(self, figure: Floats) -> tuple[float, float]:
        """Return the mean of the treated and of the others, one device one vote."""
        return float(figure[self.counted & self.treated].mean()), float(figure[self.counted & ~self.treated].mean())


def _finding(
    gate: str, against: Literal["control", "own_week", "limit"], sides: _Sides, *, treated: float,
    control: float | None, effect: float, limit: float, p: float, budget: float, says: str, least_count: bool = True,
    training: float | None = None,
) -> Finding:  # fmt: skip
    """Put the verdict together: large enough to matter, and clearer than chance."""
    tripped = p <= budget and effect >= limit and least_count
    ending = f"p <= {p:.1g}, trips at {budget:.1g}."
    return Finding(
        gate, against, "tripped" if tripped else "holds", sides.inside, sides.outside, treated, control,
        min(effect, _LARGEST_RATIO), limit, p, budget, f"{says} {ending}", training,
    )  # fmt: skip


def _few(gate: str, against: Literal["control", "own_week", "limit"], devices: _Sides, limit: float) -> Finding:
    why = f"Not enough devices: {devices.inside} of the treated can be counted, {devices.least} are needed."
    return Finding(gate, against, "few", devices.inside, devices.outside, None, None, None, limit, None, 0.0, why)


def _failures(figures: Figures, plan: Plan, budget: float) -> Finding:
    """Compare the devices that cannot activate the release with what is tolerated; outside nobody tries."""
    settings = plan.gates.failures
    sides = _Sides(figures.decided & figures.treated, figures.treated, plan.least_devices)
    failed = int((figures.failed & sides.counted).sum())
    if sides.inside < sides.least:
        return _few("failures", "limit", sides, settings.tolerated)
    share = failed / sides.inside
    return _finding(
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
    sides = _Sides(np.isfinite(now), figures.treated, plan.least_devices)
    if not sides.has_control:
        worse = now > settings.own_week_ratio * before
        better = now < settings.own_week_ratio * before  # equal: both are zero, and say nothing
        return _against_own_week("anomalies", figures, plan, worse, better, settings.own_week_ratio, budget)
    if sides.inside < sides.least:
        return _few("anomalies", "control", sides, settings.ratio)
    # Square roots: counts vary in proportion to their size, and one stormy device must not hide all others.
    rest = less_own_past(np.sqrt(now[sides.counted]), np.sqrt(before[sides.counted]))
    treated, control = sides.means(now)
    ratio = _rise(now, before, sides)
    return _finding(
        "anomalies", "control", sides, treated=treated, control=control, effect=ratio, limit=settings.ratio,
        p=_bound(rest, figures.treated[sides.counted]), budget=budget,
        says=f"Anomalous windows: {treated:.2%} of a device's, {control:.2%} outside; {ratio:.2f} times as many as"
        " their week before lets expect.",
    )  # fmt: skip


def _rise(now: Floats, before: Floats, sides: _Sides) -> float:
    """Return how much more the treated have than the others, over how much more they had before."""
    past = _Sides(sides.counted & np.isfinite(before), sides.treated, 1)
    if past.inside < sides.least or past.outside < sides.least:
        return _ratio(*sides.means(now))
    return _ratio(_ratio(*past.means(now)), _ratio(*past.means(before)))


def _ratio(above: float, below: float) -> float:
    if below > 0:
        return min(above / below, _LARGEST_RATIO)
    return _LARGEST_RATIO if above > 0 else 1.0


def _against_own_week(
    gate: str,
    figures: Figures,
    plan: Plan,
    worse: Flags,
    better: Flags,
    margin: float,
    budget: float,
    *,
    training: float | None = None,
) -> Finding:
    """Let each treated device vote: worse than its own week by the margin, or not; half of them may be by chance."""
    long_enough = figures.before.windows >= np.maximum(plan.least_windows, _LEAST_PAST * figures.now.windows)
    counted = figures.treated & long_enough & (figures.now.windows >= plan.least_windows)
    sides = _Sides(counted & (worse | better), figures.treated, plan.least_devices)
    if int(counted.sum()) < sides.least:
        return _few(gate, "own_week", _Sides(counted, figures.treated, plan.least_devices), margin)
    votes = int((worse & counted).sum())
    share = votes / sides.inside if sides.inside else 0.0
    return _finding(
        gate, "own_week", sides, treated=share, control=0.5, effect=share, limit=0.5,
        p=binomial_tail(votes, sides.inside, 0.5), budget=budget,
        says=f"{votes} of {sides.inside} devices are worse than their own week before by more than {margin:g}.",
        training=training,
    )  # fmt: skip


def _scores(figures: Figures, plan: Plan, budget: float) -> Finding:
    """Compare score distributions: the index says how much, the shares above each edge whether it is chance."""
    settings = plan.gates.scores
    now = _shares(figures.now.histogram, figures.now.windows[:, None], plan.least_windows)
    before = _shares(figures.before.histogram, figures.before.windows[:, None], plan.least_windows)
    sides = _Sides(np.isfinite(now[:, 0]), figures.treated, plan.least_devices)
    training = _training_index(now, figures)
    if not sides.has_control:
        enough = (figures.now.windows >= _LEAST_SCORED)[:, None]
        drift = psi(np.where(enough, now, np.nan), figures.training_now) - psi(before, figures.training_before)
        worse, better = drift > settings.training_psi, drift <= settings.training_psi  # NaN: neither
        margin = settings.training_psi
        return _against_own_week("scores", figures, plan, worse, better, margin, budget, training=training)
    if sides.inside < sides.least:
        return _few("scores", "control", sides, settings.psi)
    groups = [now[sides.counted & group].mean(axis=0) for group in (figures.treated, ~figures.treated)]
    index = float(psi(groups[0], groups[1]))
    edge, p = _clearest_edge(now[sides.counted], before[sides.counted], figures.treated[sides.counted])
    return _finding(
        "scores", "control", sides, treated=index, control=None, effect=index, limit=settings.psi, p=p, budget=budget,
        says=f"Score distributions differ by a stability index of {index:.3f}, clearest at a score of {edge:g}.",
        training=training,
    )  # fmt: skip


def _training_index(now: Floats, figures: Figures) -> float | None:
    """Return the index of the treated devices' mean histogram against that of their training, None without any."""
    known = figures.treated & np.isfinite(now[:, 0]) & np.isfinite(figures.training_now[:, 0])
    if not known.any():
        return None
    return float(psi(now[known].mean(axis=0), figures.training_now[known].mean(axis=0)))


def _clearest_edge(now: Floats, before: Floats, treated: Flags) -> tuple[float, float]:
    """Return the edge at which the groups differ most clearly, and the bound over all edges and both directions.

    An index has no distribution of its own that would hold for few and unlike devices. But two histograms differ when,
    and only when, the share above some edge does, and for shares there is a bound; it is multiplied by the tests made.
    """
    rests = []
    for place in range(1, BINS):
        above = [np.sqrt(np.clip(shares[:, place:].sum(axis=1), 0, 1)) for shares in (now, before)]
        rests.append(less_own_past(above[0], above[1]))
    both = np.array([*rests, *(-rest for rest in rests)])
    bounds = len(both) * randomisation_bounds(both, treated)
    clearest = int(bounds.argmin())
    return EDGES[1 + clearest % (BINS - 1)], min(1.0, float(bounds[clearest]))


def _bound(figure: Floats, treated: Flags) -> float:
    return float(randomisation_bounds(figure[None], treated)[0])


def _latency(figures: Figures, plan: Plan, budget: float) -> Finding:
    settings = plan.gates.latency
    now = _shares(figures.now.latency_sum_us, figures.now.latency_count, plan.least_windows)
    before = _shares(figures.before.latency_sum_us, figures.before.latency_count, plan.least_windows)
    sides = _Sides(np.isfinite(now), figures.treated, plan.least_devices)
    if not sides.has_control:
        worse, better = now > settings.ratio * before, now <= settings.ratio * before
        return _against_own_week("latency", figures, plan, worse, better, settings.ratio, budget)
    if sides.inside < sides.least:
        return _few("latency", "control", sides, settings.ratio)
    # Logarithms: what a release costs is a factor on a fast machine and on a slow one. A mean of 0 us counts as 1.
    logs = [np.log(np.maximum(mean[sides.counted], 1.0)) for mean in (now, before)]
    treated, control = sides.means(now)
    ratio = _rise(now, before, sides)
    return _finding(
        "latency", "control", sides, treated=treated, control=control, effect=ratio, limit=settings.ratio,
        p=_bound(less_own_past(logs[0], logs[1]), figures.treated[sides.counted]), budget=budget,
        says=f"Scoring a window takes {treated:.0f} us, {control:.0f} us outside; {ratio:.2f} times what their week"
        " before lets expect.",
    )  # fmt: skip


def _silent(figures: Figures, plan: Plan, budget: float) -> Finding:
    settings = plan.gates.silent
    sides = _Sides(np.ones_like(figures.treated), figures.treated, plan.least_devices)
    if sides.inside < sides.least:
        return _few("silent", "control" if sides.has_control else "limit", sides, settings.difference)
    if sides.has_control:
        silent = figures.silent.astype(np.float64)
        treated, control = sides.means(silent)
        return _finding(
            "silent", "control", sides, treated=treated, control=control, effect=treated - control,
            limit=settings.difference, p=_bound(silent, figures.treated), budget=budget,
            says=f"Silent for {settings.hours} h: {treated:.1%} of the devices, {control:.1%} outside.",
        )  # fmt: skip
    count = int((figures.silent & figures.treated).sum())
    share = count / sides.inside
    return _finding(
        "silent", "limit", sides, treated=share, control=settings.tolerated, effect=share, limit=settings.tolerated,
        p=binomial_tail(count, sides.inside, settings.tolerated), budget=budget,
        says=f"Silent for {settings.hours} h: {share:.1%} of the devices; {settings.tolerated:.1%} are tolerated.",
    )  # fmt: skip

"""What the gates judge and what they find: types, and how a verdict comes about."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from sync_server.rollouts.bounds import Flags, Floats

Against = Literal["control", "own_week", "limit"]
Verdict = Literal["holds", "none", "few", "tripped"]
LARGEST_RATIO = 1000.0  # what is shown of a ratio over nothing


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
    """What is known of the devices that count, those that count for silence alone among them.

    Attributes:
        treated: [devices] the bucket is in the share.
        decided: [devices] it runs the release, or said why it cannot.
        failed: [devices] it said why it cannot.
        silent: [devices] it was there when the rollout began or since, and then no more.
        now: Since the stage began, at most a week; zero for a device that was not seen since.
        before: In the week before the rollout.
        training_now: [devices, 15] shares of the training histogram of what it runs, NaN unless that is the release.
        training_before: [devices, 15] the same of the release before.
        silent_before: Share of the fleet that was silent when the watch began.
        replaces: There is a release before, which the devices outside run.
    """

    treated: Flags
    decided: Flags
    failed: Flags
    silent: Flags
    now: Counted
    before: Counted
    training_now: Floats
    training_before: Floats
    silent_before: float = 0.0
    replaces: bool = True


@dataclass(frozen=True, slots=True)
class Finding:
    """What one gate found at one look.

    Attributes:
        gate: Its name.
        against: ``control``, ``own_week`` or ``limit``.
        verdict: ``holds``, ``none`` (nothing to compare with, and waiting brings nothing), ``few`` (not enough devices
            to say anything yet) or ``tripped``.
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
    against: Against
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


@dataclass(frozen=True, slots=True)
class Sides:
    """Which devices count on each side, and whether they are enough.

    Attributes:
        counted: [devices] it counts.
        treated: [devices] the bucket is in the share.
        least: Devices that a side needs.
    """

    counted: Flags
    treated: Flags
    least: int

    @property
    def inside(self) -> int:
        """Treated devices that count."""
        return int((self.counted & self.treated).sum())

    @property
    def outside(self) -> int:
        """Other devices that count."""
        return int((self.counted & ~self.treated).sum())

    @property
    def has_control(self) -> bool:
        """Whether there are enough devices outside of the share to compare with."""
        return self.outside >= self.least

    def means(self, figure: Floats) -> tuple[float, float]:
        """Return the mean of the treated and of the others, one device one vote."""
        return float(figure[self.counted & self.treated].mean()), float(figure[self.counted & ~self.treated].mean())


def finding(
    gate: str, against: Against, sides: Sides, *, treated: float,
    control: float | None, effect: float, limit: float, p: float, budget: float, says: str, least_count: bool = True,
    training: float | None = None,
) -> Finding:  # fmt: skip
    """Put the verdict together: large enough to matter, and clearer than chance."""
    tripped = p <= budget and effect >= limit and least_count
    ending = f"p <= {p:.1g}, trips at {budget:.1g}."
    return Finding(
        gate, against, "tripped" if tripped else "holds", sides.inside, sides.outside, treated, control,
        min(effect, LARGEST_RATIO), limit, p, budget, f"{says} {ending}", training,
    )  # fmt: skip


def few(gate: str, against: Against, devices: Sides, limit: float) -> Finding:
    """Say that there are not enough devices; nothing is spent then."""
    why = f"Not enough devices: {devices.inside} of the treated can be counted, {devices.least} are needed."
    return Finding(gate, against, "few", devices.inside, devices.outside, None, None, None, limit, None, 0.0, why)


def incomparable(gate: str, devices: Sides, limit: float) -> Finding:
    """Say that the devices can be compared with nothing, however long one waits; nothing is spent then."""
    why = "Nothing to compare with: too few of the treated have a week before that is long enough, nobody outside runs"
    why += " a release."
    return Finding(gate, "own_week", "none", devices.inside, devices.outside, None, None, None, limit, None, 0.0, why)

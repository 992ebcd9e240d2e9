"""A plan: the stages of a rollout, what holds each of them, and what happens when a gate trips.

It travels as JSON in ``PUT /api/channels/<channel>`` and is stored as it was checked. What a stage can choose devices
by is what the signed rule can express: a share, and a list of cohorts. Other attributes (hardware, firmware) are chosen
by giving devices cohorts that name them.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from edge_runtime.contract.rollout import BUCKETS
from sync_server.errors import RequestError

MAX_STAGES = 20
_MAX_MINUTES = 90 * 24 * 60
_MAX_DEVICES = 1_000_000

Share = Annotated[int, Meta(ge=0, le=BUCKETS)]
Part = Annotated[float, Meta(ge=0, le=1)]
Ratio = Annotated[float, Meta(ge=1, le=100)]


class _Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What every part of a plan has: it cannot be changed, and a misspelt field is refused."""


class Stage(_Strict, frozen=True):
    """One stage.

    Attributes:
        share: Ten-thousandths of the devices that are in.
        minutes: The least time in it, while the server watches; of the last stage: how long it stays watched.
        devices: The least number of devices that run the release.
        cohorts: The cohorts it is limited to; None: all.
    """

    share: Share
    minutes: Annotated[int, Meta(ge=0, le=_MAX_MINUTES)]
    devices: Annotated[int, Meta(ge=0, le=_MAX_DEVICES)] = 5
    cohorts: list[str] | None = None


class Failures(_Strict, frozen=True):
    """Devices that could not activate the release, self-tests included.

    Attributes:
        on: Whether the gate is there.
        least_count: Fewer failures than this never trip it.
        tolerated: The share of the devices that may fail.
    """

    on: bool = True
    least_count: Annotated[int, Meta(ge=1, le=_MAX_DEVICES)] = 3
    tolerated: Annotated[float, Meta(gt=0, lt=1)] = 0.02


class Anomalies(_Strict, frozen=True):
    """The share of anomalous windows.

    Attributes:
        on: Whether the gate is there.
        ratio: A smaller rise over the control never trips it.
        own_week_ratio: Where there is no control: how many times its own week before a device must have to count.
    """

    on: bool = True
    ratio: Ratio = 1.2
    own_week_ratio: Ratio = 2.0


class Scores(_Strict, frozen=True):
    """The distribution of anomaly scores.

    Attributes:
        on: Whether the gate is there.
        psi: A smaller population stability index between the groups never trips it.
        training_psi: Where there is no control: a smaller growth of the index against the training histogram, since
            the devices' own week before, never trips it.
    """

    on: bool = True
    psi: Part = 0.1
    training_psi: Annotated[float, Meta(ge=0, le=10)] = 0.25


class Latency(_Strict, frozen=True):
    """The mean time that scoring a window takes on a device.

    Attributes:
        on: Whether the gate is there.
        ratio: A smaller rise never trips it.
    """

    on: bool = True
    ratio: Ratio = 1.5


class Silent(_Strict, frozen=True):
    """Devices that were there when the rollout began or since, and then no more.

    Attributes:
        on: Whether the gate is there.
        hours: From when on a device counts as silent.
        difference: A smaller difference of the shares never trips it.
        tolerated: Where there is no control: the share that may be silent; at least 1.5 times what it was before.
    """

    on: bool = True
    hours: Annotated[int, Meta(ge=1, le=24 * 30)] = 12
    difference: Part = 0.02
    tolerated: Annotated[float, Meta(gt=0, lt=1)] = 0.1


class GateSettings(_Strict, frozen=True):
    """The settings of all gates."""

    failures: Failures = Failures()
    anomalies: Anomalies = Anomalies()
    scores: Scores = Scores()
    latency: Latency = Latency()
    silent: Silent = Silent()


# Five devices at least: 1 % of 2,000 are twenty on average, and nine in an unlucky draw.
DEFAULT_STAGES = (
    Stage(share=100, minutes=1440),
    Stage(share=400, minutes=1440),
    Stage(share=2000, minutes=1440),
    Stage(share=BUCKETS, minutes=2 * 1440),
)


class Plan(_Strict, frozen=True):
    """A whole plan. An empty one, ``{}``, is a sound one for a fleet of some thousands.

    Attributes:
        stages: In order; shares and cohorts only grow.
        on_trip: What happens when a gate trips.
        when_small: With too few devices for a gate or a stage: wait for more or for a person, or go on by time.
        look_minutes: Time between two looks at the gates.
        error_rate: How probable it may be that any gate trips in the whole rollout although the release is the same.
        least_devices: Devices that a gate needs, on each side.
        least_windows: Windows that a device needs to be counted.
        gates: Their settings.
    """

    stages: Annotated[tuple[Stage, ...], Meta(min_length=1, max_length=MAX_STAGES)] = DEFAULT_STAGES
    on_trip: Literal["pause", "roll_back"] = "pause"
    when_small: Literal["wait", "go_on"] = "wait"
    look_minutes: Annotated[int, Meta(ge=5, le=1440)] = 60
    error_rate: Annotated[float, Meta(ge=1e-6, le=0.01)] = 0.01
    least_devices: Annotated[int, Meta(ge=2, le=100_000)] = 5
    least_windows: Annotated[int, Meta(ge=1, le=1_000_000)] = 30
    gates: GateSettings = GateSettings()

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as it is stored and shown."""
        value: dict[str, Any] = msgspec.to_builtins(self)
        return value

    @classmethod
    def from_stored(cls, value: dict[str, Any]) -> Plan:
        """Return a plan that :meth:`to_dict` made.

        Raises:
            msgspec.ValidationError: A newer version made it, with something that this one does not know.
        """
        return msgspec.convert(value, cls)


def check_stages(plan: Plan) -> None:
    """Check what types cannot say: each stage reaches more devices than the one before, and some.

    Raises:
        RequestError: 422 ``bad_plan``.
    """
    if plan.stages[0].share == 0:
        raise _bad("The first stage has a share of 0: no device would ever be in.", "Give it at least 1.")
    for number, (before, after) in enumerate(zip(plan.stages, plan.stages[1:], strict=False), start=2):
        if after.share < before.share or not _covers(after.cohorts, before.cohorts):
            raise _bad(
                f"Stage {number} of the plan would take devices out again.",
                "Let shares and cohorts only grow from stage to stage.",
            )
        if after.share == before.share and _covers(before.cohorts, after.cohorts):
            raise _bad(f"Stage {number} of the plan reaches nobody new.", "Give it a greater share or more cohorts.")


def _covers(wide: list[str] | None, narrow: list[str] | None) -> bool:
    return wide is None or (narrow is not None and set(narrow) <= set(wide))


def _bad(message: str, advice: str) -> RequestError:
    return RequestError(422, "bad_plan", message, advice=advice)

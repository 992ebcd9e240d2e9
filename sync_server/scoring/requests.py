"""What ``POST /api/anomalies/score`` takes: windows that are cut already, or readings to cut them from."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from edge_runtime.contract.checks import LATEST_MS
from edge_runtime.contract.manifest import MAX_SIGNALS
from edge_runtime.contract.names import MAX_COHORT_CHARACTERS

# One request holds a thread; a client with more asks again.
MAX_WINDOWS = 256
MAX_READINGS = 10_000
MAX_BODY_BYTES = 2 * 1024 * 1024

Value = float | None
Name = Annotated[str, Meta(min_length=1, max_length=256)]
Moment = Annotated[int, Meta(ge=0, le=LATEST_MS)]
Label = Annotated[str, Meta(min_length=1, max_length=64)]


class Readings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Readings of one device, oldest first, a column per signal; null is a missing value.

    Attributes:
        observed_at_ms: When each was taken, milliseconds since 1970 UTC, strictly ascending.
        signals: Values by signal name, as many as there are times.
    """

    observed_at_ms: Annotated[list[Moment], Meta(min_length=1, max_length=MAX_READINGS)]
    signals: Annotated[dict[Name, list[Value]], Meta(max_length=2 * MAX_SIGNALS)]


class ScoreRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One request: which model, and what to score.

    Attributes:
        channel: The channel whose release scores. A device's own one when absent.
        model: The model, for operators who name no channel.
        cohort: The cohort whose bundle scores; a device's own one when absent.
        release: A release number instead of the channel's; operators only.
        device_id: Score with the release that the rollout gives this device; operators only.
        windows: Windows of W slots x S signals, oldest slot first; null is a missing value.
        signals: Names of the columns of ``windows``, checked against the bundle's when given.
        readings: Instead of ``windows``: windows are cut from them by the bundle's own rule.
        last: With ``readings``: how many of the newest readings get a verdict.
        explain: Whether anomalous windows get contributions.
    """

    channel: Label | None = None
    model: Label | None = None
    cohort: Annotated[str, Meta(min_length=1, max_length=MAX_COHORT_CHARACTERS)] | None = None
    release: Annotated[int, Meta(ge=1, le=2**53)] | None = None
    device_id: Annotated[str, Meta(pattern="^[0-9a-f]{32}$")] | None = None
    windows: Annotated[list[list[list[Value]]], Meta(min_length=1, max_length=MAX_WINDOWS)] | None = None
    signals: Annotated[list[Name], Meta(min_length=1, max_length=MAX_SIGNALS)] | None = None
    readings: Readings | None = None
    last: Annotated[int, Meta(ge=1, le=MAX_WINDOWS)] = 1
    explain: bool = True

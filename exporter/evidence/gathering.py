"""What all trials are judged by, made once: parts of the fleet, and the readings that count in each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from edge_runtime.contract.window import WindowRule
from edge_runtime.windows import filled, window_indices
from exporter.config import ModelSpec
from exporter.dataset import FAULTY, HEALTHY, UNLABELLED, Device, Fleet
from exporter.errors import SpecError, TelemetryError
from exporter.evidence.trial import By, Evidence, Part
from exporter.holdout import learns_from_labels, split_devices
from exporter.window_sets import window_rule

Each = Literal["fleet", "cohort", "device"]
# Faults are injected sixteen times (kinds and severities): this many readings make it minutes, not hours.
MOST_FAULTY_READINGS = 40_000
# Fewer readings of a device hold no fault and its healthy surroundings.
_LEAST_READINGS = 1_000


def gather_evidence(
    specs: Sequence[ModelSpec], fleet: Fleet, *, each: Each, by: By | None, notes: list[str], seed: int = 0
) -> Evidence:
    """Split the fleet into parts and choose what to judge by.

    Args:
        specs: What will be tried.
        fleet: The telemetry.
        each: What gets a model of its own.
        by: Labels or faults, or None.
        notes: Gets sentences about what was left out.
        seed: Of the injected faults.

    Returns:
        The evidence that all trials share.

    Raises:
        TelemetryError: Nothing is held out, or there is nothing to judge by.
        SpecError: ``train.holdout`` does not fit the data.
    """
    spec = specs[0]
    trained, judged = split_devices(spec.train, fleet.devices)
    if not judged:
        raise TelemetryError(
            "Nothing is held out, so there is nothing to judge by.",
            advice="Set train.holdout to something else than 'none'.",
        )
    has_faulty = any((device.labels == FAULTY).any() for device in judged)
    by = by or ("labels" if has_faulty else "faults")
    if by == "faults":
        judged = _for_faults(judged, labelled=fleet.labelled, notes=notes)
    parts = [_judged_by_all(specs, trained, part) for part in _parts(each, trained, judged)]
    kept = [part for part in parts if by == "faults" or _has_both_labels(part)]
    if not kept:
        raise TelemetryError(
            "No part of the held-out telemetry has healthy and faulty readings.",
            advice="Judge by injected faults (--by faults), or hold out other devices.",
        )
    if len(kept) < len(parts):
        notes.append(f"{len(parts) - len(kept)} of {len(parts)} parts have no faulty readings to judge by.")
    context = {name for one in specs for name in one.data.context}
    return Evidence(
        parts=tuple(kept),
        columns=fleet.columns,
        signals=tuple(name for name in fleet.columns if name not in context),
        by=by,
        learns_from_labels=learns_from_labels(spec.train, labelled=fleet.labelled),
        settle=max(one.window.slots for one in specs),
        seed=seed,
    )


def _parts(each: Each, trained: Sequence[Device], judged: Sequence[Device]) -> Iterator[Part]:
    """Yield the parts that have something to train on and something to judge by."""
    if each == "fleet":
        yield Part("all", tuple(trained), tuple(judged))
        return

    def name(device: Device) -> str:
        return device.name if each == "device" else device.cohort or ""

    for part in sorted({name(device) for device in trained}):
        own = tuple(device for device in trained if name(device) == part)
        others = tuple(device for device in judged if name(device) == part)
        if others:
            yield Part(part, own, others)


def _for_faults(judged: Sequence[Device], *, labelled: bool, notes: list[str]) -> tuple[Device, ...]:
    """Return held-out devices to put faults into: all healthy where nothing is labelled, and not too many."""
    total = sum(device.timestamps_ms.size for device in judged)
    if total > MOST_FAULTY_READINGS:
        step = -(-len(judged) // (MOST_FAULTY_READINGS // _LEAST_READINGS))
        judged = judged[::step]
        notes.append(f"Faults were put into the newest readings of {len(judged)} held-out devices.")
    newest = MOST_FAULTY_READINGS // len(judged)
    return tuple(
        Device(
            device.name,
            device.cohort,
            device.timestamps_ms[-newest:],
            device.values[-newest:],
            device.labels[-newest:] if labelled else np.full_like(device.labels[-newest:], HEALTHY),
        )
        for device in judged
    )


def _judged_by_all(specs: Sequence[ModelSpec], trained: Sequence[Device], part: Part) -> Part:
    """Leave only readings judged for which every specification has a window: longer ones have to wait."""
    rules = {rule for spec in specs if (rule := _rule(spec, trained, part)) is not None}
    devices = []
    for device in part.judged:
        labels = device.labels.copy()
        for rule in rules:
            labels[~_ready(device, rule)] = UNLABELLED
        devices.append(replace(device, labels=labels))
    return replace(part, judged=tuple(devices))


def _rule(spec: ModelSpec, trained: Sequence[Device], part: Part) -> WindowRule | None:
    """Return the window rule; None when it is impossible or no device has such a window: that trial will be refused."""
    try:
        rule = window_rule(spec.window, trained)
    except SpecError:
        return None
    return rule if any(_ready(device, rule).any() for device in part.judged) else None


def _ready(device: Device, rule: WindowRule) -> npt.NDArray[np.bool_]:
    """(n,): whether a reading has a window."""
    return np.asarray(filled(window_indices(device.timestamps_ms, rule)) >= rule.minimum_readings)


def _has_both_labels(part: Part) -> bool:
    found = {int(label) for device in part.judged for label in np.unique(device.labels)}
    return {HEALTHY, FAULTY} <= found

"""What trains, and what is kept out to measure what the model is worth: whole devices, or the labelled readings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from exporter.config import EVERY_SECOND, LABELLED, TrainSpec
from exporter.dataset import UNLABELLED, Device
from exporter.errors import SpecError, TelemetryError, did_you_mean


def split_devices(spec: TrainSpec, devices: Sequence[Device]) -> tuple[tuple[Device, ...], tuple[Device, ...]]:
    """Split the fleet.

    Args:
        spec: ``every-second-device`` holds out the second, fourth ... device of each cohort, sorted by id; ``none``
            holds out none; ``labelled`` holds out the labelled readings of every device; a list holds out these.
        devices: Sorted by id.

    Returns:
        Training devices and held-out devices, each sorted by id. With ``labelled`` a device is in both, with readings
        of its own in each.

    Raises:
        SpecError: The list names a device that is not there, or leaves none to train on.
        TelemetryError: ``labelled``, and no reading is without a label, or none has one.
    """
    if spec.holdout == "none":
        return tuple(devices), ()
    if spec.holdout == LABELLED:
        return _split_by_label(devices)
    if spec.holdout == EVERY_SECOND:
        seen: dict[str | None, int] = {}
        held = set()
        for device in devices:
            seen[device.cohort] = seen.get(device.cohort, 0) + 1
            if seen[device.cohort] % 2 == 0:
                held.add(device.name)
    else:
        names = {device.name for device in devices}
        held = set(spec.holdout)
        for name in spec.holdout:
            if name not in names:
                raise SpecError(f"train.holdout names device {name!r}, which is not in the data.",
                                advice=did_you_mean(name, names), device=name)  # fmt: skip
    trained = tuple(device for device in devices if device.name not in held)
    if not trained:
        raise SpecError("train.holdout leaves no device to train on.", advice="Hold out fewer.")
    return trained, tuple(device for device in devices if device.name in held)


def learns_from_labels(spec: TrainSpec, *, labelled: bool) -> bool:
    """Say whether labels tell which training readings are healthy: not when all the labelled ones are held out.

    Args:
        spec: What is held out.
        labelled: Whether there are labels.
    """
    return labelled and spec.holdout != LABELLED


def _split_by_label(devices: Sequence[Device]) -> tuple[tuple[Device, ...], tuple[Device, ...]]:
    trained = tuple(_readings(device, device.labels == UNLABELLED) for device in devices)
    judged = tuple(_readings(device, device.labels != UNLABELLED) for device in devices)
    trained = tuple(device for device in trained if device.timestamps_ms.size)
    judged = tuple(device for device in judged if device.timestamps_ms.size)
    if not trained or not judged:
        raise TelemetryError(
            f"train.holdout is {LABELLED!r}, and {'every' if judged else 'no'} reading has a label.",
            advice=f"Choose {EVERY_SECOND!r}, or check data.labels.",
        )
    return trained, judged


def _readings(device: Device, chosen: npt.NDArray[np.bool_]) -> Device:
    """Return a device with some of its readings."""
    return replace(
        device,
        timestamps_ms=device.timestamps_ms[chosen],
        values=device.values[chosen],
        labels=device.labels[chosen],
    )

"""Which devices train, and which are kept out to measure what the model is worth."""

from __future__ import annotations

from collections.abc import Sequence

from exporter.config import EVERY_SECOND, TrainSpec
from exporter.dataset import Device
from exporter.errors import SpecError, did_you_mean


def split_devices(spec: TrainSpec, devices: Sequence[Device]) -> tuple[tuple[Device, ...], tuple[Device, ...]]:
    """Split the fleet.

    Args:
        spec: ``every-second-device`` holds out the second, fourth ... device of each cohort, sorted by id; ``none``
            holds out none; a list holds out these.
        devices: Sorted by id.

    Returns:
        Training devices and held-out devices, each sorted by id.

    Raises:
        SpecError: The list names a device that is not there, or leaves none to train on.
    """
    if spec.holdout == "none":
        return tuple(devices), ()
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

"""From telemetry to scored models: the list of steps, and what it hands to packing.

``build_models`` reads, trains, calibrates, converts, proves and measures; it writes nothing. Packing takes each
``BuiltModel`` and makes one bundle of it::

    build = build_models(load_spec(Path("model.toml")), progress=lambda step, share: None)
    build.models[0].model_onnx
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from exporter.built import Build, BuiltModel, Progress
from exporter.config import ModelSpec
from exporter.errors import TelemetryError

if TYPE_CHECKING:
    from exporter.building import Group
    from exporter.dataset import Device, Fleet

# A cohort gets a model of its own from here on (contract, Calibration).
FEWEST_DEVICES = 10
FEWEST_HEALTHY_WINDOWS = 1_000


def build_models(spec: ModelSpec, *, progress: Progress | None = None) -> Build:
    """Read, hold devices out, cut windows; then train, convert, prove and measure each group. Writes nothing.

    Args:
        spec: The settings.
        progress: Called with a step's name and the share of it that is done.

    Returns:
        The models, the default one first, and what there is to say about the data.

    Raises:
        TelemetryError: The data cannot be used, or cannot support the alarm rate of the default model.
        SpecError: A setting does not fit the data.
        ConversionError: A model that cannot be converted.
    """
    # Training libraries take a second to import, and the types above are needed without them.
    from exporter.dataset import read_fleet
    from exporter.holdout import split_devices

    report = progress or _silent
    began = time.perf_counter()
    report("read", 0.0)
    fleet = read_fleet(spec.data)
    trained_on, held_out = split_devices(spec.train, fleet.devices)
    timings = {"read": time.perf_counter() - began}
    report("read", 1.0)
    notes = list(fleet.notes)
    if not fleet.labelled and held_out:
        notes.append("There are no labels: every alarm of a held-out device counts as one of a healthy device.")
    groups = list(_groups(spec, fleet, trained_on, held_out, notes))
    models = []
    for model, seconds in _build_groups(spec, groups, fleet.labelled, report, notes):
        models.append(model)
        for step, value in seconds.items():
            timings[step] = timings.get(step, 0.0) + value
    return Build(
        models=tuple(models),
        notes=tuple(notes),
        data_digest=fleet.digest,
        timings={step: round(value, 3) for step, value in timings.items()},
        devices={"trained": len(trained_on), "held_out": len(held_out)},
        readings=sum(device.timestamps_ms.size for device in fleet.devices),
    )


def _build_groups(
    spec: ModelSpec, groups: Sequence[Group], labelled: bool, report: Progress, notes: list[str]
) -> Iterator[tuple[BuiltModel, dict[str, float]]]:
    """Build each group's model; a cohort that cannot have one uses the default model, with a note."""
    from exporter.building import build_group

    for number, group in enumerate(groups):

        def done(share: float, number: int = number) -> None:
            report("models", (number + share) / len(groups))

        done(0.0)
        try:
            yield build_group(spec, group, labelled=labelled, progress=done)
        except TelemetryError as error:
            if group.cohort is None:
                raise
            notes.append(f"Cohort {group.cohort!r} uses the default model: {error.message}")
    report("models", 1.0)


def _silent(_step: str, _share: float) -> None:
    """Report progress to nobody."""


def _groups(
    spec: ModelSpec,
    fleet: Fleet,
    trained_on: tuple[Device, ...],
    held_out: tuple[Device, ...],
    notes: list[str],
) -> Iterator[Group]:
    """Yield the groups of devices that get a model; adds a note for each cohort that does not."""
    import numpy as np

    from exporter.building import Group
    from exporter.dataset import HEALTHY
    from exporter.window_sets import cut_windows, window_rule

    rule = window_rule(spec.window, trained_on)
    if spec.window.interval_seconds is None and all(device.timestamps_ms.size < 2 for device in trained_on):
        notes.append("No device has two readings: each was taken to stand for an hour, so rates per day say little.")
    windows = cut_windows(trained_on, rule)
    judged = cut_windows(held_out or trained_on[:1], rule)
    if not held_out:
        judged = judged.take(np.zeros(len(judged), bool))
        notes.append("Nothing was held out, so nothing was measured on devices that the model has not seen.")
    if not len(windows):
        raise TelemetryError(
            f"No device has {rule.minimum_readings} readings in {rule.slots} slots of {rule.interval_ms / 1000:g} s.",
            advice="Set window.slots = 1 to judge each reading alone, lower window.minimum_readings, or widen "
            "window.interval_seconds.",
        )
    yield Group(None, windows, judged)
    names = sorted({device.cohort for device in fleet.devices if device.cohort is not None})
    if not spec.release.cohorts or len(names) < 2:
        return  # one cohort alone is what the default model is trained on
    for name in names:
        members = [number for number, device in enumerate(trained_on) if device.cohort == name]
        own = windows.of_devices(members)
        healthy = int(np.count_nonzero(own.labels == HEALTHY)) if fleet.labelled else len(own)
        if len(members) < FEWEST_DEVICES or healthy < FEWEST_HEALTHY_WINDOWS:
            notes.append(
                f"Cohort {name!r} uses the default model: {len(members)} training devices with {healthy:,} healthy "
                f"windows; a model of its own needs {FEWEST_DEVICES} with {FEWEST_HEALTHY_WINDOWS:,}."
            )
            continue
        others = [number for number, device in enumerate(held_out) if device.cohort == name]
        yield Group(name, own, judged.of_devices(others))

"""From telemetry to scored models: the list of steps, and what it hands to packing.

``build_models`` reads, trains, calibrates, converts, proves and measures; it writes nothing. Packing takes each
``BuiltModel`` and makes one bundle of it::

    build = build_models(load_spec(Path("model.toml")), progress=lambda step, share: None)
    build.models[0].model_onnx
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from exporter.built import Build, Progress
from exporter.config import ModelSpec
from exporter.errors import TelemetryError
from exporter.parallel import Workers, check_workers, run_side_by_side

if TYPE_CHECKING:
    from exporter.building import Group, GroupBuild
    from exporter.dataset import Device, Fleet
    from exporter.training import Base
    from exporter.window_sets import WindowSet

# A cohort gets a model of its own from here on (contract, Calibration).
FEWEST_DEVICES = 10
FEWEST_HEALTHY_WINDOWS = 1_000
# With fewer windows, models that are built at the same time only wait for each other.
WORTH_THREADS = 200_000


def build_models(spec: ModelSpec, *, progress: Progress | None = None, workers: Workers | None = None) -> Build:
    """Read, hold devices out, cut windows; then train, convert, prove and measure each group. Writes nothing.

    Args:
        spec: The settings.
        progress: Called with a step's name and the share of it that is done.
        workers: Who builds the models; None: threads of this machine where that is worth it.

    Returns:
        The models, the default one first, and what there is to say about the data.

    Raises:
        TelemetryError: The data cannot be used, or cannot support the alarm rate of the default model.
        SpecError: A setting does not fit the data.
        ConversionError: A model that cannot be converted.
        TransportError: A Dask scheduler that does not answer.
    """
    # Training libraries take a second to import, and the types above are needed without them.
    from exporter.dataset import read_fleet
    from exporter.holdout import split_devices

    if workers is not None:
        check_workers(workers)
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
    groups = _groups(spec, fleet, trained_on, held_out, notes)
    models = []
    for built in _build_groups(spec, groups, fleet.labelled, report, notes, workers):
        models.append(built.model)
        for step, value in built.seconds.items():
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
    spec: ModelSpec,
    groups: Sequence[Group],
    labelled: bool,
    report: Progress,
    notes: list[str],
    workers: Workers | None,
) -> list[GroupBuild]:
    """Build each group's model; a cohort that cannot have one uses the default model, with a note."""
    if workers is None:
        workers = Workers(jobs=None if len(groups[0].windows) >= WORTH_THREADS else 1)
    done: dict[int, GroupBuild | TelemetryError] = {}
    base: Base | None = None
    rest = list(range(len(groups)))

    def shown(share: float) -> None:
        report("models", (len(done) + share) / len(groups))

    shown(0.0)
    if spec.detector.kind == "hybrid" and len(groups) > 1:
        # The cohorts' models share the forest of all devices, so that one comes first.
        done[0] = first = build_or_refuse(spec, groups[0], labelled, None, shown)
        base = None if isinstance(first, TelemetryError) else first.base
        rest = rest[1:]
    if workers.alone(len(rest)):
        for number in rest:
            done[number] = build_or_refuse(spec, groups[number], labelled, base, shown)
            shown(0.0)
        return _without_refused(groups, done, notes)
    tasks = [(spec, groups[number], labelled, base) for number in rest]
    for place, built in run_side_by_side(build_or_refuse, tasks, workers):
        done[rest[place]] = built
        shown(0.0)
    return _without_refused(groups, done, notes)


def build_or_refuse(
    spec: ModelSpec,
    group: Group,
    labelled: bool,
    base: Base | None,
    progress: Callable[[float], None] = lambda _: None,
) -> GroupBuild | TelemetryError:
    """Build a group's model on whichever machine this is; data that is too little for it is a result, not an end."""
    from exporter.building import build_group

    try:
        return build_group(spec, group, labelled=labelled, base=base, progress=progress)
    except TelemetryError as error:
        return error


def _without_refused(
    groups: Sequence[Group], done: dict[int, GroupBuild | TelemetryError], notes: list[str]
) -> list[GroupBuild]:
    built = []
    for number, group in enumerate(groups):
        one = done[number]
        if not isinstance(one, TelemetryError):
            built.append(one)
        elif group.cohort is None:
            raise one
        else:
            notes.append(f"Cohort {group.cohort!r} uses the default model: {one.message}")
    return built


def _silent(_step: str, _share: float) -> None:
    """Report progress to nobody."""


def _groups(
    spec: ModelSpec,
    fleet: Fleet,
    trained_on: tuple[Device, ...],
    held_out: tuple[Device, ...],
    notes: list[str],
) -> list[Group]:
    """Return the groups of devices that get a model, the default first; adds a note for each cohort that does not."""
    import numpy as np

    from exporter.building import Group
    from exporter.dataset import HEALTHY
    from exporter.holdout import learns_from_labels
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
    proofs = {name: cut_windows(devices, rule) for name, devices in _proof_fleets(spec, notes).items()}
    groups = [Group(None, windows, judged, proofs)]
    names = sorted({device.cohort for device in fleet.devices if device.cohort is not None})
    if not spec.release.cohorts or len(names) < 2:
        return groups  # one cohort alone is what the default model is trained on
    learns = learns_from_labels(spec.train, labelled=fleet.labelled)
    for name in names:
        members = [number for number, device in enumerate(trained_on) if device.cohort == name]
        own = windows.of_devices(members)
        healthy = int(np.count_nonzero(own.labels == HEALTHY)) if learns else len(own)
        if len(members) < FEWEST_DEVICES or healthy < FEWEST_HEALTHY_WINDOWS:
            notes.append(
                f"Cohort {name!r} uses the default model: {len(members)} training devices with {healthy:,} healthy "
                f"windows; a model of its own needs {FEWEST_DEVICES} with {FEWEST_HEALTHY_WINDOWS:,}."
            )
            continue
        others = [number for number, device in enumerate(held_out) if device.cohort == name]
        groups.append(Group(name, own, judged.of_devices(others), _of_cohort(proofs, name)))
    return groups


def _proof_fleets(spec: ModelSpec, notes: list[str]) -> dict[str, tuple[Device, ...]]:
    """Read the data sets that ``[[prove]]`` names; they have the columns of the training data."""
    from exporter.dataset import read_fleet

    found = {}
    for proof in spec.prove:
        fleet = read_fleet(replace(spec.data, readings=proof.readings, labels=proof.labels))
        found[proof.name] = fleet.devices
        notes.extend(f"{proof.name}: {note}" for note in fleet.notes)
    return found


def _of_cohort(proofs: dict[str, WindowSet], cohort: str) -> dict[str, WindowSet]:
    """Return a cohort's part of each data set of the proof."""
    return {
        name: windows.of_devices([number for number, one in enumerate(windows.cohorts) if one == cohort])
        for name, windows in proofs.items()
    }

"""From telemetry to scored models: the list of steps, and what it hands to packing.

``build_models`` reads, trains, calibrates, converts, proves and measures; it writes nothing. Packing takes each
``BuiltModel`` and makes one bundle of it::

    build = build_models(load_spec(Path("model.toml")), progress=lambda step, share: None)
    build.models[0].model_onnx
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from edge_runtime.contract.manifest import Regimes, Signal, Threshold
from edge_runtime.contract.window import WindowRule
from exporter.config import ModelSpec
from exporter.errors import TelemetryError

if TYPE_CHECKING:
    from exporter.building import Group
    from exporter.dataset import Device, Fleet

Progress = Callable[[str, float], None]
# A cohort gets a model of its own from here on (contract, Calibration).
FEWEST_DEVICES = 10
FEWEST_HEALTHY_WINDOWS = 1_000
BuiltPrecision = Literal["fp32", "codebook8"]


@dataclass(frozen=True, slots=True)
class BuiltModel:
    """One model, whole: all that a bundle holds but version, release number, card and signature.

    Attributes:
        cohort: Its cohort, or None for the default model of all devices.
        precision: Which candidate ``model_onnx`` is.
        model_onnx: The graph to ship.
        candidates: Both graphs by precision.
        signals: Columns of a window, in order.
        context: Names of those that are context.
        window_rule: The window rule.
        features: Names of the graph's features, in order.
        threshold: From which score on a window is an anomaly.
        incident_gap: Healthy windows that end an incident.
        histogram: 15 counts of out-of-fold anomaly scores of healthy training windows.
        regimes: What is normal in which context, or None without context.
        references: ``references.f32``: [R, W, S] little-endian float32, raw values.
        reference_count: R.
        golden_json: ``golden.json``.
        golden_f32: ``golden.f32``.
        parity: JSON-ready figures: trained model vs fp32 graph vs codebook8 graph on held-out windows.
        evaluation: JSON-ready figures on held-out devices: AUC, faults caught, healthy alarms, the single-reading
            baseline.
        convert_seconds: Time that the forest's conversion took.
        notes: Sentences for the report: constant signals, too few devices and the like.
        below_goals: Goals that it misses, as sentences.
    """

    cohort: str | None
    precision: BuiltPrecision
    model_onnx: bytes
    candidates: Mapping[str, bytes]
    signals: tuple[Signal, ...]
    context: tuple[str, ...]
    window_rule: WindowRule
    features: tuple[str, ...]
    threshold: Threshold
    incident_gap: int
    histogram: tuple[int, ...]
    regimes: Regimes | None
    references: bytes
    reference_count: int
    golden_json: bytes
    golden_f32: bytes
    parity: Mapping[str, Any]
    evaluation: Mapping[str, Any]
    convert_seconds: float
    notes: tuple[str, ...] = ()
    below_goals: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Build:
    """All models of one run.

    Attributes:
        models: The default model first, then cohorts by name.
        notes: Sentences about the data as a whole: what was set aside and why, cohorts without a model of their own.
        data_digest: SHA-256 in hex over the readings and labels that were used.
        timings: Seconds by step.
        devices: Counts by ``trained`` and ``held_out``.
        readings: Readings used, held-out ones included.
    """

    models: tuple[BuiltModel, ...]
    notes: tuple[str, ...]
    data_digest: str
    timings: Mapping[str, float] = field(default_factory=dict)
    devices: Mapping[str, int] = field(default_factory=dict)
    readings: int = 0


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

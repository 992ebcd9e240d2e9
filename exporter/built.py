"""What a build hands to packing: models, whole, with the evidence for each.

``exporter.model_build`` makes them and ``exporter.packing`` makes one bundle of each; neither knows the other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from edge_runtime.contract.manifest import Precision, Regimes, Signal, Threshold
from edge_runtime.contract.window import WindowRule

# Told (what is being done, share of the whole that is done).
Progress = Callable[[str, float], None]


@dataclass(frozen=True, slots=True)
class BuiltModel:
    """One model, whole: all that a bundle holds but version, release number, card and signature.

    Attributes:
        cohort: Its cohort, or None for the default model of all devices.
        form: Which candidate ships.
        precisions: What the manifest says of each candidate.
        candidates: The graph of each form by name, ``fp32`` first.
        detector: Its family.
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
        parity: ``parity.json``: the trained model against every form, on every data set of the proof.
        costs: What each form costs on the machine that built it, and why it ships or does not; not in the bundle.
        evaluation: JSON-ready figures on held-out devices: AUC, faults caught, healthy alarms, the single-reading
            baseline.
        convert_seconds: Time that the conversion to fp32 took.
        notes: Sentences for the report: constant signals, too few devices and the like.
        below_goals: Goals that it misses, as sentences.
        card_data: What the plots of the card show (``exporter.card_data``); without it the card has no plots.
    """

    cohort: str | None
    form: str
    precisions: Mapping[str, Precision]
    candidates: Mapping[str, bytes]
    detector: str
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
    costs: Mapping[str, Any]
    evaluation: Mapping[str, Any]
    convert_seconds: float
    notes: tuple[str, ...] = ()
    below_goals: tuple[str, ...] = ()
    card_data: Mapping[str, Any] = field(default_factory=dict)

    @property
    def precision(self) -> Precision:
        """What the manifest says of the form that ships."""
        return self.precisions[self.form]

    @property
    def model_onnx(self) -> bytes:
        """The graph that ships."""
        return self.candidates[self.form]


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

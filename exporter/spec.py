"""What ``model.toml`` says, as frozen dataclasses. Defaults live here and nowhere else; ``config`` reads the file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

Precision = Literal["auto", "fp32", "codebook8", "int8"]
Preference = Literal["smallest", "fastest"]
HigherIs = Literal["anomalous", "healthy"]
EVERY_SECOND = "every-second-device"
LABELLED = "labelled"
# Detector families, in the order of the help.
KINDS = ("isolation_forest", "hybrid", "autoencoder", "sklearn", "onnx")
# Windows in one call, at which every candidate is timed.
BATCHES = (1, 100, 10_000)
# What the proof calls the windows of held-out devices, and those of the training devices where none are held out.
HELD_OUT, TRAINING = "held out", "training"
# Share of rows that may be set aside before data is refused (contract, Bad input).
MAX_BAD_ROWS = 0.01


@dataclass(frozen=True, slots=True)
class DataSpec:
    """Where the telemetry is and what its columns are called.

    Attributes:
        readings: Parquet or CSV file, or a folder of them.
        labels: Table of device, time and ``label`` (0 healthy, 1 faulty, others ignored), or None.
        device: Column of the device id.
        time: Column of the reading's time.
        cohort: Column of the cohort, or None when all devices are one.
        signals: Columns that are judged, in order, without the context.
        context: Columns that say what the device is doing.
        units: Unit by signal, for people.
        max_bad_rows: Share of rows that may be set aside before the data is refused.
    """

    readings: Path
    labels: Path | None
    device: str
    time: str
    cohort: str | None
    signals: tuple[str, ...]
    context: tuple[str, ...] = ()
    units: Mapping[str, str] = field(default_factory=dict)
    max_bad_rows: float = MAX_BAD_ROWS

    @property
    def columns(self) -> tuple[str, ...]:
        """All columns of a window in the order of the manifest: signals, then context."""
        return self.signals + self.context


@dataclass(frozen=True, slots=True)
class WindowSpec:
    """How readings become windows; None means: taken from the data or from the other values.

    Attributes:
        slots: W.
        interval_seconds: Length of a slot; None: the median step of the training data.
        largest_gap_seconds: Nothing before a longer gap is seen; None: W intervals.
        minimum_readings: Filled slots that a verdict needs; None: half of W.
    """

    slots: int = 12
    interval_seconds: float | None = None
    largest_gap_seconds: float | None = None
    minimum_readings: int | None = None


@dataclass(frozen=True, slots=True)
class FeatureSpec:
    """Statistics of each signal, such as ``mean`` over the whole window or ``mean:6`` over its last 6 slots.

    The default is last and mean: more statistics made models worse on real fleets (contract, Features).
    """

    statistics: tuple[str, ...] = ("last", "mean")


@dataclass(frozen=True, slots=True)
class StepSpec:
    """One step of a scikit-learn pipeline.

    Attributes:
        use: Import path of the estimator, such as ``sklearn.svm.OneClassSVM``.
        parameters: What it is made with, by name.
    """

    use: str
    parameters: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return the step as a JSON-ready table."""
        return {"use": self.use, "parameters": dict(self.parameters)}


@dataclass(frozen=True, slots=True)
class OnnxSpec:
    """A model that was trained elsewhere.

    Attributes:
        path: The ONNX file.
        input: Name of its input; None: the only one.
        output: Name of the output that holds the score; None: the only one.
        higher_is: What a higher figure means, ``anomalous`` or ``healthy``.
        column: Column of the output, for outputs of two columns such as class probabilities.
        impute: Whether missing values become the training mean before they reach it.
    """

    path: Path
    input: str | None = None
    output: str | None = None
    higher_is: HigherIs = "anomalous"
    column: int | None = None
    impute: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as a JSON-ready table; the path by its name only."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__} | {"path": self.path.name}


@dataclass(frozen=True, slots=True)
class DetectorSpec:
    """The detector and its size.

    Attributes:
        kind: ``isolation_forest``; ``hybrid``: in a cohort's bundle its own forest and that of all devices together;
            ``autoencoder``; ``sklearn``: a pipeline of ``steps``; ``onnx``: a model that was trained elsewhere.
        trees: Number of trees.
        max_samples: Windows per tree; None: scikit-learn's own choice, at most 256.
        max_features: Share of the features that each tree sees, in (0, 1].
        seed: Of every random choice in training.
        cohort_weight: Weight of the cohort's own forest in a hybrid, in (0, 1); the forest of all devices has the rest.
        hidden: Widths of an autoencoder's hidden layers; empty: one, half as wide as the features, at most 64.
        epochs: Passes over the training windows, at most; training stops earlier when it no longer helps.
        steps: Of a ``sklearn`` detector, in order; the last one scores.
        onnx: The model of an ``onnx`` detector.
    """

    kind: str = "isolation_forest"
    trees: int = 200
    max_samples: int | None = None
    max_features: float = 1.0
    seed: int = 0
    cohort_weight: float = 0.5
    hidden: tuple[int, ...] = ()
    epochs: int = 50
    steps: tuple[StepSpec, ...] = ()
    onnx: OnnxSpec | None = None


@dataclass(frozen=True, slots=True)
class CalibrationSpec:
    """Where the threshold lies and what counts as healthy.

    Attributes:
        alarms_per_device_day: Incidents of healthy devices per device and day that the threshold is chosen for.
        threshold: Anomaly score given directly; None: chosen by ``alarms_per_device_day``.
        incident_gap: Healthy windows that end an incident.
        assumed_contamination: Share of unlabelled windows dropped before training.
    """

    alarms_per_device_day: float = 0.02
    threshold: float | None = None
    incident_gap: int = 3
    assumed_contamination: float = 0.01


@dataclass(frozen=True, slots=True)
class TrainSpec:
    """What is kept out of training and scored instead.

    Attributes:
        holdout: ``every-second-device`` (sorted by id, per cohort: the second, fourth ...), ``none``, device ids, or
            ``labelled``: every device trains on its readings without a label and is judged on its labelled ones.
    """

    holdout: str | tuple[str, ...] = EVERY_SECOND


@dataclass(frozen=True, slots=True)
class GoalSpec:
    """What a model must keep to be packed, and which of its forms is preferred.

    Attributes:
        spearman_loss: Largest loss of rank correlation of raw scores with the trained model.
        label_flips: Largest share of windows with another verdict than the trained model's.
        auc_loss: Largest loss of AUC by conversion and quantization, where labels exist.
        raw_difference: Largest difference of a raw score between the trained model and its exact graph; None: 1e-6
            for forests, 1e-4 for detectors that two libraries compute in float32.
        prefer: The smallest form that is hardly slower than fp32, or the fastest.
        batch: Windows in one call, for which speed counts.
        slowdown: How many times slower than fp32 the smallest form may be at that batch.
    """

    spearman_loss: float = 0.001
    label_flips: float = 0.002
    auc_loss: float = 0.005
    raw_difference: float | None = None
    prefer: Preference = "smallest"
    batch: int = 1
    slowdown: float = 1.2


@dataclass(frozen=True, slots=True)
class ProofSpec:
    """More labelled or unlabelled telemetry to prove the graph on, with the columns of the training data.

    Attributes:
        name: What the report calls it.
        readings: Parquet or CSV file, or a folder of them.
        labels: Table of device, time and ``label``, or None.
    """

    name: str
    readings: Path
    labels: Path | None = None


@dataclass(frozen=True, slots=True)
class ReleaseSpec:
    """What a release is made for.

    Attributes:
        channels: Channels that may run it.
        precision: ``fp32``, ``codebook8`` or ``int8``, or ``auto`` for what the goals prefer.
        cohorts: Whether cohorts with enough devices get a model of their own.
    """

    channels: tuple[str, ...] = ("stable",)
    precision: Precision = "auto"
    cohorts: bool = True


@dataclass(frozen=True, slots=True)
class CompareSpec:
    """What ``exporter compare`` tries: every detector with every window, its statistics and every context.

    The defaults span what was best on public fleets: single readings and half a day of statistics for turbofans,
    levels and spreads over 30 readings for servers (smd), two scales over 120 for application servers (asd).

    Attributes:
        detectors: To try beside the model's own; empty: one of each family, with its defaults.
        windows: Numbers of slots.
        statistics: Sets of statistics; one that looks back further than a window has slots is left out there.
        context: With the declared context, and without: then its signals are judged as any others.
    """

    detectors: tuple[DetectorSpec, ...] = ()
    windows: tuple[int, ...] = (1, 12, 30, 120)
    statistics: tuple[tuple[str, ...], ...] = (
        ("last", "mean"),
        ("last", "mean", "std"),
        ("last", "mean", "std", "range", "slope", "delta"),
        ("last", "mean:12", "std:12", "mean", "std"),
    )
    context: tuple[bool, ...] = (True, False)


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """All of ``model.toml``."""

    name: str
    data: DataSpec
    window: WindowSpec = WindowSpec()
    features: FeatureSpec = FeatureSpec()
    detector: DetectorSpec = DetectorSpec()
    calibration: CalibrationSpec = CalibrationSpec()
    train: TrainSpec = TrainSpec()
    goals: GoalSpec = GoalSpec()
    release: ReleaseSpec = ReleaseSpec()
    prove: tuple[ProofSpec, ...] = ()
    compare: CompareSpec = CompareSpec()

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as JSON-ready tables, as provenance.json records them; paths by name only."""
        return {
            "model": {"name": self.name},
            "data": {
                "readings": self.data.readings.name,
                "labels": None if self.data.labels is None else self.data.labels.name,
                "device": self.data.device,
                "time": self.data.time,
                "cohort": self.data.cohort,
                "signals": list(self.data.signals),
                "context": list(self.data.context),
                "units": dict(self.data.units),
                "max_bad_rows": self.data.max_bad_rows,
            },
            **{name: _plain(getattr(self, name)) for name in _SECTIONS},
            "prove": [
                {
                    "name": one.name,
                    "readings": one.readings.name,
                    "labels": None if one.labels is None else one.labels.name,
                }
                for one in self.prove
            ],
        }


_SECTIONS = ("window", "features", "detector", "calibration", "train", "goals", "release")


def _plain(section: Any) -> dict[str, Any]:
    return {
        name: [_plain_value(item) for item in value] if isinstance(value, tuple) else _plain_value(value)
        for name in section.__dataclass_fields__
        for value in (getattr(section, name),)
    }


def _plain_value(value: Any) -> Any:
    return value.to_dict() if isinstance(value, StepSpec | OnnxSpec) else value

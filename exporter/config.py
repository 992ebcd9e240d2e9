"""``model.toml`` as frozen dataclasses: what is read, how windows are cut, what is trained and released.

Defaults live here and nowhere else. An unknown key is refused, so that a misspelling cannot silently train another
model. Paths are relative to the file that names them::

    spec = load_spec(Path("model.toml"))
    spec.data.signals, spec.window.slots, spec.detector.trees
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from exporter.errors import SpecError
from exporter.spec_reading import Table

Precision = Literal["auto", "fp32", "codebook8"]
EVERY_SECOND = "every-second-device"


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
    max_bad_rows: float = 0.01

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
class DetectorSpec:
    """The detector and its size.

    Attributes:
        kind: ``isolation_forest``.
        trees: Number of trees.
        max_samples: Windows per tree; None: scikit-learn's own choice, at most 256.
        max_features: Share of the features that each tree sees, in (0, 1].
        seed: Of every random choice in training.
    """

    kind: str = "isolation_forest"
    trees: int = 200
    max_samples: int | None = None
    max_features: float = 1.0
    seed: int = 0


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
    """Which devices are kept out of training and scored instead.

    Attributes:
        holdout: ``every-second-device`` (sorted by id, per cohort: the second, fourth ...), ``none``, or device ids.
    """

    holdout: str | tuple[str, ...] = EVERY_SECOND


@dataclass(frozen=True, slots=True)
class ReleaseSpec:
    """What a release is made for.

    Attributes:
        channels: Channels that may run it.
        precision: ``fp32``, ``codebook8``, or ``auto`` for the smaller one that keeps its scores.
        cohorts: Whether cohorts with enough devices get a model of their own.
    """

    channels: tuple[str, ...] = ("stable",)
    precision: Precision = "auto"
    cohorts: bool = True


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
    release: ReleaseSpec = ReleaseSpec()

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
        }


_SECTIONS = ("window", "features", "detector", "calibration", "train", "release")


def load_spec(path: Path) -> ModelSpec:
    """Read ``model.toml``.

    Args:
        path: The file.

    Returns:
        The settings, checked.

    Raises:
        SpecError: The file is missing or not TOML, or a setting is missing, unknown or impossible.
    """
    try:
        content = path.read_bytes()
        value = tomllib.loads(content.decode("utf-8"))
    except OSError as error:
        raise SpecError(
            f"Cannot read {path}: {error.strerror}.",
            advice="`exporter init` writes one from a data file.",
            path=str(path),
        ) from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SpecError(f"{path} is not TOML: {error}.", advice="Correct that line.", path=str(path)) from error
    return parse_spec(value, source=str(path), folder=path.parent)


def parse_spec(value: Mapping[str, Any], *, source: str, folder: Path) -> ModelSpec:
    """Read settings that are tables already.

    Args:
        value: Tables by name.
        source: Where they come from, for messages.
        folder: What relative paths are relative to.

    Returns:
        The settings, checked.

    Raises:
        SpecError: A setting is missing, unknown or impossible.
    """
    root = Table(value, source, "")
    model = root.table("model")
    spec = ModelSpec(
        name=model.name("name"),
        data=_data(root.table("data"), folder),
        window=_window(root.table("window")),
        features=_features(root.table("features")),
        detector=_detector(root.table("detector")),
        calibration=_calibration(root.table("calibration")),
        train=_train(root.table("train")),
        release=_release(root.table("release")),
    )
    model.close()
    root.close()
    return spec


def _data(table: Table, folder: Path) -> DataSpec:
    labels = table.optional_text("labels")
    context = table.texts("context", ())
    listed = table.texts("signals")
    signals = tuple(name for name in listed if name not in context)
    if not signals:
        raise table.refuse("signals", "must name at least one signal that is not context")
    if len(set(signals)) != len(signals) or len(set(context)) != len(context):
        raise table.refuse("signals", "names a column twice")
    spec = DataSpec(
        readings=folder / table.text("readings"),
        labels=None if labels is None else folder / labels,
        device=table.text("device", "device_id"),
        time=table.text("time", "timestamp"),
        cohort=table.optional_text("cohort"),
        signals=signals,
        context=context,
        units=table.text_by_name("units", known=signals + context),
        max_bad_rows=table.number("max_bad_rows", 0.01, most=1.0),
    )
    keys = {spec.device, spec.time, spec.cohort} & set(spec.columns)
    if keys:
        raise table.refuse(
            "signals", f"holds {sorted(map(str, keys))[0]!r}, which is the device, time or cohort column"
        )
    table.close()
    return spec


def _window(table: Table) -> WindowSpec:
    slots = table.integer("slots", 12, least=1, most=4096)
    spec = WindowSpec(
        slots=slots,
        interval_seconds=table.optional_number("interval_seconds", least=0.001),
        largest_gap_seconds=table.optional_number("largest_gap_seconds", least=0.001),
        minimum_readings=table.optional_integer("minimum_readings", least=1, most=slots),
    )
    table.close()
    return spec


def _features(table: Table) -> FeatureSpec:
    spec = FeatureSpec(table.texts("statistics", ("last", "mean")))
    if not spec.statistics:
        raise table.refuse("statistics", "must name at least one statistic")
    table.close()
    return spec


def _detector(table: Table) -> DetectorSpec:
    spec = DetectorSpec(
        kind=table.choice("kind", ("isolation_forest",), "isolation_forest"),
        trees=table.integer("trees", 200, least=1, most=5000),
        max_samples=table.optional_integer("max_samples", least=2, most=1 << 20),
        max_features=table.number("max_features", 1.0, least=1e-6, most=1.0),
        seed=table.integer("seed", 0, least=0, most=2**32 - 1),
    )
    table.close()
    return spec


def _calibration(table: Table) -> CalibrationSpec:
    spec = CalibrationSpec(
        alarms_per_device_day=table.number("alarms_per_device_day", 0.02, least=1e-9),
        threshold=table.optional_number("threshold", least=0.0, most=1.0),
        incident_gap=table.integer("incident_gap", 3, least=1, most=10_000),
        assumed_contamination=table.number("assumed_contamination", 0.01, most=0.5),
    )
    table.close()
    return spec


def _train(table: Table) -> TrainSpec:
    value = table.take("holdout", EVERY_SECOND)
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        spec = TrainSpec(tuple(value))
    elif value in (EVERY_SECOND, "none"):
        spec = TrainSpec(str(value))
    else:
        raise table.refuse("holdout", f"must be {EVERY_SECOND!r}, 'none' or a list of device ids")
    table.close()
    return spec


def _release(table: Table) -> ReleaseSpec:
    spec = ReleaseSpec(
        channels=tuple(table.check_name("channel", name) for name in table.texts("channels", ("stable",))),
        precision=table.choice("precision", ("auto", "fp32", "codebook8"), "auto"),
        cohorts=table.flag("cohorts", True),
    )
    if not spec.channels:
        raise table.refuse("channels", "must name at least one channel")
    table.close()
    return spec


def _plain(section: Any) -> dict[str, Any]:
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name in section.__dataclass_fields__
        for value in (getattr(section, name),)
    }

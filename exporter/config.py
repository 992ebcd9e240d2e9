"""Read ``model.toml``: what is read, how windows are cut, what is trained and released.

An unknown key is refused, so that a misspelling cannot silently train another model. Paths are relative to the file
that names them::

    spec = load_spec(Path("model.toml"))
    spec.data.signals, spec.window.slots, spec.detector.trees
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from exporter.errors import SpecError
from exporter.spec import (
    BATCHES,
    EVERY_SECOND,
    HELD_OUT,
    KINDS,
    LABELLED,
    MAX_BAD_ROWS,
    TRAINING,
    CalibrationSpec,
    CompareSpec,
    DataSpec,
    DetectorSpec,
    FeatureSpec,
    GoalSpec,
    ModelSpec,
    OnnxSpec,
    Precision,
    ProofSpec,
    ReleaseSpec,
    StepSpec,
    TrainSpec,
    WindowSpec,
)
from exporter.spec_reading import Table

__all__ = [
    "EVERY_SECOND",
    "LABELLED",
    "CalibrationSpec",
    "CompareSpec",
    "DataSpec",
    "DetectorSpec",
    "FeatureSpec",
    "GoalSpec",
    "ModelSpec",
    "OnnxSpec",
    "Precision",
    "ProofSpec",
    "ReleaseSpec",
    "StepSpec",
    "TrainSpec",
    "WindowSpec",
    "load_spec",
    "parse_spec",
]


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
        detector=_detector(root.table("detector"), folder),
        calibration=_calibration(root.table("calibration")),
        train=_train(root.table("train")),
        goals=_goals(root.table("goals")),
        prove=_proofs(root, folder),
        release=_release(root.table("release")),
        compare=_compare(root.table("compare"), folder),
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
        max_bad_rows=table.number("max_bad_rows", MAX_BAD_ROWS, most=1.0),
    )
    keys = {spec.device, spec.time, spec.cohort} & set(spec.columns)
    if keys:
        raise table.refuse(
            "signals", f"holds {sorted(map(str, keys))[0]!r}, which is the device, time or cohort column"
        )
    table.close()
    return spec


def _window(table: Table) -> WindowSpec:
    slots = table.integer("slots", WindowSpec().slots, least=1, most=4096)
    spec = WindowSpec(
        slots=slots,
        interval_seconds=table.optional_number("interval_seconds", least=0.001),
        largest_gap_seconds=table.optional_number("largest_gap_seconds", least=0.001),
        minimum_readings=table.optional_integer("minimum_readings", least=1, most=slots),
    )
    table.close()
    return spec


def _features(table: Table) -> FeatureSpec:
    spec = FeatureSpec(table.texts("statistics", FeatureSpec().statistics))
    if not spec.statistics:
        raise table.refuse("statistics", "must name at least one statistic")
    table.close()
    return spec


def _detector(table: Table, folder: Path) -> DetectorSpec:
    default = DetectorSpec()
    kind = table.choice("kind", KINDS, default.kind)
    spec = DetectorSpec(
        kind=kind,
        trees=table.integer("trees", default.trees, least=1, most=5000),
        max_samples=table.optional_integer("max_samples", least=2, most=1 << 20),
        max_features=table.number("max_features", default.max_features, least=1e-6, most=1.0),
        seed=table.integer("seed", default.seed, least=0, most=2**32 - 1),
        cohort_weight=table.number("cohort_weight", default.cohort_weight, least=0.01, most=0.99),
        hidden=table.integers("hidden", default.hidden, least=1, most=4096),
        epochs=table.integer("epochs", default.epochs, least=1, most=10_000),
        steps=tuple(_step(step) for step in table.tables("steps")),
        onnx=_onnx(table.table("onnx"), folder) if kind == "onnx" else None,
    )
    if kind == "sklearn" and not spec.steps:
        raise table.refuse(
            "steps", "must name at least one estimator", 'For example: [{ use = "sklearn.svm.OneClassSVM" }].'
        )
    if kind != "sklearn" and spec.steps:
        raise table.refuse(
            "steps", f"says nothing to kind {kind!r}", "Set detector.kind = 'sklearn', or leave steps out."
        )
    table.close()
    return spec


def _step(table: Table) -> StepSpec:
    spec = StepSpec(table.text("use"), table.values("parameters"))
    table.close()
    return spec


def _onnx(table: Table, folder: Path) -> OnnxSpec:
    spec = OnnxSpec(
        path=folder / table.text("path"),
        input=table.optional_text("input"),
        output=table.optional_text("output"),
        higher_is=table.choice("higher_is", ("anomalous", "healthy"), "anomalous"),
        column=table.optional_integer("column", least=0, most=1),
        impute=table.flag("impute", False),
    )
    table.close()
    return spec


def _calibration(table: Table) -> CalibrationSpec:
    default = CalibrationSpec()
    spec = CalibrationSpec(
        alarms_per_device_day=table.number("alarms_per_device_day", default.alarms_per_device_day, least=1e-9),
        threshold=table.optional_number("threshold", least=0.0, most=1.0),
        incident_gap=table.integer("incident_gap", default.incident_gap, least=1, most=10_000),
        assumed_contamination=table.number("assumed_contamination", default.assumed_contamination, most=0.5),
    )
    table.close()
    return spec


def _train(table: Table) -> TrainSpec:
    value = table.take("holdout", TrainSpec().holdout)
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        spec = TrainSpec(tuple(value))
    elif value in (EVERY_SECOND, LABELLED, "none"):
        spec = TrainSpec(str(value))
    else:
        raise table.refuse("holdout", f"must be {EVERY_SECOND!r}, {LABELLED!r}, 'none' or a list of device ids")
    table.close()
    return spec


def _goals(table: Table) -> GoalSpec:
    default = GoalSpec()
    spec = GoalSpec(
        spearman_loss=table.number("spearman_loss", default.spearman_loss, most=1.0),
        label_flips=table.number("label_flips", default.label_flips, most=1.0),
        auc_loss=table.number("auc_loss", default.auc_loss, most=1.0),
        raw_difference=table.optional_number("raw_difference", most=1.0),
        prefer=table.choice("prefer", ("smallest", "fastest"), default.prefer),
        batch=table.choice_of_numbers("batch", BATCHES, default.batch),
        slowdown=table.number("slowdown", default.slowdown, least=1.0),
    )
    table.close()
    return spec


def _proofs(root: Table, folder: Path) -> tuple[ProofSpec, ...]:
    found: list[ProofSpec] = []
    for table in root.tables("prove"):
        labels = table.optional_text("labels")
        name, readings = table.text("name"), folder / table.text("readings")
        if name in (HELD_OUT, TRAINING, *(one.name for one in found)):
            raise table.refuse("name", f"is {name!r}, which another data set has")
        found.append(ProofSpec(name, readings, None if labels is None else folder / labels))
        table.close()
    return tuple(found)


def _release(table: Table) -> ReleaseSpec:
    default = ReleaseSpec()
    spec = ReleaseSpec(
        channels=tuple(table.check_name("channel", name) for name in table.texts("channels", default.channels)),
        precision=table.choice("precision", ("auto", "fp32", "codebook8", "int8"), default.precision),
        cohorts=table.flag("cohorts", default.cohorts),
    )
    if not spec.channels:
        raise table.refuse("channels", "must name at least one channel")
    table.close()
    return spec


def _compare(table: Table, folder: Path) -> CompareSpec:
    default = CompareSpec()
    detectors = tuple(_detector(one, folder) for one in table.tables("detectors"))
    spec = CompareSpec(
        detectors=detectors or default.detectors,
        windows=table.integers("windows", default.windows, least=1, most=4096),
        statistics=table.lists_of_texts("statistics", default.statistics),
        context=table.flags("context", default.context),
    )
    if not spec.windows:
        raise table.refuse("windows", "must name at least one number of slots")
    table.close()
    return spec

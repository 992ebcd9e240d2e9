"""Models made by the exporter itself, for the scripts that measure what it ships."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from exporter.built import Build, BuiltModel
from exporter.config import CalibrationSpec, DetectorSpec, FeatureSpec, ModelSpec, TrainSpec, WindowSpec, load_spec
from exporter.dataset import Fleet, read_fleet
from exporter.keys import create_key
from exporter.model_build import build_models
from exporter.packing import PackedBundle, pack_model
from exporter.provenance import Provenance
from exporter.window_sets import WindowSet, cut_windows

SLOTS = 24
TREES = 300


@dataclass(frozen=True, slots=True)
class Phones:
    """The model that the promises are about: 24 readings of 25 signals, 3 of them context, 300 trees.

    Attributes:
        built: The model.
        packed: Its bundle, with golden windows and card.
        fleet: The simulated phones.
        train_seconds: What the build took.
    """

    built: BuiltModel
    packed: PackedBundle
    fleet: Fleet
    build_seconds: dict[str, float]


def build_phones(folder: Path, *, devices: int = 40, days: int = 7) -> Phones:
    """Simulate a fleet of phones, train one model for all of them and pack it.

    Args:
        folder: Empty; gets telemetry and keys.
        devices: Phones in the fleet.
        days: Days of readings, one every half hour.
    """
    from exporter.simulator import FleetOptions, simulate_fleet

    simulate_fleet(FleetOptions(devices=devices, days=days), folder / "fleet")
    spec = settings(folder / "fleet" / "readings.parquet", folder / "fleet" / "labels.parquet", folder, name="phones")
    spec = replace(
        spec,
        window=WindowSpec(slots=SLOTS),
        features=FeatureSpec(),
        detector=DetectorSpec(trees=TREES),
        train=TrainSpec("none"),
        release=replace(spec.release, cohorts=False, precision="fp32"),
    )
    build = build_models(spec, progress=None)
    return Phones(build.models[0], pack(build, spec, folder)[0], read_fleet(spec.data), dict(build.timings))


def settings(
    readings: Path, labels: Path | None, folder: Path, *, name: str, context: Sequence[str] | None = None
) -> ModelSpec:
    """Return the settings that ``exporter init`` proposes, as the demo takes them."""
    from exporter.columns import guess_columns
    from exporter.init import write_settings

    columns = guess_columns(readings, context=context)
    path = folder / f"{name}.toml"
    path.write_text(write_settings(columns, readings, labels, name=name, folder=folder), "utf-8")
    return load_spec(path)


def pack(build: Build, spec: ModelSpec, folder: Path) -> list[PackedBundle]:
    """Pack every model of a build under a new key."""
    key = create_key(folder / "targets.pem", "targets", None)
    provenance = Provenance(
        build.data_digest,
        build.readings,
        build.devices,
        spec.to_dict(),
        created=datetime.now(UTC).replace(microsecond=0),
    )
    return [pack_model(model, provenance, key, name=spec.name, version="1", release_number=1) for model in build.models]


def tabular(frame: pd.DataFrame, folder: Path, *, name: str, days_per_row: float) -> ModelSpec:
    """Write rows that are nobody's history as a fleet of devices with one reading each, and return its settings.

    Args:
        frame: Signals only.
        folder: Where to write.
        name: Of the model.
        days_per_row: How long each row counts as watched, for the alarm rate.
    """
    table = frame.assign(
        device_id=[f"row-{k:06d}" for k in range(len(frame))], timestamp=pd.Timestamp("2026-01-01", tz="UTC")
    )
    path = folder / f"{name}.parquet"
    table.to_parquet(path, index=False)
    spec = settings(path, None, folder, name=name, context=())
    window = WindowSpec(slots=1, interval_seconds=days_per_row * 86_400)
    return replace(spec, window=window, train=TrainSpec("none"), calibration=CalibrationSpec())


def windows_of(fleet: Fleet, built: BuiltModel, names: Sequence[str] | None = None) -> WindowSet:
    """Cut the windows of some devices (all when None) as the model wants them."""
    chosen = [device for device in fleet.devices if names is None or device.name in names]
    return cut_windows(chosen, built.window_rule)


def verdicts_of(windows: WindowSet, built: BuiltModel) -> tuple[npt.NDArray[np.float64], ...]:
    """Score windows with the model that ships; returns anomaly scores, raw scores and flags, (m,) each."""
    from edge_runtime.scoring import Scorer

    scorer = Scorer(built.model_onnx)
    parts = [scorer.score(block) for block in windows.blocks()]
    return tuple(
        np.concatenate([np.asarray(getattr(part, name), np.float64) for part in parts])
        for name in ("anomaly_score", "raw_score", "is_anomaly")
    )

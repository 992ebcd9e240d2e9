"""A small fleet of devices that charge or not, written as files, and the settings of a model of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from exporter.config import CalibrationSpec, DataSpec, DetectorSpec, ModelSpec, WindowSpec

HOURS = 140
FAULTY_FROM = 110


def fleet(cohorts: dict[str, int], seed: int = 0) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Devices that charge or not; two signals follow the charger, one goes missing, every third device fails."""
    rng = np.random.default_rng(seed)
    parts = []
    for cohort, devices in cohorts.items():
        for number in range(devices):
            charging = (rng.random(HOURS) < 0.4).astype(float)
            current = 5 + 20 * charging + rng.normal(size=HOURS)
            heat = 30 + 8 * charging + rng.normal(size=HOURS)
            free = rng.lognormal(3, 1, HOURS)
            label = np.zeros(HOURS, int)
            if number % 3 == 1:
                label[FAULTY_FROM:] = 1
                heat[FAULTY_FROM:] += np.linspace(2, 4, HOURS - FAULTY_FROM)
            free[rng.random(HOURS) < 0.05] = np.nan
            times = pd.date_range("2024-01-01", periods=HOURS, freq="h", tz="UTC")
            parts.append(
                pd.DataFrame(
                    {"device_id": f"{cohort}-{number:02}", "timestamp": times, "cohort": cohort, "current": current,
                     "heat": heat, "free": free, "fixed": 41.7, "charging": charging, "label": label}
                )
            )  # fmt: skip
    table = pd.concat(parts, ignore_index=True)
    return table.drop(columns="label"), table[["device_id", "timestamp", "label"]]


def spec_of(folder: Path, cohorts: dict[str, int], *, labelled: bool = True) -> ModelSpec:
    readings, labels = fleet(cohorts)
    readings.to_parquet(folder / "readings.parquet")
    labels.to_parquet(folder / "labels.parquet")
    return ModelSpec(
        name="small",
        data=DataSpec(
            readings=folder / "readings.parquet",
            labels=folder / "labels.parquet" if labelled else None,
            device="device_id",
            time="timestamp",
            cohort="cohort",
            signals=("current", "heat", "free", "fixed"),
            context=("charging",),
        ),
        window=WindowSpec(slots=6),
        detector=DetectorSpec(trees=60),
        calibration=CalibrationSpec(alarms_per_device_day=0.1),
    )

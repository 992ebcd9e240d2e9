"""Which telemetry the demo uses, who trains, who becomes a device, and the readings of each device as a file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from .processes import DemoError, run

DEVICES = 24
CONTEXT = {"cmapss": ("op_setting_1", "op_setting_2", "op_setting_3")}


@dataclass(frozen=True, slots=True)
class Fleet:
    """Telemetry of a fleet.

    Attributes:
        name: ``cmapss``, ``simulated`` or the folder's name.
        readings: Path of ``readings.parquet``.
        labels: Path of ``labels.parquet``.
        chosen: (device, cohort) of those that become devices, none of which trains.
        cohorts: Every cohort.
        rows: Number of readings of the chosen devices.
    """

    name: str
    readings: Path
    labels: Path
    chosen: tuple[tuple[str, str], ...]
    cohorts: tuple[str, ...]
    rows: int


def prepare(folder: Path | None, shared: Path, work: Path) -> Fleet:
    """Pick the telemetry (given folder, else the shared engines, else a simulated fleet) and the devices.

    Raises:
        DemoError: The folder lacks a file.
    """
    if folder is None:
        folder = shared if (shared / "readings.parquet").is_file() else work / "data"
        if folder == work / "data":
            run("exporter", "simulate", "--out", folder, "--seed", "7")
    readings, labels = folder / "readings.parquet", folder / "labels.parquet"
    for path in (readings, labels):
        if not path.is_file():
            raise DemoError(f"{path} is missing; DEMO_DATA names a folder with readings.parquet and labels.parquet.")
    name = "simulated" if folder == work / "data" else folder.name
    frame = pd.read_parquet(readings)
    held_out = _held_out(frame)
    chosen = _spread(held_out)
    _write_files(frame, chosen, work)
    rows = int(frame["device_id"].isin([device for device, _ in chosen]).sum())
    return Fleet(name, readings, labels, chosen, tuple(sorted(held_out)), rows)


def readings_file(work: Path, device: str) -> Path:
    """Return where the readings of a device lie, as CSV."""
    return work / "readings" / f"{device}.csv"


def _held_out(frame: pd.DataFrame) -> dict[str, list[str]]:
    """Every second device id, sorted, per cohort, trains; the others are returned by cohort."""
    pairs = frame[["device_id", "cohort"]].drop_duplicates("device_id")
    return {str(cohort): sorted(group["device_id"])[1::2] for cohort, group in pairs.groupby("cohort")}


def _spread(held_out: dict[str, list[str]]) -> tuple[tuple[str, str], ...]:
    # Round robin over the cohorts, so that every one is there.
    chosen: list[tuple[str, str]] = []
    for turn in range(max(map(len, held_out.values()))):
        chosen += [(ids[turn], cohort) for cohort, ids in sorted(held_out.items()) if turn < len(ids)]
    return tuple(sorted(chosen[: max(DEVICES, len(held_out))]))


def _write_files(frame: pd.DataFrame, chosen: tuple[tuple[str, str], ...], work: Path) -> None:
    """Write each device's readings, moved by whole days so that the newest is of the last 24 hours.

    The telemetry is years old, and a dashboard shows this week first. Whole days keep hours and windows as they are.
    """
    (work / "readings").mkdir(parents=True, exist_ok=True)
    times = pd.to_datetime(frame["timestamp"], utc=True)
    newest = times[frame["device_id"].isin([device for device, _ in chosen])].max()
    moved = frame.assign(timestamp=times + (pd.Timestamp.now("UTC") - newest).floor("D"))
    for device, _ in chosen:
        own = moved[moved["device_id"] == device].drop(columns=["device_id", "cohort"])
        own.to_csv(readings_file(work, device), index=False)

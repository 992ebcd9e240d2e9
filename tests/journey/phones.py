"""A small simulated fleet of phones, and the model that the exporter's own commands make of it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from journey.stack import Stack, run

MODEL, CHANNEL = "phones", "phones"
FAULTY, HEALTHY = 4, 2


@dataclass(frozen=True)
class Trained:
    """A model that the exporter made of a simulated fleet, and telemetry that it has not seen.

    Attributes:
        report: What ``exporter build --json`` printed.
        readings: Path of the readings of each device that did not train.
        faulty: Which of them develop a fault.
    """

    report: dict[str, Any]
    readings: dict[str, Path]
    faulty: frozenset[str]


def train_phones(stack: Stack) -> Trained:
    """Simulate a small fleet, train few trees on half of it, publish, and roll out to the whole channel."""
    folder = stack.folder / "phones"
    fleet = folder / "fleet"
    run("exporter", "simulate", "--out", fleet, "--devices", "24", "--days", "7", "--seed", "3", "--fault-share", "0.5")
    config = folder / "model.toml"
    run("exporter", "init", fleet / "readings.parquet", "--model", MODEL, "--out", config)
    text = config.read_text()
    # Few trees train in a moment; a fleet this small cannot support a rate as low as the default.
    for shown, wanted in (
        ("# trees = 200", "trees = 40"),
        ("# alarms_per_device_day = 0.02", "alarms_per_device_day = 0.2"),
        ('# channels = ["stable"]', f'channels = ["{CHANNEL}"]'),
    ):
        assert shown in text
        text = text.replace(shown, wanted)
    config.write_text(text)
    printed = run(
        "exporter", "build", "--config", config, "--out", folder / "build", "--repository", stack.repository,
        "--targets-key", stack.folder / "keys" / "targets.pem", "--publish", stack.url, "--token-file",
        stack.token_files["publisher"], "--share", "100%", "--json",
    )  # fmt: skip
    report = json.loads(printed)
    frame, labels = (pd.read_parquet(fleet / f"{name}.parquet") for name in ("readings", "labels"))
    # Every second device of a cohort trains; the others are telemetry that the model has not seen.
    unseen = [d for _, group in frame.groupby("cohort") for d in sorted(set(group["device_id"]))[1::2]]
    faulty = sorted(set(labels[labels["label"] == 1]["device_id"]) & set(unseen))[:FAULTY]
    healthy = sorted(set(unseen) - set(labels[labels["label"] != 0]["device_id"]))[:HEALTHY]
    readings = {}
    for device in [*faulty, *healthy]:
        readings[device] = folder / f"{device}.csv"
        frame[frame["device_id"] == device].to_csv(readings[device], index=False)
    return Trained(report, readings, frozenset(faulty))


def one_long_life(trained: Trained, path: Path) -> Path:
    """Write the readings of all devices behind one another, each a few days later, as those of one device."""
    parts: list[pd.DataFrame] = []
    for source in trained.readings.values():
        part = pd.read_csv(source, parse_dates=["timestamp"])
        if parts:
            # Whole days keep the daily rhythm; two of them are longer than any gap that a window sees across.
            days = (parts[-1]["timestamp"].max() - part["timestamp"].min()).days + 2
            part["timestamp"] += pd.Timedelta(days=days)
        parts.append(part)
    pd.concat(parts).to_csv(path, index=False)
    return path

"""The real data sets beside the checkout, read as the benchmarks need them; they are never copied into the project."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from benchmarks.machine import REPOSITORY

SHARED = REPOSITORY.parent / "shared" / "data"
MISSING = "The real data sets are not beside this checkout (../shared/data), so what needs them was left out."
KEYS = ("device_id", "timestamp", "cohort")
Floats = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True)
class Case:
    """One forest to train and the rows to score with it.

    Attributes:
        data_set: Where it comes from.
        part: Cohort or device, empty when the set is one.
        train: (n, F) rows that the forest is trained on.
        score: (m, F) rows to score.
        labels: (m,) 1 = anomalous, 0 = healthy, -1 = do not judge.
    """

    data_set: str
    part: str
    train: Floats
    score: Floats
    labels: npt.NDArray[np.int64]


def available() -> bool:
    """Whether the data sets are there."""
    return (SHARED / "cmapss" / "readings.parquet").is_file()


def cases(of: tuple[str, ...] = ("cmapss", "backblaze2019", "smd", "asd", "adbench")) -> Iterator[Case]:
    """Yield data sets, trained and scored as their README says.

    Args:
        of: Which of them.
    """
    if "cmapss" in of:
        yield from _cmapss()
    if "backblaze2019" in of:
        yield from _backblaze()
    for name in ("smd", "asd"):
        if name in of:
            yield from _by_device(name)
    if "adbench" in of:
        yield from _adbench()


def _adbench() -> Iterator[Case]:
    for path in sorted((SHARED / "adbench").glob("*.npz"), key=lambda path: path.stem.split("_", 1)[1].lower()):
        with np.load(path, allow_pickle=False) as arrays:
            X, y = arrays["X"], arrays["y"].astype(np.int64).reshape(-1)
        yield Case("adbench", path.stem.split("_", 1)[1], X, X, y)


def fleet(name: str) -> pd.DataFrame:
    """Return a fleet's readings with their ``label`` (-1 where none is given), by device and time."""
    keys = ["device_id", "timestamp"]
    readings = pd.read_parquet(SHARED / name / "readings.parquet")
    labels = pd.read_parquet(SHARED / name / "labels.parquet").drop(columns="rul", errors="ignore")
    joined = readings.merge(labels, on=keys, how="left").sort_values(keys, ignore_index=True)
    joined["label"] = joined["label"].fillna(-1).astype("int64")
    return joined


def signals(frame: pd.DataFrame) -> list[str]:
    """Return the names of the signals of a fleet."""
    return [name for name in frame.columns if name not in (*KEYS, "label")]


def _case(data_set: str, part: str, train: pd.DataFrame, score: pd.DataFrame) -> Case:
    columns = signals(train)
    return Case(data_set, part, train[columns].to_numpy(), score[columns].to_numpy(), score["label"].to_numpy())


def _cmapss() -> Iterator[Case]:
    readings = fleet("cmapss")
    for cohort, of_cohort in readings.groupby("cohort"):
        trained_on = sorted(of_cohort["device_id"].unique())[::2]
        trained = of_cohort["device_id"].isin(trained_on)
        yield _case("cmapss", str(cohort), of_cohort[trained & (of_cohort["label"] == 0)], of_cohort[~trained])


def _backblaze() -> Iterator[Case]:
    readings = fleet("backblaze2019")
    yield _case("backblaze2019", "", readings, readings)


def _by_device(name: str) -> Iterator[Case]:
    for device, of_device in fleet(name).groupby("device_id"):
        tested = of_device["label"] >= 0
        yield _case(name, str(device), of_device[~tested], of_device[tested])


def data_folder(name: str) -> Path:
    """Return the folder of a data set."""
    return SHARED / name

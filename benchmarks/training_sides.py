"""One side of the training benchmark, in a process of its own: read, features, forest.

``python -m benchmarks.training_sides SIDE READINGS SAMPLE`` prints one JSON object: seconds and processor seconds by
phase, rows. SAMPLE is an ``.npy`` file that gets the features of some rows, for the comparison of the sides.

Every side makes the same features: of five signals the newest value that is there, the mean and the population
standard deviation over 24 slots of an hour, blind to missing values. The slots are times, because readings get lost; a
count of 24 rows would be another feature. A rolling sum has to go over all rows to know some of them; windows that are
cut on demand do not, which is why the features of the sample that a forest is trained on are timed on their own.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

SIGNALS = ("battery_temperature", "cpu_load", "radio_latency", "storage_write_latency", "memory_free")
SLOTS = 24
HOUR_MS = 3_600_000
TREES = 200
# What the exporter trains a forest on; the others get as many, so that the phase is one of the same work.
MOST_TRAINED = 100_000
COMPARED_ROWS = 5_000
Matrix = npt.NDArray[np.float32]
# Features of some rows, or of all when None, (n, F) float32: of every signal the newest, then the mean of each, then
# the deviation of each.
Rows = npt.NDArray[np.int64] | None
Features = Callable[[Any, Rows], Matrix]


def main(side: str, readings: Path, sample: Path) -> None:
    """Do one side's work and print what it took."""
    read, features = {"ours": _ours, "pandas": _pandas, "polars": _polars}[side]()
    phases: dict[str, list[float]] = {}
    frame = _timed(phases, "read", lambda: read(readings))
    matrix = _timed(phases, "features", lambda: features(frame, None))
    count = len(matrix)
    np.save(sample, matrix[np.linspace(0, count - 1, COMPARED_ROWS).astype(np.int64)])
    del matrix
    rows = np.sort(np.random.default_rng(0).choice(count, min(count, MOST_TRAINED), replace=False))
    needed = _timed(phases, "features of the sample", lambda: features(frame, rows))
    _timed(phases, "forest", lambda: _fit(needed))
    print(json.dumps({"phases": phases, "rows": count}))


def _timed(phases: dict[str, list[float]], name: str, call: Callable[[], Any]) -> Any:
    cpu, began = time.process_time(), time.perf_counter()
    result = call()
    phases[name] = [time.perf_counter() - began, time.process_time() - cpu]
    return result


def _fit(matrix: Matrix) -> Any:
    from sklearn.ensemble import IsolationForest

    return IsolationForest(n_estimators=TREES, random_state=0).fit(matrix)


def _ours() -> tuple[Callable[[Path], Any], Features]:
    from edge_runtime.contract.window import WindowRule
    from exporter.config import DataSpec
    from exporter.dataset import Fleet, read_fleet
    from exporter.graph.features import feature_model, plan_features
    from exporter.graph.running import Graph
    from exporter.window_sets import cut_windows

    def features(fleet: Fleet, rows: Rows) -> Matrix:
        rule = WindowRule(SLOTS, HOUR_MS, SLOTS * HOUR_MS, 1)
        plan = plan_features(("last", "mean", "std"), signals=SIGNALS, context=(), slots=SLOTS)
        graph = Graph(feature_model(plan, None), threads=int(os.environ["SIDE_THREADS"]))
        windows = cut_windows(fleet.devices, rule)
        return np.asarray((windows if rows is None else windows.take(rows)).run(graph, ["features"])[0], np.float32)

    def read(path: Path) -> Fleet:
        return read_fleet(DataSpec(path, None, "device_id", "timestamp", None, SIGNALS, ()))

    return read, features


def _pandas() -> tuple[Callable[[Path], Any], Features]:
    import pandas as pd

    def features(frame: pd.DataFrame, rows: Rows) -> Matrix:
        slotted = frame.assign(slot=frame["timestamp"].dt.floor("h")).set_index("slot")
        grouped = slotted.groupby("device_id", sort=False, observed=True)[list(SIGNALS)]
        rolling = grouped.rolling(f"{SLOTS}h", min_periods=1)
        mean, deviation = (part.to_numpy(np.float32) for part in (rolling.mean(), rolling.std(ddof=0)))
        newest = grouped.ffill().to_numpy(np.float32, copy=True)
        newest[np.isnan(mean)] = np.nan  # what lies before the window
        matrix = np.concatenate([newest, mean, deviation], axis=1)
        return matrix if rows is None else matrix[rows]

    def read(path: Path) -> pd.DataFrame:
        frame = pd.read_parquet(path, columns=["device_id", "timestamp", *SIGNALS])
        return frame.astype({"device_id": "category"})

    return read, features


def _polars() -> tuple[Callable[[Path], Any], Features]:
    import polars as pl

    def features(frame: pl.DataFrame, rows: Rows) -> Matrix:
        named = [pl.col(name).fill_nan(None).cast(pl.Float64) for name in SIGNALS]
        slotted = frame.with_columns(pl.col("timestamp").dt.truncate("1h").alias("slot"), *named)
        rolled = slotted.rolling("slot", period=f"{SLOTS}h", group_by="device_id").agg(
            *(pl.col(name).mean().alias(f"{name}.mean") for name in SIGNALS),
            *(pl.col(name).std(ddof=0).alias(f"{name}.std") for name in SIGNALS),
        )
        rolled = rolled.sort("device_id", "slot")  # groups come in an order of their own
        newest = slotted.select(pl.col(name).forward_fill().over("device_id") for name in SIGNALS)
        parts = newest.to_numpy(), rolled.drop("device_id", "slot").to_numpy()
        matrix = np.concatenate(parts, axis=1, dtype=np.float32)
        count = len(SIGNALS)
        matrix[:, :count][np.isnan(matrix[:, count : 2 * count])] = np.nan  # what lies before the window
        return matrix if rows is None else matrix[rows]

    def read(path: Path) -> pl.DataFrame:
        frame = pl.read_parquet(path, columns=["device_id", "timestamp", *SIGNALS])
        return frame.with_columns(pl.col("device_id").cast(pl.Categorical))

    return read, features


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))

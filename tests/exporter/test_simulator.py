"""The simulated fleet: the same seed gives the same files, and its faults can be learnt."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from edge_runtime.errors import InputError
from exporter.simulator import FleetOptions, simulate_fleet
from exporter.simulator.faults import KINDS
from exporter.simulator.fleet import HARDWARE, cohort_sizes
from exporter.simulator.signals import CONTEXT, SIGNALS


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fleet")
    simulate_fleet(FleetOptions(devices=60, days=10, seed=3), folder)
    return folder


def test_layout_is_the_one_the_exporter_reads(fleet: Path) -> None:
    readings = pd.read_parquet(fleet / "readings.parquet")
    labels = pd.read_parquet(fleet / "labels.parquet")
    assert list(readings.columns) == ["device_id", "timestamp", "cohort", *SIGNALS]
    assert len(SIGNALS) == 25
    assert str(readings["timestamp"].dtype) == "datetime64[us, UTC]"
    assert (readings[list(SIGNALS)].dtypes == np.float32).all()
    assert readings[["device_id", "timestamp"]].equals(labels[["device_id", "timestamp"]])
    assert set(labels["label"].unique()) == {-1, 0, 1}
    assert labels["label"].dtype == np.int8


def test_equal_options_give_equal_bytes_and_other_seeds_do_not(tmp_path: Path) -> None:
    def bytes_of(name: str, seed: int) -> list[bytes]:
        simulate_fleet(FleetOptions(devices=5, days=2, seed=seed), tmp_path / name)
        return [path.read_bytes() for path in sorted((tmp_path / name).iterdir())]

    first = bytes_of("a", 1)
    assert first == bytes_of("b", 1)
    assert first != bytes_of("c", 2)


def test_times_ascend_by_device_and_gaps_and_missing_values_occur(fleet: Path) -> None:
    readings = pd.read_parquet(fleet / "readings.parquet")
    steps = readings.groupby("device_id")["timestamp"].diff().dropna()
    assert (steps > pd.Timedelta(0)).all()
    assert steps.max() > pd.Timedelta(hours=2)
    assert steps.nunique() > 1000, "sampling is irregular"
    assert 0 < readings["radio_signal"].isna().mean() < 0.1
    assert not readings[list(CONTEXT)].isna().any().any()


def test_every_cohort_and_every_kind_of_fault_occurs(fleet: Path) -> None:
    readings = pd.read_parquet(fleet / "readings.parquet", columns=["device_id", "cohort", "timestamp"])
    with (fleet / "failures.csv").open() as stream:
        failures = list(csv.DictReader(stream))
    assert set(readings["cohort"]) == {kind.name for kind in HARDWARE}
    assert {row["kind"] for row in failures} == set(KINDS)
    last = readings.groupby("device_id")["timestamp"].max()
    for row in failures:
        assert last[row["device_id"]] <= pd.Timestamp(row["timestamp"]) + pd.Timedelta(seconds=1)


def test_people_have_a_rhythm(fleet: Path) -> None:
    readings = pd.read_parquet(fleet / "readings.parquet", columns=["timestamp", "charging"])
    charging = readings.groupby(readings["timestamp"].dt.hour)["charging"].mean()
    assert charging[2] > charging[13] + 0.3


def test_a_forest_learns_the_faults_from_healthy_devices(fleet: Path) -> None:
    from sklearn.ensemble import IsolationForest
    from sklearn.metrics import roc_auc_score

    readings = pd.read_parquet(fleet / "readings.parquet")
    label = pd.read_parquet(fleet / "labels.parquet")["label"].to_numpy()
    signals = [name for name in SIGNALS if name not in CONTEXT]
    regime = readings["charging"] * 4 + readings["network_type"] * 2 + readings["screen_on"]
    devices = sorted(readings["device_id"].unique())
    in_training = readings["device_id"].isin(devices[::2])
    healthy = readings[in_training & (label == 0)]
    grouped = healthy.groupby(regime[healthy.index])[signals]
    means, spreads = grouped.mean().loc[regime].to_numpy(), grouped.std().replace(0.0, 1.0).loc[regime].to_numpy()
    residuals = pd.DataFrame((readings[signals].to_numpy() - means) / spreads, columns=signals)
    rolled = residuals.groupby(readings["device_id"]).rolling(12, min_periods=6).mean().reset_index(drop=True)
    whole = rolled.notna().any(axis=1)
    forest = IsolationForest(n_estimators=100, random_state=0)
    forest.fit(rolled[whole & in_training & (label == 0)].to_numpy())
    scored = whole & ~in_training & (label >= 0)
    assert roc_auc_score(label[scored], -forest.score_samples(rolled[scored].to_numpy())) > 0.95


@pytest.mark.parametrize("devices", [1, 2, 3, 10, 121])
def test_cohorts_share_all_devices(devices: int) -> None:
    assert sum(count for _, count in cohort_sizes(devices)) == devices


def test_a_fleet_is_not_overwritten_unless_told(fleet: Path) -> None:
    with pytest.raises(InputError, match=r"already holds readings\.parquet"):
        simulate_fleet(FleetOptions(devices=1, days=1), fleet)


@pytest.mark.parametrize(
    "wrong", [{"devices": 0}, {"days": 0}, {"interval_minutes": 0}, {"fault_share": 1.5}, {"interval_minutes": 1441}]
)
def test_options_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(InputError, match="must"):
        FleetOptions(**wrong)  # type: ignore[arg-type]


def test_blocks_bound_memory_and_change_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("exporter.simulator.writer.BLOCK_READINGS", 200)
    done: list[tuple[int, int]] = []
    simulate_fleet(FleetOptions(devices=20, days=2), tmp_path, progress=lambda a, b: done.append((a, b)))
    assert len(done) > 5
    assert done[-1] == (20, 20)
    assert pd.read_parquet(tmp_path / "readings.parquet")["device_id"].nunique() == 20

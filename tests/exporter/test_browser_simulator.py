"""Simulated browsers: the layout the exporter reads, what real browsers lack, and faults that show."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from edge_runtime.errors import InputError
from exporter.cli import run_command
from exporter.simulator import BrowserOptions, simulate_browsers
from exporter.simulator.browsers import KINDS, UNITS

PAGE = Path(__file__).resolve().parents[2] / "web_demo" / "src" / "page" / "sources" / "browser.ts"
SIGNALS = list(UNITS)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("browsers")
    simulate_browsers(BrowserOptions(browsers=40, minutes=4, seed=3, fault_share=0.5), folder)
    return folder


def test_layout_is_the_one_the_exporter_reads(fleet: Path) -> None:
    readings, labels = (pd.read_parquet(fleet / f"{name}.parquet") for name in ("readings", "labels"))
    assert list(readings.columns) == ["device_id", "timestamp", *SIGNALS]
    assert (readings[SIGNALS].dtypes == np.float32).all()
    assert readings[["device_id", "timestamp"]].equals(labels[["device_id", "timestamp"]])
    assert set(labels["label"].unique()) == {-1, 0, 1}
    steps = readings.groupby("device_id")["timestamp"].diff().dropna()
    assert pd.Timedelta(0) < steps.min()
    assert steps.median() == pytest.approx(pd.Timedelta(seconds=1), abs=pd.Timedelta(milliseconds=50))


def test_the_page_reads_the_same_signals_in_the_same_order() -> None:
    _, _, after = PAGE.read_text().partition("export const BROWSER_SIGNALS = [")
    assert [name.strip().strip('"') for name in after.partition("]")[0].split(",") if name.strip()] == SIGNALS


def test_browsers_lack_signals_for_good_or_offer_them_throughout(fleet: Path) -> None:
    readings = pd.read_parquet(fleet / "readings.parquet")
    for name in ("battery_level", "network_round_trip", "memory_used", "motion"):
        missing = readings[name].isna().groupby(readings["device_id"]).mean()
        assert set(missing) == {0.0, 1.0}, name
    # Timers and frames exist everywhere, and are silent only in the background.
    hidden = readings["event_loop_delay"].isna()
    assert 0 < hidden.mean() < 0.5
    assert (hidden == readings["frame_rate"].isna()).all()


def test_every_fault_moves_its_signal_far(fleet: Path) -> None:
    readings, labels = (pd.read_parquet(fleet / f"{name}.parquet") for name in ("readings", "labels"))
    kinds = pd.read_csv(fleet / "failures.csv").set_index("device_id")["kind"]
    assert set(kinds) == set(KINDS)
    moved = {"busy_page": "event_loop_delay", "memory_leak": "memory_used", "slow_network": "network_round_trip"}
    for kind, signal in moved.items():
        mine = readings["device_id"].map(kinds) == kind
        faulty, healthy = readings[mine & (labels["label"] == 1)], readings[mine & (labels["label"] == 0)]
        assert faulty[signal].median() > healthy[signal].median() + 30 or faulty[signal].isna().all(), kind


def test_equal_options_give_equal_bytes_and_a_fleet_is_not_overwritten(tmp_path: Path) -> None:
    options = BrowserOptions(browsers=3, minutes=1, seed=4)
    simulate_browsers(options, tmp_path / "a")
    simulate_browsers(options, tmp_path / "b")
    assert (tmp_path / "a" / "readings.parquet").read_bytes() == (tmp_path / "b" / "readings.parquet").read_bytes()
    with pytest.raises(InputError, match="already holds"):
        simulate_browsers(options, tmp_path / "a")


@pytest.mark.parametrize("options", [{"browsers": 0}, {"minutes": 0}, {"fault_share": 1.5}])
def test_options_out_of_range(options: dict[str, float]) -> None:
    with pytest.raises(InputError):
        BrowserOptions(**options)  # type: ignore[arg-type]


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["simulate-browsers", "--out", str(tmp_path), "--browsers", "2", "--minutes", "1"]) == 0
    assert "readings of 2 browsers" in capsys.readouterr().out
    assert run_command(["simulate-browsers", "--out", str(tmp_path)]) == 3

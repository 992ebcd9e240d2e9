"""exporter init: columns are guessed with reasons, and what is written can be built from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from edge_runtime.errors import InputError
from exporter.columns import guess_columns
from exporter.config import load_spec
from exporter.errors import TelemetryError
from exporter.init import find_labels, propose_name, write_settings
from exporter.simulator import FleetOptions, simulate_fleet
from exporter.simulator.signals import CONTEXT, SIGNALS


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("phones")
    simulate_fleet(FleetOptions(devices=20, days=3), folder)
    return folder


def frame(rows: int = 400, **columns: object) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    base = {
        "unit": np.repeat([f"u{i}" for i in range(4)], rows // 4),
        "ts": np.tile(np.arange(rows // 4) * 60 + 1_700_000_000, 4),
        "pressure": rng.normal(size=rows),
        "flow": rng.normal(size=rows),
    }
    return pd.DataFrame({**base, **columns})


def test_simulated_fleet_is_understood_whole(fleet: Path) -> None:
    columns = guess_columns(fleet / "readings.parquet")
    assert (columns.device, columns.time, columns.cohort) == ("device_id", "timestamp", "cohort")
    assert set(columns.context) == set(CONTEXT)
    assert set(columns.signals) == set(SIGNALS) - set(CONTEXT)
    assert columns.units["battery_temperature"] == "degC"
    assert columns.interval_seconds == pytest.approx(1800, rel=0.05)
    assert find_labels(fleet / "readings.parquet", columns) == fleet / "labels.parquet"


def test_written_settings_can_be_loaded_and_say_what_was_guessed(fleet: Path) -> None:
    columns = guess_columns(fleet / "readings.parquet")
    text = write_settings(columns, fleet / "readings.parquet", fleet / "labels.parquet", name="phones", folder=fleet)
    (fleet / "model.toml").write_text(text)
    spec = load_spec(fleet / "model.toml")
    assert spec.name == "phones"
    assert spec.data.readings == fleet / "readings.parquet"
    assert spec.data.context == CONTEXT
    assert spec.window.interval_seconds == 1800
    assert spec.data.units["battery_level"] == "%"
    assert text.count("guessed") > 5
    assert 'readings = "readings.parquet"' in text, "paths are relative to the file"


def test_csv_with_other_names(tmp_path: Path) -> None:
    frame(machine_state=np.tile([0, 1], 200)).to_csv(tmp_path / "plant.csv", index=False)
    columns = guess_columns(tmp_path / "plant.csv")
    assert (columns.device, columns.time, columns.cohort) == ("unit", "ts", None)
    assert columns.context == ("machine_state",)
    assert columns.interval_seconds == 60


def test_switch_that_explains_the_others_is_proposed_and_a_rare_counter_is_not(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    load = np.tile([0, 0, 0, 1, 1], 80)
    data = frame(
        load=load,
        heat=rng.normal(size=400) + 5 * load,
        noise=rng.normal(size=400) + 4 * load,
        errors=rng.poisson(0.1, 400),
    )
    data.to_parquet(tmp_path / "r.parquet")
    columns = guess_columns(tmp_path / "r.parquet")
    assert columns.context == ("load",)
    assert "explains" in columns.reasons["load"]
    assert "errors" in columns.signals


def test_what_cannot_be_a_signal_is_left_out_with_its_reason(tmp_path: Path) -> None:
    data = frame(
        label=0, always=3.0, never=np.nan, words="text", second_time=pd.Timestamp("2026-01-01", tz="UTC"), rul=1
    )
    data.to_parquet(tmp_path / "r.parquet")
    columns = guess_columns(tmp_path / "r.parquet")
    assert columns.signals == ("pressure", "flow")
    assert columns.left_out == {
        "label": "a label would leak what the model is to find",
        "always": "always the same",
        "never": "always missing",
        "words": "no numbers",
        "second_time": "a second time",
        "rul": "a label would leak what the model is to find",
    }


def test_a_person_may_name_the_columns(tmp_path: Path) -> None:
    data = frame().rename(columns={"unit": "who", "ts": "when"})
    data.to_parquet(tmp_path / "r.parquet")
    with pytest.raises(TelemetryError, match="looks like a time"):
        guess_columns(tmp_path / "r.parquet")
    with pytest.raises(TelemetryError, match="looks like a device id"):
        guess_columns(tmp_path / "r.parquet", time="when")
    columns = guess_columns(tmp_path / "r.parquet", device="who", time="when", context=["flow"])
    assert (columns.signals, columns.context) == (("pressure",), ("flow",))
    with pytest.raises(TelemetryError, match="no column 'wen'") as caught:
        guess_columns(tmp_path / "r.parquet", time="wen", device="who")
    assert "when" in caught.value.advice


@pytest.mark.parametrize("name", ["empty.csv", "empty.parquet"])
def test_empty_and_foreign_files_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(TelemetryError, match="is empty"):
        guess_columns(tmp_path / name)
    (tmp_path / "x.parquet").write_bytes(b"hello, I am no parquet file at all")
    with pytest.raises(TelemetryError, match="cannot be read"):
        guess_columns(tmp_path / "x.parquet")


def test_folder_of_files_is_sampled(tmp_path: Path) -> None:
    for i in range(3):
        frame().to_csv(tmp_path / f"part{i}.csv", index=False)
    assert guess_columns(tmp_path).signals == ("pressure", "flow")


@pytest.mark.parametrize(
    ("path", "name"),
    [("/x/My Fleet/readings.parquet", "my-fleet"), ("/x/Plant 7.csv", "plant-7"), ("/readings.csv", "fleet")],
)
def test_model_name_comes_from_the_data(path: str, name: str) -> None:
    assert propose_name(Path(path)) == name


def test_names_with_quotes_survive(tmp_path: Path) -> None:
    data = frame(**{'odd "name" \\ #1': np.arange(400.0)})
    data.to_parquet(tmp_path / "r.parquet")
    columns = guess_columns(tmp_path / "r.parquet")
    text = write_settings(columns, tmp_path / "r.parquet", None, name="m", folder=tmp_path)
    (tmp_path / "model.toml").write_text(text)
    assert 'odd "name" \\ #1' in load_spec(tmp_path / "model.toml").data.signals


def test_wrong_model_name_is_refused(fleet: Path) -> None:
    columns = guess_columns(fleet / "readings.parquet")
    with pytest.raises(InputError, match="no name"):
        write_settings(columns, fleet / "readings.parquet", None, name="Not A Name", folder=fleet)


def test_real_engines_get_their_settings_as_context(shared_data: Path) -> None:
    columns = guess_columns(shared_data / "cmapss" / "readings.parquet")
    assert columns.context == ("op_setting_1", "op_setting_2", "op_setting_3")
    assert len(columns.signals) == 21
    assert columns.cohort == "cohort"


def test_one_reading_a_device_is_judged_alone(tmp_path: Path) -> None:
    data = frame().groupby("unit").head(1)
    data.to_parquet(tmp_path / "r.parquet")
    columns = guess_columns(tmp_path / "r.parquet")
    (tmp_path / "model.toml").write_text(write_settings(columns, tmp_path, None, name="m", folder=tmp_path))
    assert load_spec(tmp_path / "model.toml").window.slots == 1


def test_a_few_texts_late_in_a_large_csv_hide_no_signal(tmp_path: Path) -> None:
    data = pd.concat([frame(8000).assign(unit=f"v{i}") for i in range(6)]).astype({"flow": object})
    data.iloc[-3, data.columns.get_loc("flow")] = "broken"
    path = tmp_path / "r.csv"
    data.to_csv(path, index=False)
    with path.open("a") as stream:
        stream.write("u1,17\n")
    assert path.stat().st_size > 2_000_000, "more than one block of the reader"
    assert guess_columns(path).signals == ("pressure", "flow")
    data.assign(flow="on").to_csv(path, index=False)
    assert guess_columns(path).left_out == {"flow": "no numbers"}

"""Telemetry in: every row is used or accounted for, and what cannot be used is refused in one clear sentence."""

from __future__ import annotations

import gzip
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from exporter import tables
from exporter.config import LABELLED, DataSpec, TrainSpec
from exporter.dataset import Device, Fleet, read_fleet
from exporter.errors import SpecError, TelemetryError
from exporter.holdout import learns_from_labels, split_devices


def frame(rows: int = 200) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    times = pd.date_range("2024-01-01", periods=rows, freq="h", tz="UTC")
    parts = [
        pd.DataFrame(
            {
                "device_id": name,
                "timestamp": times,
                "cohort": "x",
                "a": rng.normal(size=rows),
                "b": rng.normal(size=rows),
            }
        )
        for name in ("d2", "d1")
    ]
    return pd.concat(parts, ignore_index=True)


def spec_of(path: Path, **changes: object) -> DataSpec:
    return replace(DataSpec(path, None, "device_id", "timestamp", "cohort", ("a",), ("b",)), **changes)


def write(folder: Path, data: pd.DataFrame, name: str = "readings.parquet") -> Path:
    path = folder / name
    if name.endswith(".csv"):
        data.to_csv(path, index=False)
    else:
        data.to_parquet(path)
    return path


@pytest.mark.parametrize("name", ["readings.parquet", "readings.csv"])
def test_parquet_and_csv_read_the_same(tmp_path: Path, name: str) -> None:
    data = frame()
    data.loc[3, "a"] = np.nan
    fleet = read_fleet(spec_of(write(tmp_path, data, name)))
    assert [device.name for device in fleet.devices] == ["d1", "d2"]
    second = fleet.devices[1]
    np.testing.assert_array_equal(second.values, data[["a", "b"]].to_numpy(np.float32)[:200])
    assert second.timestamps_ms[1] - second.timestamps_ms[0] == 3_600_000
    assert second.timestamps_ms[0] == 1_704_067_200_000
    assert (second.cohort, fleet.rows, fleet.set_aside, fleet.labelled) == ("x", 400, {}, False)
    assert (second.labels == -1).all()


@pytest.mark.parametrize(
    "write_times",
    [
        lambda t: t.dt.strftime("%Y-%m-%dT%H:%M:%SZ"),
        lambda t: t.dt.strftime("%Y-%m-%dT%H:%M:%S"),
        lambda t: (t + pd.Timedelta(hours=2)).dt.strftime("%Y-%m-%d %H:%M:%S+02:00"),
        lambda t: t.astype("datetime64[ms, UTC]").astype("int64") // 1000,
        lambda t: t.astype("datetime64[ms, UTC]").astype("int64") / 1000,
        lambda t: t.dt.tz_localize(None),
    ],
    ids=["zulu", "no zone", "offset", "epoch seconds", "epoch float", "naive"],
)
@pytest.mark.parametrize("name", ["r.parquet", "r.csv"])
def test_times_in_every_form(tmp_path: Path, name: str, write_times) -> None:
    data = frame(20)
    data["timestamp"] = write_times(data["timestamp"])
    fleet = read_fleet(spec_of(write(tmp_path, data, name)))
    assert fleet.devices[0].timestamps_ms[1] == 1_704_067_200_000 + 3_600_000


def test_a_folder_is_all_its_tables_but_the_labels(tmp_path: Path) -> None:
    data = frame()
    write(tmp_path, data[:150], "1.parquet")
    write(tmp_path, data[150:], "2.csv")
    labels = write(tmp_path, data[["device_id", "timestamp"]].assign(label=0), "labels.parquet")
    fleet = read_fleet(spec_of(tmp_path, labels=labels))
    assert fleet.rows == 400
    assert (fleet.devices[0].labels == 0).all()


def test_rows_are_set_aside_by_reason(tmp_path: Path) -> None:
    data = frame(1000).astype({"a": object, "timestamp": object})
    data["timestamp"] = data["timestamp"].astype(str)
    data.loc[1, "a"] = "broken"
    data.loc[2, "a"] = float("inf")
    data.loc[3, "a"] = 1e39
    data.loc[5, "timestamp"] = data.loc[4, "timestamp"]
    data.loc[7, "device_id"] = None
    data.loc[8, "timestamp"] = "yesterday"
    fleet = read_fleet(spec_of(write(tmp_path, data, "r.csv")))
    assert fleet.set_aside == {
        "no_device": 1, "bad_timestamp": 1, "text_in_number": 1, "infinity": 2, "duplicated_timestamp": 1,
    }  # fmt: skip
    assert sum(device.timestamps_ms.size for device in fleet.devices) == 2000 - 6
    assert any("infinity" in note for note in fleet.notes)


def test_too_many_bad_rows_are_refused(tmp_path: Path) -> None:
    data = frame()
    data.loc[:9, "a"] = np.inf
    path = write(tmp_path, data)
    with pytest.raises(TelemetryError, match=r"10 of 400 rows .* with an infinity.*--max-bad-rows"):
        read_fleet(spec_of(path))
    assert read_fleet(spec_of(path, max_bad_rows=0.03)).set_aside == {"infinity": 10}


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("epoch.csv", "device_id,timestamp,cohort,a,b\nd,1704067200000,x,1,1\n", "seconds since 1970.*Correct them.$"),
        ("comma.csv", 'device_id,timestamp,cohort,a,b\nd,2024-01-01,x,"1,5",1\n', "first text is '1,5' in column 'a'"),
        ("semicolon.csv", "device_id;timestamp;cohort;a;b\nd;2024-01-01;x;1,5;1\n", "separated by ';'"),
        ("twice.csv", "device_id,timestamp,cohort,a,a,b\nd,2024-01-01,x,1,1,1\n", "2 columns 'a'"),
        ("latin.csv", "device_id,timestamp,cohort,a,b\nd\xe9,2024-01-01,x,1,1\n", "Save it as UTF-8"),
        ("header.csv", "\xff\x8bdevice_id,timestamp\n1,1\n", "Save it as UTF-8"),
    ],
)
def test_common_mistakes_are_named(tmp_path: Path, name: str, content: str, says: str) -> None:
    path = tmp_path / name
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(TelemetryError, match=says) as caught:
        read_fleet(spec_of(path))
    assert caught.value.exit_code == 3


def test_a_column_of_lists_is_refused(tmp_path: Path) -> None:
    data = frame(20)
    data["a"] = [[1.0]] * len(data)
    with pytest.raises(TelemetryError, match=r"Column 'a' .* holds list"):
        read_fleet(spec_of(write(tmp_path, data)))


def test_broken_lines_are_set_aside(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    lines = frame().to_csv(index=False).splitlines()
    path.write_text("\n".join([*lines[:300], "d1,2024", *lines[300:]]))
    fleet = read_fleet(spec_of(path))
    assert (fleet.set_aside, fleet.rows) == ({"bad_line": 1}, 401)
    assert fleet.notes == ("1 row with too many or too few fields was set aside.",)
    path.write_text("\n".join([*lines, *["d1"] * 20]))
    with pytest.raises(TelemetryError, match="20 with too many or too few fields"):
        read_fleet(spec_of(path))


def test_a_csv_as_other_systems_write_it(tmp_path: Path) -> None:
    data = frame().assign(cohort="NA").astype({"a": object})
    data.loc[1, "a"] = "N/A"
    path = tmp_path / "r.csv"
    data.to_csv(path, index=False, encoding="utf-8-sig", lineterminator="\r\n")
    fleet = read_fleet(spec_of(path))
    assert {device.cohort for device in fleet.devices} == {"NA"}  # a name, not a missing value
    assert np.isnan(fleet.devices[1].values[1, 0])
    assert fleet.set_aside == {}


def test_labels_that_say_nothing(tmp_path: Path) -> None:
    data = frame(20)
    path, labels = write(tmp_path, data), data[["device_id", "timestamp"]].assign(label="healthy")
    with pytest.raises(TelemetryError, match="must be 0 for healthy"):
        read_fleet(spec_of(path, labels=write(tmp_path, labels, "labels.csv")))
    others = labels.assign(label=0, device_id="stranger")
    with pytest.raises(TelemetryError, match="device and time columns match"):
        read_fleet(spec_of(path, labels=write(tmp_path, others, "labels.csv")))


def test_a_misspelt_column_says_which_was_meant(tmp_path: Path) -> None:
    data = frame().rename(columns={"a": "batery"})
    with pytest.raises(TelemetryError, match=r"no column 'battery'.*Did you mean 'batery'") as caught:
        read_fleet(spec_of(write(tmp_path, data), signals=("battery",)))
    assert caught.value.exit_code == 3


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("r.parquet", b"", "is empty"),
        ("r.csv", b"", "is empty"),
        ("r.csv", b"device_id,timestamp,cohort,a,b\n", "has no rows"),
        ("r.parquet", b"PAR1 but not really", "cannot be read as Parquet"),
        ("r.csv", gzip.compress(b"device_id"), "cannot be read as CSV|has no column"),
        ("r.xlsx", b"PK", "neither Parquet nor CSV"),
    ],
)
def test_files_that_are_no_tables(tmp_path: Path, name: str, content: bytes, says: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(TelemetryError, match=says):
        read_fleet(spec_of(path))


def test_paths_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(TelemetryError, match="no file or folder"):
        read_fleet(spec_of(tmp_path / "none.parquet"))
    with pytest.raises(TelemetryError, match="holds no"):
        read_fleet(spec_of(tmp_path))


def test_labels(tmp_path: Path) -> None:
    data = frame()
    path = write(tmp_path, data)
    labels = data[["device_id", "timestamp"]].assign(label=0).iloc[:390].reset_index(drop=True)
    labels.loc[:9, "label"] = 1
    labels.loc[10:19, "label"] = 7
    labels.loc[20:24, "device_id"] = "stranger"
    fleet = read_fleet(spec_of(path, labels=write(tmp_path, labels, "labels.csv")))
    counts = np.unique(np.concatenate([device.labels for device in fleet.devices]), return_counts=True)
    assert dict(zip(*map(np.ndarray.tolist, counts), strict=True)) == {-1: 25, 0: 365, 1: 10}
    assert any("5 labels belong to no reading" in note for note in fleet.notes)
    with pytest.raises(TelemetryError, match="labelled healthy"):
        read_fleet(spec_of(path, labels=write(tmp_path, labels.assign(label=1), "labels.csv")))
    with pytest.raises(TelemetryError, match=r"no column 'label'.*'labell'"):
        read_fleet(spec_of(path, labels=write(tmp_path, labels.rename(columns={"label": "labell"}), "labels.csv")))


def device(name: str, cohort: str | None) -> Device:
    return Device(name, cohort, np.arange(1), np.zeros((1, 1), np.float32), np.zeros(1, np.int8))


def test_every_second_device_of_each_cohort_is_held_out() -> None:
    devices = [device(name, name[0]) for name in ("a1", "a2", "a3", "b1", "b2")]
    trained, held = split_devices(TrainSpec(), devices)
    assert [d.name for d in trained] == ["a1", "a3", "b1"]
    assert [d.name for d in held] == ["a2", "b2"]
    assert split_devices(TrainSpec("none"), devices)[1] == ()
    assert [d.name for d in split_devices(TrainSpec(("a1",)), devices)[1]] == ["a1"]
    with pytest.raises(SpecError, match="'a1'"):
        split_devices(TrainSpec(("a11",)), devices)
    with pytest.raises(SpecError, match="no device to train"):
        split_devices(TrainSpec(tuple(d.name for d in devices)), devices)


def same_fleets(one: Fleet, other: Fleet) -> bool:
    arrays = ("timestamps_ms", "values", "labels")
    return len(one.devices) == len(other.devices) and all(
        (a.name, a.cohort) == (b.name, b.cohort)
        and all(getattr(a, name).tobytes() == getattr(b, name).tobytes() for name in arrays)
        for a, b in zip(one.devices, other.devices, strict=True)
    )


@pytest.mark.parametrize("part_rows", [7, 1000])
def test_files_parts_and_order_of_rows_change_nothing(
    tmp_path: Path, part_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = frame(60).sort_values(["device_id", "timestamp"], ignore_index=True)
    data.loc[::7, "b"] = np.nan
    labels = data[["device_id", "timestamp"]].assign(label=np.arange(len(data)) % 3 - 1)
    labels = pd.concat([labels.assign(label=5), labels])  # of two, the last one counts
    whole = spec_of(write(tmp_path, data), labels=write(tmp_path, labels, "labels.parquet"))
    expected = read_fleet(whole)
    assert {int(label) for device in expected.devices for label in device.labels} == {-1, 0, 1}
    monkeypatch.setattr(tables, "PART_ROWS", part_rows)
    folder, label_folder = tmp_path / "many", tmp_path / "labels"
    folder.mkdir()
    label_folder.mkdir()
    shuffled = data.sample(frac=1, random_state=0)
    for number, start in enumerate(range(0, len(data), 25)):
        part = shuffled.iloc[start : start + 25]
        write(folder, part, f"{number}.csv" if number % 2 else f"{number}.parquet")
    halves = labels[: len(data)], labels[len(data) :].sample(frac=1, random_state=1)
    for number, part in enumerate(halves):
        write(label_folder, part, f"{number}.parquet")
    assert same_fleets(read_fleet(whole), expected)
    assert same_fleets(read_fleet(spec_of(folder, labels=label_folder)), expected)


def test_bad_rows_are_the_same_in_any_order_of_files(tmp_path: Path) -> None:
    data = frame(500)
    data.loc[3, "a"] = np.inf
    data.loc[5, "device_id"] = None
    again = data.iloc[[10, 11, 700]].assign(a=9.0)  # the reading that came first stays
    write(tmp_path, data, "1.parquet")
    write(tmp_path, again, "2.parquet")
    fleet = read_fleet(spec_of(tmp_path))
    assert fleet.set_aside == {"no_device": 1, "infinity": 1, "duplicated_timestamp": 3}
    assert (fleet.rows, sum(device.timestamps_ms.size for device in fleet.devices)) == (1003, 998)
    assert not any((device.values[:, 0] == 9.0).any() for device in fleet.devices)


def test_the_readings_are_in_memory_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "PART_ROWS", 2_000)
    rows, signals = 100_000, tuple(f"s{i}" for i in range(20))
    rng = np.random.default_rng(0)
    columns = {name: rng.normal(size=rows).astype(np.float32) for name in signals}
    keys = {"device_id": np.repeat([f"d{i}" for i in range(50)], rows // 50), "timestamp": np.arange(rows) * 60}
    data = pd.DataFrame({**keys, **columns})
    data.sample(frac=1, random_state=0).to_parquet(tmp_path / "r.parquet", row_group_size=5_000)
    spec = DataSpec(tmp_path / "r.parquet", None, "device_id", "timestamp", None, signals, ())
    tracemalloc.start()
    fleet = read_fleet(spec)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    values = sum(device.values.nbytes for device in fleet.devices)
    assert values == rows * 20 * 4
    assert peak < 2 * values  # beside the values a row costs 17 bytes and, while it is put in order, twice that


def test_labelled_readings_are_held_out_of_every_device() -> None:
    labels = np.array([-1, -1, 0, 1, -1], np.int8)
    whole = Device("a", None, np.arange(5), np.arange(5, dtype=np.float32)[:, None], labels)
    never = Device("b", None, np.arange(2), np.zeros((2, 1), np.float32), np.full(2, -1, np.int8))
    spec = TrainSpec(LABELLED)
    trained, held = split_devices(spec, [whole, never])
    assert [(d.name, d.timestamps_ms.tolist()) for d in trained] == [("a", [0, 1, 4]), ("b", [0, 1])]
    assert [(d.name, d.values[:, 0].tolist(), d.labels.tolist()) for d in held] == [("a", [2, 3], [0, 1])]
    with pytest.raises(TelemetryError, match="no reading has a label"):
        split_devices(spec, [never])
    with pytest.raises(TelemetryError, match="every reading has a label"):
        split_devices(spec, held)
    assert learns_from_labels(TrainSpec(), labelled=True)
    assert not learns_from_labels(spec, labelled=True)
    assert not learns_from_labels(TrainSpec(), labelled=False)

"""What a release would have flagged: on recorded telemetry and on windows that a server kept, beside the one in use."""

from __future__ import annotations

import base64
import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from simulators.bundles import BuiltBundle, SmallBundle

from edge_runtime.contract.bundle import open_bundle
from edge_runtime.contract.window import WindowRule
from edge_runtime.incidents import OpenIncident, observe
from edge_runtime.scoring import Scorer
from edge_runtime.windows import filled, gather, window_indices
from exporter.cli import run_command
from exporter.replay.outcome import Counts, without_partner
from exporter.replay.sides import load_side

MINUTE = 60_000
START = 1_700_000_000_000 - 1_700_000_000_000 % MINUTE


def built(release: int, bias: float, **changes: Any) -> BuiltBundle:
    """A release of pumps: a window of x scores |x| + bias, anomalous above 1."""
    return SmallBundle(version=f"v{release}", release_number=release, bias=bias, **changes).build()


def write(folder: Path, *bundles: BuiltBundle) -> Path:
    for bundle in bundles:
        path = folder / bundle.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bundle.data)
    return folder if len(bundles) > 1 else folder / bundles[0].path


def table(devices: dict[str, list[float]], cohort: str | None = None) -> pd.DataFrame:
    rows = [
        {"id": name, "at": pd.Timestamp(START + MINUTE * place, unit="ms", tz="UTC"), "heat": value, "load": value,
         "kind": cohort}
        for name, values in devices.items()
        for place, value in enumerate(values)
    ]  # fmt: skip
    return pd.DataFrame(rows)


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """The candidate (release 2, bias .5) and the release in use (bias 0)."""
    return write(tmp_path / "new", built(2, 0.5)), write(tmp_path / "old", built(1, 0.0))


def run(capsys: pytest.CaptureFixture[str], *arguments: object, code: int = 0) -> dict[str, Any]:
    found = run_command(["replay", *map(str, arguments), "--json"])
    captured = capsys.readouterr()
    assert found == code, captured
    return dict(json.loads(captured.out.splitlines()[0]))


COLUMNS = ("--device", "id", "--time", "at")


def test_windows_incidents_and_first_alarms(
    pair: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "readings.parquet"
    healthy, warm, hot = [0.1] * 12, [0.1] * 4 + [0.8] * 4 + [0.1] * 8, [0.1] * 4 + [3.0] * 3 + [0.1] * 8
    table({"a": healthy, "b": warm, "c": hot}).to_parquet(data)
    found = run(capsys, pair[0], data, "--against", pair[1], *COLUMNS)
    total = found["total"]
    assert (total["devices"], total["windows"]) == (3, 11 + 15 + 14)
    by_device = {one["device"]: one for one in found["changed_devices"]}
    assert set(by_device) == {"b", "c"}, "a device whose verdicts stay is not listed"
    warm_one = by_device["b"]
    # Means of four readings: .275 .45 .625 .8 .625 .45 .275; the candidate flags those above .5.
    assert (warm_one["newly_flagged"], warm_one["no_longer_flagged"]) == (3, 0)
    assert (warm_one["incidents_current"], warm_one["incidents_candidate"], warm_one["incidents_new"]) == (0, 1, 1)
    assert warm_one["first_alarm_current_ms"] is None
    assert warm_one["first_alarm_candidate_ms"] == START + 6 * MINUTE
    hot_one = by_device["c"]
    assert (hot_one["incidents_current"], hot_one["incidents_candidate"]) == (1, 1)
    assert (hot_one["incidents_new"], hot_one["incidents_gone"]) == (0, 0), "one and the same, if longer"
    assert hot_one["first_alarm_current_ms"] - hot_one["first_alarm_candidate_ms"] == MINUTE
    assert found["first_alarms"] == {
        "both": 1, "only_current": 0, "only_candidate": 1, "earlier": 1, "later": 0, "median_earlier_ms": MINUTE,
    }  # fmt: skip
    assert found["rank_correlation"] == pytest.approx(1.0)
    assert total["days"] == pytest.approx((11 + 15 + 14) / 1440)


def test_every_reading_gets_what_a_device_would_say(
    pair: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(5)
    data = tmp_path / "readings.csv"
    values = rng.normal(0, 1.2, 300)
    frame = table({"a": values.tolist()})
    frame = frame[rng.random(len(frame)) > 0.3].copy()
    frame.loc[rng.random(len(frame)) < 0.1, "load"] = np.nan
    frame.to_csv(data, index=False)
    found = run(capsys, pair[0], data, "--against", pair[1], *COLUMNS)["total"]
    times = ((frame["at"] - pd.Timestamp(0, tz="UTC")) // pd.Timedelta(milliseconds=1)).to_numpy(np.int64)
    cells = frame[["heat", "load"]].to_numpy(np.float32)
    for path, name in zip(pair, ("candidate", "current"), strict=True):
        bundle = open_bundle(path.read_bytes())
        indices = window_indices(times, bundle.manifest.window)
        ready = filled(indices) >= bundle.manifest.window.minimum_readings
        flags = Scorer(bundle.files["model.onnx"]).score(gather(cells, indices[ready])).is_anomaly
        assert found[f"flagged_{name}"] == int(flags.sum())
        assert found["windows"] == int(ready.sum())
        incident: OpenIncident | None = None
        begun = 0
        for at_ms, flag in zip(times[ready].tolist(), flags.tolist(), strict=True):
            step = observe(incident, bundle="b", timestamp_ms=at_ms, anomaly_score=0.5, is_anomaly=flag, gap=3)
            begun += incident is None and step.incident is not None
            incident = step.incident
        assert found[f"incidents_{name}"] == begun > 0


def test_each_cohort_runs_its_own_bundle(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    new = write(tmp_path / "new", built(2, 0.0), built(2, 0.9, cohort="north"))
    old = write(tmp_path / "old", built(1, 0.0))
    data = tmp_path / "readings.parquet"
    parts = [table({"n": [0.5] * 8}, "north"), table({"s": [0.5] * 8}, "south")]
    pd.concat(parts).to_parquet(data)
    found = run(capsys, new, data, "--against", old, *COLUMNS, "--cohort", "kind")
    assert [(one["cohort"], one["newly_flagged"]) for one in found["cohorts"]] == [("north", 7), ("south", 0)]
    alone = write(tmp_path / "alone", built(3, 0.9, cohort="north"))
    found = run(capsys, alone, data, "--against", old, *COLUMNS, "--cohort", "kind")
    assert (found["total"]["devices"], found["devices_left_out"]) == (1, 1)
    run(capsys, alone, data, "--against", old, *COLUMNS, code=3)


def test_sides_may_read_other_signals_by_another_rule(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rule = WindowRule(2, MINUTE, 10 * MINUTE, 1)
    new = write(tmp_path / "new", built(2, 0.0, signals=("load", "wind"), window=rule))
    old = write(tmp_path / "old", built(1, 0.0))
    data = tmp_path / "readings.parquet"
    frame = table({"a": [0.1] * 8})
    frame["wind"] = 5.0
    frame.to_parquet(data)
    found = run(capsys, new, data, "--against", old, *COLUMNS)["total"]
    assert (found["windows"], found["flagged_current"], found["newly_flagged"]) == (7, 0, 7), "the older rule warms up"
    frame.drop(columns="wind").to_parquet(data)
    run(capsys, new, data, "--against", old, *COLUMNS, code=3)


def test_labels_say_which_side_is_right(
    pair: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, labels = tmp_path / "readings.parquet", tmp_path / "labels.csv"
    frame = table({"a": [0.1] * 6 + [0.8] * 6, "b": [0.1] * 12})
    frame.to_parquet(data)
    frame.assign(label=(frame["heat"] > 0.5).astype(int))[["id", "at", "label"]].to_csv(labels, index=False)
    found = run(capsys, pair[0], data, "--against", pair[1], *COLUMNS, "--labels", labels)
    total = found["total"]
    assert (total["faulty"], total["faulty_current"], total["faulty_candidate"]) == (6, 0, 4)
    assert (total["healthy"], total["healthy_current"], total["healthy_candidate"]) == (16, 0, 0)
    assert found["auc"] == {"current": 1.0, "candidate": 1.0}
    assert (
        run_command(["replay", str(pair[0]), str(data), "--against", str(pair[1]), *COLUMNS, "--labels", str(labels)])
        == 0
    )
    out = capsys.readouterr().out
    assert "By labels" in out
    assert "pumps v2 (release 2) against pumps v1 (release 1)" in out
    assert "1970" not in out


def test_a_goal_stops_a_release_that_flags_too_much(
    pair: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "readings.parquet"
    table({"a": [0.8] * 12}).to_parquet(data)
    arguments = (pair[0], data, "--against", pair[1], *COLUMNS, "--most-newly-flagged")
    assert run(capsys, *arguments, "1")["total"]["newly_flagged"] == 10
    run(capsys, *arguments, "0.5", code=8)


def test_columns_come_from_the_provenance(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    provenance = json.dumps({"settings": {"data": {"device": "id", "time": "at", "cohort": None}}}).encode()
    new = write(tmp_path / "new", built(2, 0.5, extra=(("provenance.json", provenance),)))
    old = write(tmp_path / "old", built(1, 0.0))
    data = tmp_path / "readings.parquet"
    table({"a": [0.8] * 6}).to_parquet(data)
    assert run(capsys, new, data, "--against", old)["total"]["windows"] == 5
    run(capsys, old, data, "--against", new, code=3)
    assert load_side(new, lambda path: open_bundle(path.read_bytes())).data["device"] == "id"


@pytest.mark.parametrize(
    ("new", "old", "code"),
    [
        ({"model": "fans"}, {}, 3),
        ({"golden_shift": 0.5}, {}, 7),
    ],
)
def test_bundles_that_cannot_be_compared(
    new: dict[str, Any], old: dict[str, Any], code: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "readings.parquet"
    table({"a": [0.8] * 6}).to_parquet(data)
    paths = write(tmp_path / "new", built(2, 0.5, **new)), write(tmp_path / "old", built(1, 0.0, **old))
    run(capsys, paths[0], data, "--against", paths[1], *COLUMNS, code=code)


def test_paths_that_are_no_release_or_no_data(
    pair: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "readings.parquet"
    table({"a": [0.8] * 6}).to_parquet(data)
    (tmp_path / "empty").mkdir()
    mixed = write(tmp_path / "mixed", built(1, 0.0), built(2, 0.0))
    for wrong in (tmp_path / "empty", tmp_path / "none.bundle", data, mixed):
        run(capsys, wrong, data, "--against", pair[1], *COLUMNS, code=3)
    for wrong in (tmp_path / "none.parquet", tmp_path / "empty", pair[0]):
        run(capsys, pair[0], wrong, "--against", pair[1], *COLUMNS, code=3)
    run(capsys, pair[0], data, "--against", pair[1], "--device", "nobody", "--time", "at", code=3)


def test_a_bundle_that_nobody_vouches_for_is_refused_where_keys_are_named(
    pair: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from exporter.keys import create_key

    data = tmp_path / "readings.parquet"
    table({"a": [0.8] * 6}).to_parquet(data)
    create_key(tmp_path / "targets.key", "targets", None)
    public = f"{tmp_path / 'targets.key'}.pub"
    run(capsys, pair[0], data, "--against", pair[1], *COLUMNS, "--public-key", public, code=4)


# --- windows of a server ---


def stored(path: Path, bundle: BuiltBundle, windows: list[dict[str, Any]], **changes: Any) -> Path:
    manifest = bundle.what.manifest({})
    lines = [
        {"format": 1, "kind": "stella-edge-windows", "channel": "stable"},
        {"bundle": bundle.digest, "model": "pumps", "release_number": 1, "signals": list(bundle.what.signals),
         "window": manifest.window.to_dict()},
        *windows,
        {"end": len(windows)},
    ]  # fmt: skip
    path.write_bytes(
        b"".join(json.dumps({**line, **changes.get(str(n), {})}).encode() + b"\n" for n, line in enumerate(lines))
    )
    return path


def line(bundle: BuiltBundle, value: float, **changes: Any) -> dict[str, Any]:
    cells = np.full((4, 2), value, "<f4")
    return {
        "in": bundle.digest, "device": "d1", "cohort": None, "observed_at_ms": None, "scored_at_ms": START,
        "anomaly_score": 0.5, "is_anomaly": False, "cells": base64.b64encode(cells.tobytes()).decode(), **changes,
    }  # fmt: skip


def test_windows_of_a_server_are_replayed(
    pair: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = built(1, 0.0)
    lines = [line(old, n / 100, scored_at_ms=START + n) for n in range(200)]
    lines += [line(old, 5.0, device=None, cohort="north"), line(old, float("nan"))]
    found = run(capsys, pair[0], stored(tmp_path / "w.ndjson", old, lines), "--against", pair[1])
    total = found["total"]
    # Above .5 up to 1: newly flagged. The empty window has no verdict.
    assert (total["devices"], total["windows"], total["days"]) == (2, 201, 0)
    assert (total["newly_flagged"], total["flagged_current"]) == (50, 100)
    assert "sample" in found["notes"][0]
    (one,) = found["changed_devices"]
    assert (one["device"], one["first_alarm_candidate_ms"]) == ("d1", START + 51)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: text.rsplit(b"\n", 2)[0] + b"\n",
        lambda text: text.replace(b'"end": 3', b'"end": 4'),
        lambda text: text.replace(b'"format": 1', b'"format": 2'),
        lambda text: text.replace(b'"cells": "', b'"cells": "!'),
        lambda text: text.replace(b'"cells": "', b'"cells": "AAAA'),
        lambda text: text.replace(b'"in": "', b'"in": "0'),
        lambda text: text.replace(b'"slots": 4', b'"slots": 3'),
        lambda text: text.replace(b'["heat", "load"]', b'["load", "heat"]'),
        lambda text: text.replace(b'"device": "d1"', b'"device": 5'),
        lambda text: text.replace(b'"scored_at_ms"', b'"scored"'),
        lambda text: text.replace(b'"cells"', b'"cells" ' + b" " * 2**20),
        lambda text: text[: len(text) // 2],
    ],
)
def test_a_spoilt_file_of_windows_is_refused(
    spoil: Any, pair: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = built(1, 0.0)
    path = stored(tmp_path / "w.ndjson", old, [line(old, 1.0), line(old, 2.0), line(old, 3.0)])
    before = path.read_bytes()
    path.write_bytes(spoil(before))
    assert path.read_bytes() != before
    run(capsys, pair[0], path, "--against", pair[1], code=3)


def test_labels_do_not_go_with_windows(
    pair: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = built(1, 0.0)
    path = stored(tmp_path / "w.ndjson", old, [line(old, 1.0)])
    run(capsys, pair[0], path, "--against", pair[1], "--labels", path, code=3)


# --- figures ---


def test_incidents_without_a_partner() -> None:
    assert without_partner([], [(1, 2)]) == 0
    assert without_partner([(1, 2), (5, 9)], []) == 2
    assert without_partner([(1, 2), (5, 9), (20, 21)], [(2, 4), (9, 9), (10, 19)]) == 1
    assert without_partner([(3, 3)], [(1, 2), (4, 5)]) == 1
    assert without_partner([(1, 10)], [(3, 4), (6, 7)]) == 0


def test_counts_add_up() -> None:
    names = [one.name for one in dataclasses.fields(Counts)]
    assert Counts(*range(len(names))) + Counts(*range(len(names))) == Counts(*(2 * n for n in range(len(names))))

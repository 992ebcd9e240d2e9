"""The browser's library under Node, on the wasm build, against Python: 10,000 windows of real turbofans."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pyarrow.parquet as pq
from simulators.web_device import WEB, install_packages, node
from simulators.web_parity import write_cases

from exporter.building import Group, build_group
from exporter.config import DataSpec, ModelSpec, TrainSpec
from exporter.dataset import read_fleet
from exporter.holdout import split_devices
from exporter.window_sets import cut_windows, window_rule

WINDOWS = 10_000
# Cohort FD002 flies in six conditions: context and regimes are in its graph.
COHORT = "FD002"


def test_ten_thousand_windows_of_turbofans_score_as_in_python(shared_data: Path, tmp_path: Path) -> None:
    install_packages()
    readings = shared_data / "cmapss" / "readings.parquet"
    names = pq.read_schema(readings).names[3:]
    context = tuple(name for name in names if name.startswith("op_setting"))
    signals = tuple(name for name in names if name not in context)
    labels = shared_data / "cmapss" / "labels.parquet"
    spec = ModelSpec("turbofan", DataSpec(readings, labels, "device_id", "timestamp", "cohort", signals, context))
    devices = [device for device in read_fleet(spec.data).devices if device.cohort == COHORT]
    trained, held_out = split_devices(TrainSpec(), devices)
    rule = window_rule(spec.window, trained)
    group = Group(COHORT, cut_windows(trained, rule), cut_windows(held_out, rule))
    model = build_group(spec, group, labelled=True).model
    write_cases(tmp_path, spec, model, "forest", most=WINDOWS)

    script = WEB / "tests" / "device" / "support" / "measure_parity.ts"
    done = subprocess.run([node(), script, tmp_path], cwd=WEB, capture_output=True, text=True, check=True)
    print(done.stdout)  # shown with -s: the figures that the closing note quotes
    figures = json.loads(done.stdout)
    assert {"forest-fp32", "forest-codebook8"} <= set(figures)
    for found in figures.values():
        assert found["windows"] == WINDOWS
        assert found["anomalous"] > 0
        assert found["rawDifference"] <= 1e-6
        assert found["flips"] == 0
        assert found["otherNames"] == 0

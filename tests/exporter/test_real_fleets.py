"""What the models reach on real data: the goals on cmapss, and an anomaly score that orders as the raw score does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.ensemble import IsolationForest

from exporter.building import Group, build_group
from exporter.calibration import fit_calibration
from exporter.config import DataSpec, ModelSpec, TrainSpec
from exporter.dataset import HEALTHY, Fleet, read_fleet
from exporter.graph.calibration import add_calibration
from exporter.graph.forest import add_forest
from exporter.graph.nodes import GraphBuilder, tensor_info
from exporter.graph.path_forest import flatten_forest
from exporter.graph.running import Graph
from exporter.holdout import split_devices
from exporter.parity import area_under_curve
from exporter.window_sets import cut_windows, window_rule

ADBENCH = ("12_fault", "20_letter", "23_mammography", "27_PageBlocks", "2_annthyroid", "30_satellite", "32_shuttle", "6_cardio")  # fmt: skip
# AUC of the anomaly score on held-out devices, as the issue asks for it.
GOALS = {"FD001": 0.995, "FD002": 0.99, "FD003": 0.99, "FD004": 0.98}


@pytest.fixture(scope="module")
def turbofans(shared_data: Path) -> tuple[ModelSpec, Fleet]:
    import pyarrow.parquet as pq

    folder = shared_data / "cmapss"
    names = pq.read_schema(folder / "readings.parquet").names[3:]
    context = tuple(name for name in names if name.startswith("op_setting"))
    signals = tuple(name for name in names if name not in context)
    data = DataSpec(
        folder / "readings.parquet", folder / "labels.parquet", "device_id", "timestamp", "cohort", signals, context
    )
    return ModelSpec("turbofan", data), read_fleet(data)


@pytest.mark.parametrize("cohort", GOALS)
def test_the_defaults_reach_the_goals_on_turbofans(turbofans: tuple[ModelSpec, Fleet], cohort: str) -> None:
    spec, fleet = turbofans
    devices = [device for device in fleet.devices if device.cohort == cohort]
    trained, held_out = split_devices(TrainSpec(), devices)
    rule = window_rule(spec.window, trained)
    group = Group(cohort, cut_windows(trained, rule), cut_windows(held_out, rule))
    model = build_group(spec, group, labelled=True).model
    assert model.evaluation["auc"] >= GOALS[cohort]
    assert model.evaluation["auc"] == pytest.approx(model.evaluation["auc_raw_score"], abs=1e-4)
    assert model.evaluation["auc"] > model.evaluation["baseline"]["auc"]
    kept = {name: form["sets"]["held out"] for name, form in model.parity["candidates"].items()}
    assert kept["fp32"]["label_flips"] == 0
    assert kept["fp32"]["max_raw_difference"] <= 1e-6
    assert kept["codebook8"]["label_flip_share"] <= 0.002
    assert not model.below_goals


@pytest.mark.parametrize("name", ADBENCH)
def test_the_anomaly_score_orders_as_the_raw_score_does(shared_data: Path, name: str) -> None:
    table = np.load(shared_data / "adbench" / f"{name}.npz", allow_pickle=False)
    X, labels = table["X"].astype(np.float32), table["y"].astype(np.int8)
    healthy = np.flatnonzero(labels == HEALTHY)
    fitted = IsolationForest(n_estimators=100, random_state=0).fit(X[healthy[::2]])
    calibration = fit_calibration(-fitted.score_samples(X[healthy[1::2]]))
    graph = GraphBuilder()
    add_forest(graph, flatten_forest(fitted), "X", name="raw")
    add_calibration(graph, calibration, "raw", name="score")
    outputs = [tensor_info(output, "f4", ("n", 1)) for output in ("raw", "score")]
    raw, score = Graph(graph.model("g", [tensor_info("X", "f4", ("n", X.shape[1]))], outputs)).run(X, ["raw", "score"])
    before, after = area_under_curve(labels, raw[:, 0]), area_under_curve(labels, score[:, 0])
    assert before is not None
    assert after == pytest.approx(before, abs=1e-4)
    assert (np.diff(score[np.argsort(raw[:, 0], kind="stable"), 0]) >= 0).all()

"""From telemetry to models, on a small fleet of two cohorts with context, missing values and known faults."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from simulators.charging_fleet import spec_of

from edge_runtime.contract.golden import GoldenSpec
from exporter.built import Build, BuiltModel
from exporter.card_data import MOST_WINDOWS
from exporter.config import (
    LABELLED,
    CalibrationSpec,
    DetectorSpec,
    GoalSpec,
    ModelSpec,
    ProofSpec,
    ReleaseSpec,
    TrainSpec,
    WindowSpec,
)
from exporter.detectors import Candidate
from exporter.errors import TelemetryError
from exporter.graph.forest import add_forest
from exporter.graph.nodes import GraphBuilder
from exporter.graph.path_forest import PathForest
from exporter.graph.running import Graph
from exporter.model_build import build_models


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[ModelSpec, Build]:
    spec = spec_of(tmp_path_factory.mktemp("fleet"), {"big": 24, "small": 6})
    return spec, build_models(spec)


def windows_of(model: BuiltModel) -> tuple[np.ndarray, list[np.ndarray]]:
    golden = GoldenSpec.from_bytes(model.golden_json)
    parts = [
        np.frombuffer(model.golden_f32, "<f4", int(np.prod(t.shape)), t.offset).reshape(t.shape) for t in golden.tensors
    ]
    return parts[0], parts[1:]


def test_the_default_model_comes_first_and_small_cohorts_use_it(built: tuple[ModelSpec, Build]) -> None:
    _, build = built
    assert [model.cohort for model in build.models] == [None, "big"]
    assert any("'small' uses the default model: 3 training devices" in note for note in build.notes)
    assert build.devices == {"trained": 15, "held_out": 15}
    assert len(build.data_digest) == 64


def test_figures(built: tuple[ModelSpec, Build]) -> None:
    for model in built[1].models:
        figures, parity = model.evaluation, model.parity
        assert figures["auc"] > 0.8
        assert abs(figures["auc"] - figures["auc_raw_score"]) <= 1e-4
        assert figures["faulty_devices_caught"] == figures["faulty_devices"] > 0
        assert figures["healthy_alarms_per_device_day"]["mean"] < 0.5
        assert 0.5 < figures["baseline"]["auc"] <= 1
        assert parity["held_out"] is True
        kept = {name: form["sets"]["held out"] for name, form in parity["candidates"].items()}
        assert kept["fp32"]["label_flips"] == 0
        assert kept["fp32"]["max_raw_difference"] <= 1e-6
        assert kept["codebook8"]["spearman"] >= 0.999
        assert parity["chosen"] == model.form
        assert model.model_onnx == model.candidates[model.form]
        assert set(model.costs) == set(parity["candidates"]) == set(model.candidates)
        assert not model.below_goals
    assert set(built[1].models[0].evaluation["auc_by_cohort"]) == {"big", "small"}


def test_the_plots_of_the_card_show_what_was_measured(built: tuple[ModelSpec, Build]) -> None:
    for model in built[1].models:
        data = model.card_data
        assert json.loads(json.dumps(data, allow_nan=False)) == data
        assert data["held_out"] is True
        assert 0 < data["windows"] <= MOST_WINDOWS
        scores, threshold = data["scores"], model.threshold.raw_score
        assert set(scores["groups"]) == {"healthy, in training", "healthy, held out", "faulty, held out"}
        assert sum(scores["groups"]["healthy, held out"] + scores["groups"]["faulty, held out"]) <= data["windows"]
        middles = np.convolve(scores["edges"], [0.5, 0.5], "valid")
        means = {name: np.average(middles, weights=counts) for name, counts in scores["groups"].items()}
        assert means["faulty, held out"] > means["healthy, held out"]
        assert min(scores["edges"]) < threshold < max(scores["edges"])
        trained, graphs = np.array(data["fidelity"]["trained"]), data["fidelity"]["graphs"]
        assert set(graphs) == set(model.candidates)
        assert len(trained) <= 220
        assert np.abs(trained - graphs["fp32"]).max() < 2e-5  # the rounding of the sample
        assert data["contributions"]["signals"][-1] == "context"
        parts = data["contributions"]["groups"]
        assert sum(parts["anomalies"]["mean"]) > sum(parts["healthy windows"]["mean"]) > 0


def test_without_held_out_devices_the_plots_show_training(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, {"big": 12})
    (model,) = build_models(replace(spec, train=TrainSpec("none"), release=ReleaseSpec(cohorts=False))).models
    assert model.card_data["held_out"] is False
    assert set(model.card_data["scores"]["groups"]) == {"healthy, in training"}


def test_the_graph_agrees_with_the_contract(built: tuple[ModelSpec, Build]) -> None:
    model = built[1].models[0]
    window, _ = windows_of(model)
    names = ["anomaly_score", "raw_score", "is_anomaly", "features", "regime"]
    score, raw, verdict, features, regime = Graph(model.model_onnx).run(window, names)
    n = len(window)
    assert [x.shape for x in (score, raw, verdict, features, regime)] == [
        (n, 1), (n, 1), (n, 1), (n, len(model.features)), (n, 6),
    ]  # fmt: skip
    assert [x.dtype.name for x in (score, raw, verdict, features, regime)] == [
        "float32", "float32", "bool", "float32", "int64",
    ]  # fmt: skip
    assert np.array_equal(verdict, raw >= np.float32(model.threshold.raw_score))
    assert model.regimes is not None
    assert len(model.regimes.centroids) == 2
    assert "free.missing_share" in model.features
    assert "heat.missing_share" not in model.features
    assert "regime_distance" in model.features


def test_golden_windows_hold_what_they_must(built: tuple[ModelSpec, Build]) -> None:
    for model in built[1].models:
        window, (score, raw, verdict) = windows_of(model)
        assert window.shape == (32, 6, 5)
        assert {0.0, 1.0} == set(verdict.ravel().tolist())
        assert (np.abs(raw - model.threshold.raw_score) > 1e-4).all()
        assert np.isnan(window).any(axis=2).any()
        assert np.isnan(window[:, 0]).all(axis=1).any()
        regimes = Graph(model.model_onnx).run(window, ["regime"])[0]
        assert set(np.unique(regimes)) == {0, 1}
        again = Graph(model.model_onnx).run(window, ["anomaly_score", "raw_score", "is_anomaly"])
        assert np.array_equal(raw, again[1])
        assert ((score >= 0) & (score <= 1)).all()


def test_references_are_healthy_and_differ(built: tuple[ModelSpec, Build]) -> None:
    for model in built[1].models:
        windows = np.frombuffer(model.references, "<f4").reshape(model.reference_count, 6, 5)
        assert model.reference_count == 8
        assert len({w.tobytes() for w in windows}) == 8
        assert not Graph(model.model_onnx).run(windows, ["is_anomaly"])[0].any()
        assert set(Graph(model.model_onnx).run(windows, ["regime"])[0][:, -1]) == {0, 1}


def test_the_histogram_counts_healthy_windows(built: tuple[ModelSpec, Build]) -> None:
    for model in built[1].models:
        assert len(model.histogram) == 15
        assert model.histogram[0] == pytest.approx(0.1 * sum(model.histogram), rel=0.1)


def test_constant_signals_are_noted(built: tuple[ModelSpec, Build]) -> None:
    assert any("'fixed' is constant (41.7)" in note for note in built[1].models[0].notes)


def test_the_same_data_gives_the_same_bytes(built: tuple[ModelSpec, Build]) -> None:
    spec, build = built
    again = build_models(replace(spec, release=ReleaseSpec(cohorts=False)))
    assert again.models[0].model_onnx == build.models[0].model_onnx
    assert again.models[0].golden_f32 == build.models[0].golden_f32
    assert again.models[0].references == build.models[0].references


def test_without_labels_the_most_anomalous_windows_are_dropped(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, {"big": 12}, labelled=False)
    build = build_models(spec)
    assert any("There are no labels: every alarm" in note for note in build.notes)
    model = build.models[0]
    assert model.evaluation["auc"] is None
    assert model.evaluation["faulty_devices"] is None
    assert model.evaluation["healthy_alarms_per_device_day"]["device_days"] > 0
    assert any("Without labels the most anomalous 1.00%" in note for note in model.notes)


def test_single_readings_are_plain_tables(tmp_path: Path) -> None:
    spec = replace(spec_of(tmp_path, {"big": 12}), window=WindowSpec(slots=1))
    model = build_models(spec).models[0]
    assert [name for name in model.features if name != "regime_distance"] == [
        "current.last", "heat.last", "free.last", "fixed.last",
    ]  # fmt: skip
    assert model.reference_count == 1
    assert model.window_rule.minimum_readings == 1
    assert model.evaluation["baseline"]["auc"] == model.evaluation["auc"]


def test_nothing_held_out_nothing_measured(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, {"big": 6})
    build = build_models(replace(spec, train=TrainSpec("none")))
    assert build.models[0].evaluation == {}
    assert build.models[0].parity["held_out"] is False
    assert any("Nothing was held out" in note for note in build.notes)


def test_a_rate_that_the_data_cannot_support_is_refused_with_one_that_it_can(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, {"big": 6})
    with pytest.raises(TelemetryError, match="they can support") as caught:
        build_models(replace(spec, calibration=CalibrationSpec(alarms_per_device_day=1e-4)))
    supported = caught.value.fields["supported"]
    model = build_models(replace(spec, calibration=CalibrationSpec(alarms_per_device_day=supported))).models[0]
    assert model.threshold.alarms_per_device_day == supported
    direct = build_models(replace(spec, calibration=CalibrationSpec(threshold=0.99))).models[0]
    assert direct.threshold.anomaly_score == pytest.approx(0.99, abs=1e-5)
    assert direct.threshold.alarms_per_device_day is None


def test_a_signal_without_any_value_is_noted(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, {"big": 6})
    readings = pd.read_parquet(spec.data.readings).assign(fixed=np.nan)
    readings.to_parquet(spec.data.readings)
    model = build_models(spec).models[0]
    assert any("'fixed' has no value" in note for note in model.notes)
    assert model.evaluation["auc"] > 0.8


def test_golden_windows_suit_every_graph_that_may_be_shipped(built: tuple[ModelSpec, Build]) -> None:
    for model in built[1].models:
        window, (_, _, verdict) = windows_of(model)
        for graph in model.candidates.values():
            raw, flagged = Graph(graph).run(window, ["raw_score", "is_anomaly"])
            assert (np.abs(raw - model.threshold.raw_score) > 1e-4).all()
            assert np.array_equal(flagged, verdict.astype(bool))


def test_training_devices_without_healthy_windows_are_refused(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, {"big": 4})
    assert spec.data.labels is not None
    labels = pd.read_parquet(spec.data.labels)
    labels[labels["device_id"].isin(["big-01", "big-03"])].to_parquet(spec.data.labels)
    with pytest.raises(TelemetryError, match="No window of the training devices is labelled healthy"):
        build_models(spec)


def test_context_that_is_never_known_is_refused(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, {"big": 4})
    readings = pd.read_parquet(spec.data.readings).assign(charging=np.nan)
    readings.to_parquet(spec.data.readings)
    with pytest.raises(TelemetryError, match=r"all of its context \(charging\)"):
        build_models(spec)


def test_one_reading_a_device_says_what_to_do(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, {"big": 60}, labelled=False)
    readings = pd.read_parquet(spec.data.readings)
    readings.groupby("device_id").head(1).to_parquet(spec.data.readings)
    with pytest.raises(TelemetryError, match=r"window.slots = 1"):
        build_models(spec)
    spec = replace(spec, window=WindowSpec(slots=1), calibration=CalibrationSpec(alarms_per_device_day=2.0))
    assert any("taken to stand for an hour" in note for note in build_models(spec).notes)


def test_progress_grows_from_nothing_to_all(tmp_path: Path) -> None:
    seen: list[tuple[str, float]] = []
    build_models(spec_of(tmp_path, {"big": 4}), progress=lambda step, share: seen.append((step, share)))
    assert [share for step, share in seen if step == "models"] == pytest.approx([0.0, 0.2, 0.4, 0.6, 0.8, 1.0, 1.0])
    assert [share for step, share in seen if step == "read"] == [0.0, 1.0]


def test_the_graph_is_proven_on_every_data_set_given(tmp_path: Path) -> None:
    winter = tmp_path / "winter"
    winter.mkdir()
    spec_of(winter, {"big": 5, "other": 2})
    proofs = (
        ProofSpec("winter", winter / "readings.parquet", winter / "labels.parquet"),
        ProofSpec("unlabelled", winter / "readings.parquet"),
    )
    spec = replace(spec_of(tmp_path, {"big": 24, "red": 20}), prove=proofs)
    build = build_models(spec)
    default, big, red = build.models
    for model, names in ((default, 3), (big, 3), (red, 1)):  # no device of the cohort 'red' is in the winter data
        sets = model.parity["candidates"]["fp32"]["sets"]
        assert len(sets) == names
        assert all(one["label_flips"] == 0 for one in sets.values())
    assert default.parity["candidates"]["fp32"]["sets"]["winter"]["auc"] > 0.5
    assert default.parity["candidates"]["fp32"]["sets"]["unlabelled"]["auc"] is None


def test_a_network_ships_what_keeps_its_scores_alone_and_among_others(tmp_path: Path) -> None:
    spec = replace(
        spec_of(tmp_path, {"big": 20}),
        detector=DetectorSpec(kind="autoencoder", hidden=(4,), epochs=5),
        goals=GoalSpec(spearman_loss=0.9, label_flips=0.5, auc_loss=0.5),
        release=ReleaseSpec(precision="int8"),
    )
    (model,) = build_models(spec).models
    forms = model.parity["candidates"]
    assert {form["precision"] for form in forms.values()} == {"fp32", "int8"}
    # Its ranges come from the block that it sees, so no goal may let it ship.
    assert "alone and among others" in forms["int8 dynamic"]["missed"][0]
    assert model.costs["int8 dynamic"]["verdict"].startswith("Refused")
    assert model.precisions[model.form] == "int8"
    assert forms[model.form]["sets"]["held out"]["alone_difference"] <= 1e-5
    assert not model.below_goals


def test_labelled_readings_are_held_out_and_judge_what_the_others_taught(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, {"big": 12})
    assert spec.data.labels is not None
    labels = pd.read_parquet(spec.data.labels)
    # The first half of each device's record has no labels: it is what the model learns from.
    later = (
        labels["timestamp"] >= labels["timestamp"].min() + (labels["timestamp"].max() - labels["timestamp"].min()) / 2
    )
    labels[later].to_parquet(spec.data.labels)
    build = build_models(replace(spec, train=TrainSpec(LABELLED)))
    (model,) = build.models
    assert build.devices == {"trained": 12, "held_out": 12}
    assert model.evaluation["auc"] > 0.8
    assert any("taken for faulty" in note for note in model.notes), "no label was learnt from"


def test_a_network_of_few_windows_says_why_it_has_no_integer_form(tmp_path: Path) -> None:
    spec = replace(
        spec_of(tmp_path, {"big": 4}),
        detector=DetectorSpec(kind="autoencoder", hidden=(2,), epochs=2),
        calibration=CalibrationSpec(threshold=0.9),
    )
    readings = pd.read_parquet(spec.data.readings).groupby("device_id").head(30)
    readings.to_parquet(spec.data.readings)
    (model,) = build_models(spec).models
    assert list(model.candidates) == ["fp32"]
    assert any("No int8 form was made: its ranges need 100" in note for note in model.notes)


def test_a_form_that_is_refused_does_not_choose_the_golden_windows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It judges anomalies otherwise, so that no window would be clear of the threshold in every form."""

    def upside_down(trees: PathForest, features: np.ndarray) -> Iterator[Candidate]:
        def add(graph: GraphBuilder, features: str, name: str) -> str:
            one = graph.constant(np.float32(1))
            return graph.add("Sub", one, add_forest(graph, trees, features), name=name)

        yield Candidate("upside down", "int8", add, "Wrong about everything.")

    monkeypatch.setattr("exporter.detectors.forest.forest_candidates", upside_down)
    (model,) = build_models(replace(spec_of(tmp_path, {"big": 12}), calibration=CalibrationSpec(threshold=0.99))).models
    assert model.form == "fp32"
    assert model.costs["upside down"]["verdict"].startswith("Refused")
    windows, (_, _, flags) = windows_of(model)
    assert len(windows) == 32
    assert 0 < flags.sum() < 32

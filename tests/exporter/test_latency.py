"""``exporter bench`` measures what it is given and says what it cannot; no time is asserted."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper
from simulators.tiny_build import SIGNALS, SLOTS, tiny_graph, tiny_model, tiny_provenance

from edge_runtime.errors import InputError, ScoringError
from exporter import latency
from exporter.cli import run_command
from exporter.keys import create_key
from exporter.latency import Subject, measure, read_subject
from exporter.packing import pack_model


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency, "SECONDS", 0.01)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    key = create_key(tmp_path / "targets.pem", "targets", None)
    packed = pack_model(tiny_model(), tiny_provenance(), key, name="fleet", version="1", release_number=1)
    path = tmp_path / "fleet.bundle"
    path.write_bytes(packed.data)
    return path


def model_file(path: Path, shape: list[int | str], kind: int = TensorProto.FLOAT, inputs: int = 1) -> Path:
    """Write a model that adds its inputs to themselves."""
    values = [helper.make_tensor_value_info(f"x{k}", kind, shape) for k in range(inputs)]
    nodes = [helper.make_node("Sum" if inputs > 1 else "Identity", [value.name for value in values], ["y"])]
    graph = helper.make_graph(nodes, "sum", values, [helper.make_tensor_value_info("y", kind, shape)])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, path)
    return path


def bench(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, Any]:
    assert run_command(["bench", *map(str, arguments), "--json"]) == 0
    value: dict[str, Any] = json.loads(capsys.readouterr().out)
    return value


def test_a_bundle_is_measured_at_every_batch_asked_for(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    allowed = os.sched_getaffinity(0)
    measured = bench(capsys, bundle, "--batch", 300, "--batch", 2, "--batch", 2)
    assert [row["batch"] for row in measured["batches"]] == [2, 300]
    for row in measured["batches"]:
        assert row["calls"] >= latency.FEWEST
        assert 0 < row["median_ms"] <= row["p95_ms"]
        assert row["memory_mb"] >= 0
    assert measured["model_bytes"] == len(tiny_graph())
    assert measured["load_ms"] > 0
    assert measured["one_core_ms"] > 0
    assert os.sched_getaffinity(0) == allowed, "the process may use its cores again"
    assert {"ReduceSum", "Sigmoid"} <= set(measured["operators"]["CPUExecutionProvider"])
    assert measured["fallen_back"] == []


def test_a_person_gets_a_table(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["bench", str(bundle), "--batch", "5", "--threads", "2"]) == 0
    printed = capsys.readouterr().out
    assert "cpu, 2 threads" in printed
    assert "one core of this machine" in printed
    assert "CPUExecutionProvider runs" in printed


def test_any_model_of_one_float_input_is_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    measured = bench(capsys, model_file(tmp_path / "rows.onnx", ["n", 4]), "--batch", 7)
    assert measured["batches"][0]["windows_per_second"] > 0


def test_every_call_sees_windows_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bytes] = []
    run = latency._run
    monkeypatch.setattr(
        latency, "_run", lambda session, windows, *rest: (seen.append(windows.tobytes()), run(session, windows, *rest))
    )
    pattern = np.full((1, SLOTS, SIGNALS), np.nan, np.float32)
    pattern[0, 0] = 3.0
    measure(Subject(tiny_graph(), pattern), provider="cpu", batches=(4,), threads=1)
    fours = [one for one in seen if len(one) == 4 * 4 * SLOTS * SIGNALS]
    assert len(set(fours)) == len(fours) > latency.FEWEST
    windows = np.frombuffer(fours[0], np.float32).reshape(4, SLOTS, SIGNALS)
    assert np.isnan(windows[:, 1:]).all(), "what was missing stays missing"
    assert np.abs(windows[:, 0] / 3 - 1).max() < 0.1


@pytest.mark.parametrize(
    ("shape", "kind", "inputs"),
    [([1, 4], TensorProto.FLOAT, 1), (["n", "f"], TensorProto.FLOAT, 1), (["n", 4], TensorProto.INT64, 1),
     (["n", 4], TensorProto.FLOAT, 2), (["n"], TensorProto.FLOAT, 1)],
    ids=["fixed batch", "free columns", "integers", "two inputs", "no columns"],
)  # fmt: skip
def test_other_inputs_are_described(tmp_path: Path, shape: list[int | str], kind: int, inputs: int) -> None:
    with pytest.raises(ScoringError, match=r"The model's inputs are x0 tensor.*one float32 input is measured"):
        read_subject(model_file(tmp_path / "odd.onnx", shape, kind, inputs))


def test_a_broken_model_and_a_missing_file_are_sentences(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(tiny_graph()[:-40])
    assert run_command(["bench", str(broken)]) == 7
    assert "cannot be loaded" in capsys.readouterr().err
    assert run_command(["bench", str(tmp_path / "none.bundle")]) == 3


def test_a_batch_that_no_memory_holds_is_refused() -> None:
    wide = Subject(tiny_graph(), np.ones((1, SLOTS, SIGNALS, 1000), np.float32))
    with pytest.raises(InputError, match="Give a smaller --batch"):
        measure(wide, provider="cpu", batches=(1_000_000,), threads=1)


@pytest.mark.skipif("CUDAExecutionProvider" in ort.get_available_providers(), reason="this machine has what is missing")
def test_without_cuda_it_says_what_to_install(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["bench", str(bundle), "--provider", "cuda"]) == 3
    assert "install onnxruntime-gpu" in capsys.readouterr().err


def test_a_provider_that_is_built_in_but_does_not_start_is_no_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"])
    subject = Subject(tiny_graph(), np.ones((1, SLOTS, SIGNALS), np.float32))
    with pytest.warns(UserWarning, match="CUDA"), pytest.raises(InputError, match="could not start"):
        measure(subject, provider="cuda", batches=(1,), threads=1)


def test_what_the_cpu_ran_for_another_provider_is_named() -> None:
    measured = latency.Measured("cuda", 1, 9, 1.0, (), None, {"CPUExecutionProvider": ["TreeEnsemble"]})
    assert measured.fallen_back == ["TreeEnsemble"]
    assert measured.to_dict()["fallen_back"] == ["TreeEnsemble"]

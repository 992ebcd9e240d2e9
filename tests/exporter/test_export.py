"""exporter export: what an app gets, what is refused, and what phones' accelerators would take."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from simulators.bundles import SmallBundle
from simulators.tiny_build import tiny_graph, tiny_model, tiny_provenance
from sklearn.ensemble import IsolationForest

from edge_runtime.contract.golden import GoldenSpec
from edge_runtime.scoring import Scorer, check_golden
from exporter import app_files, forest_to_onnx
from exporter.cli import run_command
from exporter.keys import ReleaseKey, create_key
from exporter.mobile import mobile_report
from exporter.packing import pack_model

ALWAYS = {"README.md", "golden.f32", "golden.json", "manifest.json"}


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> ReleaseKey:
    return create_key(tmp_path_factory.mktemp("keys") / "targets.key", "targets", None)


@pytest.fixture(scope="module")
def bundle(key: ReleaseKey, tmp_path_factory: pytest.TempPathFactory) -> Path:
    packed = pack_model(tiny_model(), tiny_provenance(), key, name="fleet", version="1.0", release_number=1)
    path = tmp_path_factory.mktemp("bundles") / "fleet.bundle"
    path.write_bytes(packed.data)
    return path


def export(capsys: pytest.CaptureFixture[str], *arguments: object, code: int = 0) -> dict[str, Any]:
    assert run_command(["export", *map(str, arguments), "--json"]) == code
    output = capsys.readouterr()
    value: dict[str, Any] = json.loads(output.out)
    assert "Traceback" not in output.err
    return value


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_the_graph_comes_as_it_is_by_default(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "app"
    said = export(capsys, bundle, "--out", out)
    assert names(out) == ALWAYS | {"model.onnx"} == set(said["files"])
    assert (out / "model.onnx").read_bytes() == tiny_graph()
    spec = GoldenSpec.from_bytes((out / "golden.json").read_bytes())
    check_golden(Scorer(out / "model.onnx"), spec, (out / "golden.f32").read_bytes())
    assert said["verified"] is False
    text = (out / "README.md").read_text("utf-8")
    for part in ("[batch, 3, 2]", "0. `heat` (degC)", "1. `charging`", "1e-05", "4 golden windows", "Not verified"):
        assert part in text


def test_a_verified_bundle_says_so(
    bundle: Path, key: ReleaseKey, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "key.pub").write_bytes(key.public.pem)
    assert export(capsys, bundle, "--out", tmp_path / "app", "--public-key", tmp_path / "key.pub")["verified"] is True
    assert "Verified before export." in (tmp_path / "app" / "README.md").read_text("utf-8")


def test_a_bundle_that_another_key_signed_is_refused(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = create_key(tmp_path / "other.key", "targets", None)
    (tmp_path / "other.pub").write_bytes(other.public.pem)
    said = export(capsys, bundle, "--out", tmp_path / "app", "--public-key", tmp_path / "other.pub", code=4)
    assert said["reason"] == "bad_signature"
    assert not (tmp_path / "app").exists()


@pytest.mark.parametrize("optimization", ["fixed", "runtime"])
def test_the_ort_file_scores_as_the_graph_does(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], optimization: str
) -> None:
    out = tmp_path / "app"
    export(capsys, bundle, "--out", out, "--ort", "--required-operators", "--optimization", optimization)
    assert names(out) == ALWAYS | {"model.ort", "required_operators.config"}
    windows = np.random.default_rng(0).normal(size=(20, 3, 2)).astype(np.float32)
    ort, plain = Scorer((out / "model.ort").read_bytes()), Scorer(tiny_graph())
    assert np.abs(ort.raw_scores(windows) - plain.raw_scores(windows)).max() <= 1e-6
    lines = (out / "required_operators.config").read_text("utf-8").splitlines()
    assert lines == ["ai.onnx;13;Greater,ReduceSum,Sigmoid,Unsqueeze"]
    assert str(tmp_path) not in "".join((out / name).read_text("utf-8") for name in ("README.md",))


def test_a_person_is_told_when_ort_is_larger(
    key: ReleaseKey, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "fleet.bundle"
    path.write_bytes(SmallBundle().build().data)
    assert run_command(["export", str(path), "--out", str(tmp_path / "app"), "--ort", "--onnx"]) == 0
    out = capsys.readouterr().out
    assert "times as large as model.onnx" in out
    assert names(tmp_path / "app") == ALWAYS | {"model.onnx", "model.ort"}


def test_operators_of_a_forest_are_those_of_its_graph() -> None:
    model = forest_to_onnx(
        IsolationForest(n_estimators=3, random_state=0).fit(np.random.default_rng(0).normal(size=(50, 2)))
    )
    lines = (
        app_files.operators_config(model.SerializeToString(), "# a comment\nai.onnx;13;Tanh\n").decode().splitlines()
    )
    assert "ai.onnx.ml;5;TreeEnsemble" in lines
    assert any("Tanh" in line and "Exp" in line for line in lines)


def test_files_that_are_there_are_kept_or_replaced_whole(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "app"
    export(capsys, bundle, "--out", out)
    (out / "model.onnx").write_bytes(b"mine")
    (out / "notes.txt").write_text("mine")
    said = export(capsys, bundle, "--out", out, "--ort", code=3)
    assert "model.onnx" in said["message"]
    assert (out / "model.onnx").read_bytes() == b"mine"
    export(capsys, bundle, "--out", out, "--ort", "--overwrite")
    # The graph of an earlier bundle must not lie beside the manifest of this one.
    assert names(out) == ALWAYS | {"model.ort", "notes.txt"}


def test_what_is_no_bundle_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "no.bundle").write_bytes(b"PK, but no archive")
    export(capsys, tmp_path / "no.bundle", "--out", tmp_path / "app", code=3)
    export(capsys, tmp_path / "none.bundle", "--out", tmp_path / "app", code=3)
    assert not (tmp_path / "app").exists()


def test_a_folder_that_cannot_be_written_gets_nothing(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("mine")
    said = export(capsys, bundle, "--out", tmp_path / "file" / "app", code=6)
    assert "file" in said["message"]
    assert (tmp_path / "file").read_text() == "mine"


def test_a_full_disk_leaves_the_folder_as_it_was(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "app"
    out.mkdir()
    written: list[int] = []

    def full(descriptor: int) -> None:
        written.append(descriptor)
        if len(written) == 3:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    export(capsys, bundle, "--out", out, code=6)
    assert names(out) == set()


def test_a_graph_that_the_tool_cannot_convert_is_named(
    key: ReleaseKey, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "broken.bundle"
    path.write_bytes(SmallBundle(extra=(("model.onnx", b"no graph"),)).build().data)
    said = export(capsys, path, "--out", tmp_path / "app", "--ort", code=7)
    assert ".ort" in said["message"]
    assert "\n" not in said["message"]
    assert not (tmp_path / "app").exists()


def test_a_tool_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    from exporter.errors import ConversionError

    def hang(*_: object, **__: object) -> None:
        raise subprocess.TimeoutExpired("tool", 300)

    monkeypatch.setattr("subprocess.run", hang)
    with pytest.raises(ConversionError, match="300 s"):
        app_files._converted(tiny_graph(), "fixed")


def test_trees_run_on_the_cpu_and_the_maybe_is_explained(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    forest = forest_to_onnx(
        IsolationForest(n_estimators=3, random_state=0).fit(np.random.default_rng(0).normal(size=(50, 2)))
    )
    report = mobile_report(forest.SerializeToString())
    assert report.trees
    assert all("TreeEnsemble" in one.unsupported for one in report.accelerators)
    text = "\n".join(report.lines())
    for part in ("NNAPI", "Core ML", "run on the CPU", "MAYBE"):
        assert part in text
    assert run_command(["inspect", str(bundle), "--mobile"]) == 0
    assert "trees" not in capsys.readouterr().out
    assert run_command(["inspect", str(bundle), "--mobile", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["mobile"]["accelerators"][0]["nodes"] == len(
        onnx.load_model_from_string(tiny_graph()).graph.node
    )


def test_a_graph_in_many_pieces_is_for_the_cpu() -> None:
    nodes = []
    for number in range(3):
        nodes += [
            onnx.helper.make_node("Relu", [f"x{number}"], [f"y{number}"]),
            onnx.helper.make_node("IsNaN", [f"y{number}"], [f"n{number}"]),
            onnx.helper.make_node("Where", [f"n{number}", f"y{number}", f"y{number}"], [f"w{number}"]),
            onnx.helper.make_node("Erf", [f"w{number}"], [f"x{number + 1}"]),
        ]
    value = onnx.helper.make_tensor_value_info("x0", onnx.TensorProto.FLOAT, [1, 4])
    result = onnx.helper.make_tensor_value_info("x3", onnx.TensorProto.FLOAT, [1, 4])
    model = onnx.helper.make_model(onnx.helper.make_graph(nodes, "pieces", [value], [result]))
    assert "use the CPU" in mobile_report(model.SerializeToString()).lines()[-1]

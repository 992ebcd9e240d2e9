"""A build survives the work folder bit for bit, and the graph that is shipped can be chosen there."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from simulators.tiny_build import tiny_build, tiny_model, tiny_provenance

from edge_runtime.contract.golden import GoldenSpec
from edge_runtime.errors import InputError
from edge_runtime.scoring import Scorer, check_golden
from exporter.keys import create_key
from exporter.packing import pack_model
from exporter.work_folder import SavedBuild, choose_form, form_file, load_build, save_build, save_model, smallest_form

SETTINGS = {"model": {"name": "fleet"}, "release": {"channels": ["stable"]}}


def test_build_comes_back_as_it_was(tmp_path: Path) -> None:
    build = tiny_build("phone", "a / b")
    save_build(SavedBuild(build, SETTINGS), tmp_path)
    loaded = load_build(tmp_path)
    assert loaded.build == build
    assert loaded.settings == SETTINGS


def test_bundle_of_a_saved_build_is_the_same(tmp_path: Path) -> None:
    key = create_key(tmp_path / "k", "targets", None)
    save_build(SavedBuild(tiny_build(), SETTINGS), tmp_path / "work")
    (loaded,) = load_build(tmp_path / "work").build.models
    packed = [
        pack_model(model, tiny_provenance(), key, name="f", version="1", release_number=1).data
        for model in (loaded, tiny_model())
    ]
    assert packed[0] == packed[1]


def test_chosen_graph_gets_golden_windows_of_its_own(tmp_path: Path) -> None:
    model = tiny_model(golden_f32=tiny_model().golden_f32[:-16] + b"\x00" * 16)
    chosen = choose_form(model, "codebook8")
    assert (chosen.form, chosen.precision, chosen.parity["chosen"]) == ("codebook8", "codebook8", "codebook8")
    check_golden(Scorer(chosen.model_onnx), GoldenSpec.from_bytes(chosen.golden_json), chosen.golden_f32)
    save_build(SavedBuild(tiny_build(), SETTINGS), tmp_path)
    save_model(chosen, tmp_path)
    assert load_build(tmp_path).build.models[0] == chosen


def test_graph_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no form 'codebook8'"):
        choose_form(tiny_model(candidates={"fp32": b""}), "codebook8")


def test_the_smallest_form_that_keeps_the_goals() -> None:
    model = tiny_model()
    assert smallest_form(model) == "codebook8"
    forms = model.parity["candidates"]
    poor = {**forms, "codebook8": {**forms["codebook8"], "missed": ["1% other verdicts"]}}
    missing = tiny_model(parity={**model.parity, "candidates": poor})
    with pytest.raises(InputError, match="No smaller form"):
        smallest_form(missing)
    chosen = choose_form(missing, "codebook8")
    assert chosen.below_goals == ("codebook8 has 1% other verdicts.",)
    assert choose_form(chosen, "fp32").below_goals == ()


@pytest.mark.parametrize(
    ("form", "file"),
    [("fp32", "fp32.onnx"), ("int8 static, per channel: Entropy", "int8-static-per-channel-entropy.onnx")],
)
def test_each_form_has_a_file(form: str, file: str) -> None:
    assert form_file(form) == file


def test_other_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="exporter train"):
        load_build(tmp_path)


@pytest.mark.parametrize("damage", ["build.json", "model.json", "field", "missing", "format"])
def test_damaged_folders_are_refused(tmp_path: Path, damage: str) -> None:
    save_build(SavedBuild(tiny_build(), SETTINGS), tmp_path)
    model = tmp_path / "models" / "default" / "model.json"
    build = tmp_path / "build.json"
    value = json.loads(build.read_text())
    if damage == "build.json":
        build.write_text("{")
    elif damage == "model.json":
        model.write_text("[]")
    elif damage == "field":
        value["surprise"] = 1
        build.write_text(json.dumps(value))
    elif damage == "format":
        build.write_text(json.dumps({**value, "format": 1}))
    else:
        (tmp_path / "models" / "default" / "references.f32").unlink()
    with pytest.raises(InputError):
        load_build(tmp_path)


def test_golden_windows_too_near_to_the_threshold_are_left_out() -> None:
    from dataclasses import replace

    model = tiny_model()
    spec = GoldenSpec.from_bytes(model.golden_json)
    raw = Scorer(model.model_onnx).raw_scores(
        np.frombuffer(model.golden_f32[: spec.tensors[0].size], "<f4").reshape(spec.tensors[0].shape)
    )
    near = replace(model, threshold=replace(model.threshold, raw_score=float(raw[1])))
    chosen = choose_form(near, "fp32")
    assert GoldenSpec.from_bytes(chosen.golden_json).windows == spec.windows - 1

"""A build on disk between two commands: graphs as ONNX, windows as float32, everything else as JSON. No pickle.

``train`` makes every form of a model and proves it, because calibration and proof need what was trained; ``convert``
and ``quantize`` choose the form that is shipped and make its golden windows anew; ``pack`` packs what was chosen::

    WORK/build.json                       notes, digest of the data, counts, settings
    WORK/models/COHORT/model.json         manifest fields, parity, costs, evaluation
    WORK/models/COHORT/fp32.onnx ...      one file a form;  references.f32  golden.json  golden.f32
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_runtime.contract.manifest import Regimes, Signal, Threshold
from edge_runtime.contract.names import cohort_part
from edge_runtime.contract.window import WindowRule
from edge_runtime.errors import ContractError, InputError
from exporter.built import Build, BuiltModel
from exporter.candidates import FP32, missed_sentence
from exporter.errors import did_you_mean
from exporter.files import read_bytes, write_bytes
from exporter.provenance import readable_json

BUILD_FILE = "build.json"
MODELS = "models"
MODEL_FILE = "model.json"
FORMAT = 2
# contract.md, Golden windows: none with a raw score this near to the threshold's.
CLEAR_OF_THRESHOLD = 1e-4
# Fields of BuiltModel that are files of their own.
_BINARY = {"references": "references.f32", "golden_json": "golden.json", "golden_f32": "golden.f32"}


@dataclass(frozen=True, slots=True)
class SavedBuild:
    """A build with the settings it was made with, as provenance.json records them."""

    build: Build
    settings: Mapping[str, Any]


def save_build(saved: SavedBuild, folder: Path) -> None:
    """Write a build to a work folder; one that is there is replaced.

    Raises:
        StorageError: The folder cannot be written.
    """
    for model in saved.build.models:
        save_model(model, folder)
    value = {
        "format": FORMAT,
        "settings": dict(saved.settings),
        "models": [cohort_part(model.cohort) for model in saved.build.models],
        **{
            field.name: getattr(saved.build, field.name)
            for field in dataclasses.fields(saved.build)
            if field.name != "models"
        },
    }
    # Last: a folder without build.json is no work folder, so a half-written one is never packed.
    write_bytes(folder / BUILD_FILE, readable_json(value))


def save_model(model: BuiltModel, folder: Path) -> None:
    """Write one model of a build.

    Raises:
        StorageError: The folder cannot be written.
    """
    where = folder / MODELS / cohort_part(model.cohort)
    for form, graph in model.candidates.items():
        write_bytes(where / form_file(form), graph)
    for field, name in _BINARY.items():
        write_bytes(where / name, getattr(model, field))
    skipped = {*_BINARY, "candidates"}
    value = {
        field.name: _plain(getattr(model, field.name))
        for field in dataclasses.fields(model)
        if field.name not in skipped
    }
    write_bytes(where / MODEL_FILE, readable_json(value))


def form_file(form: str) -> str:
    """Return the name of a form's file, such as ``int8-static-per-channel.onnx``."""
    return f"{re.sub(r'[^a-z0-9]+', '-', form.lower()).strip('-')}.onnx"


def load_build(folder: Path) -> SavedBuild:
    """Read a work folder.

    Raises:
        InputError: No work folder, or one that was damaged or made by another version.
    """
    value = _json(folder / BUILD_FILE, "Make it with 'exporter train'.")
    try:
        if value.pop("format") != FORMAT:
            raise InputError(f"{folder} was made by another version.", advice="Run 'exporter train' again.")
        settings = value.pop("settings")
        parts = value.pop("models")
        models = tuple(_load_model(folder / MODELS / part) for part in parts)
        value["notes"] = tuple(value["notes"])
        return SavedBuild(Build(models=models, **value), settings)
    except (KeyError, TypeError, ValueError, ContractError) as error:
        raise _damaged(folder, error) from error


def choose_form(model: BuiltModel, form: str) -> BuiltModel:
    """Return a model that ships another of its forms, with golden windows that this graph makes.

    Args:
        model: The model.
        form: Name of the form to ship.

    Returns:
        The model with that graph, the golden outputs it gives here and the goals that it misses.

    Raises:
        InputError: The build has no such form, or no golden window is clear of the threshold in it.
        ScoringError: The graph cannot be run.
    """
    import numpy as np

    from edge_runtime.contract.golden import GoldenSpec
    from edge_runtime.scoring import Scorer

    graph = model.candidates.get(form)
    if graph is None:
        raise InputError(f"The build has no form {form!r}.", advice=did_you_mean(form, model.candidates))
    spec = GoldenSpec.from_bytes(model.golden_json)
    first = spec.tensors[0]
    windows = np.frombuffer(model.golden_f32[: first.size], "<f4").reshape(first.shape).astype(np.float32)
    scorer = Scorer(graph)
    # The two graphs differ a little: a window that was clear of the threshold in one may not be in the other.
    clear = np.abs(scorer.raw_scores(windows) - model.threshold.raw_score) >= CLEAR_OF_THRESHOLD
    if not clear.any():
        raise InputError(f"No golden window is clear of the threshold in {form}.", advice="Train again.")
    windows = windows[clear]
    verdicts = scorer.score(windows)
    outputs = (windows, verdicts.anomaly_score, verdicts.raw_score, verdicts.is_anomaly)
    kept = GoldenSpec(len(windows), spec.slots, spec.signals, spec.raw_tolerance)
    return dataclasses.replace(
        model,
        form=form,
        parity={**model.parity, "chosen": form, "reason": "The release engineer chose it."},
        below_goals=_below_goals(model, form),
        golden_json=kept.to_bytes(),
        golden_f32=b"".join(output.astype("<f4").tobytes() for output in outputs),
    )


def smallest_form(model: BuiltModel) -> str:
    """Return the smallest form but fp32 that keeps the goals.

    Raises:
        InputError: There is none.
    """
    forms = model.parity["candidates"]
    kept = [name for name, figures in forms.items() if name != FP32 and not figures["missed"]]
    if not kept:
        raise InputError(
            f"No smaller form of the model of {model.cohort or 'all devices'} keeps the goals.",
            advice="'exporter convert' ships fp32; --form names one that misses them.",
        )
    smallest: str = min(kept, key=lambda name: int(forms[name]["bytes_deflated"]))
    return smallest


def _below_goals(model: BuiltModel, form: str) -> tuple[str, ...]:
    """Return the goals that a model misses with another form: those of its old form go, those of the new one come."""
    forms = model.parity["candidates"]
    old = {missed_sentence(model.form, what) for what in forms[model.form]["missed"]}
    new = (missed_sentence(form, what) for what in forms[form]["missed"])
    return (*(goal for goal in model.below_goals if goal not in old), *new)


def _load_model(where: Path) -> BuiltModel:
    value = _json(where / MODEL_FILE, "Run 'exporter train' again.")
    candidates = {form: read_bytes(where / form_file(form)) for form in value["precisions"]}
    regimes = value.pop("regimes")
    return BuiltModel(
        **{
            **value,
            **{field: read_bytes(where / name) for field, name in _BINARY.items()},
            **{name: tuple(value[name]) for name in ("context", "features", "histogram", "notes", "below_goals")},
            "candidates": candidates,
            "signals": tuple(Signal(**signal) for signal in value["signals"]),
            "window_rule": WindowRule(**value["window_rule"]),
            "threshold": Threshold(**value["threshold"]),
            "regimes": None if regimes is None else Regimes(**{name: _tuples(rows) for name, rows in regimes.items()}),
        }
    )


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return value


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


def _json(path: Path, advice: str) -> dict[str, Any]:
    if not path.is_file():
        raise InputError(f"{path.parent} is no work folder: {path.name} is missing.", advice=advice, path=str(path))
    try:
        value = json.loads(read_bytes(path))
    except ValueError as error:
        raise _damaged(path, error) from error
    if not isinstance(value, dict):
        raise _damaged(path, TypeError("not an object"))
    return value


def _damaged(path: Path, error: Exception) -> InputError:
    return InputError(
        f"{path} does not hold a whole build ({type(error).__name__}).",
        advice="Run 'exporter train' again.",
        path=str(path),
    )

"""Write the winning ``model.toml``: the file that it came from, comments kept, with the settings that won."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tomlkit

from exporter.config import DataSpec, ModelSpec, ProofSpec, load_spec, parse_spec
from exporter.errors import SpecError
from exporter.files import path_from, read_bytes, write_bytes

# What a comparison changes; the rest of the file is as it was.
_VARIED = ("data", "window", "features", "detector")


def write_winner(spec: ModelSpec, source: Path, target: Path) -> None:
    """Write a ``model.toml`` that says what a specification says.

    Args:
        spec: The specification.
        source: The file that it is a variant of.
        target: The file to write; paths of telemetry are named as seen from there.

    Raises:
        SpecError: The source changed meanwhile.
        StorageError: The file cannot be written.
    """
    before = load_spec(source).to_dict()
    document: dict[str, Any] = tomlkit.parse(read_bytes(source).decode("utf-8"))
    settings = spec.to_dict()
    for name in _VARIED:
        _update(document, name, before[name], settings[name])
    _move_paths(document["data"], spec.data, target.parent)
    for table, proof in zip(document.get("prove", []), spec.prove, strict=False):
        _move_paths(table, proof, target.parent)
    text = tomlkit.dumps(document)
    said = parse_spec(tomlkit.parse(text).unwrap(), source=str(target), folder=target.parent)
    if said.to_dict() != spec.to_dict():
        raise SpecError(f"{source} changed while it was compared.", advice="Compare again.", path=str(source))
    write_bytes(target, text.encode("utf-8"))


def _update(document: dict[str, Any], name: str, before: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """Set what differs from the source; what is left out keeps its default, so None is never written."""
    changed = {key: value for key, value in settings.items() if value != before.get(key)}
    if not changed:
        return
    table = document.setdefault(name, tomlkit.table())
    for key, value in changed.items():
        if value is None:
            table.pop(key, None)
        else:
            table[key] = value


def _move_paths(table: dict[str, Any], spec: DataSpec | ProofSpec, folder: Path) -> None:
    """Name the telemetry as seen from the folder of the new file."""
    table["readings"] = path_from(folder, spec.readings)
    if spec.labels is not None:
        table["labels"] = path_from(folder, spec.labels)

"""Replaying the windows that a server kept of its own scoring: a sample, without the readings between.

The file is what ``GET /api/channels/<channel>/windows`` gives: NDJSON with a line for the format, one for each bundle
before its first window, one for each window, and one for the end. Devices never upload windows; these came from
clients that let the server score. They are samples, so that days and incidents cannot be counted.
"""

from __future__ import annotations

import base64
import binascii
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from edge_runtime.contract import checks
from edge_runtime.contract.window import WindowRule
from edge_runtime.errors import ContractError, InputError
from exporter.dataset import UNLABELLED
from exporter.replay.outcome import DeviceOutcome, Outcome, count_windows
from exporter.replay.sides import Flags, Model, Scores, Side

FORMAT = 1
KIND = "stella-edge-windows"
# A window of 64 KiB is 88 KB of base64; a bundle of 1,024 columns names them in 300 KB.
MAX_LINE_BYTES = 1024 * 1024
# Windows that are scored together.
BLOCK = 128


@dataclass(frozen=True, slots=True)
class _Columns:
    """What the windows of one bundle look like."""

    signals: tuple[str, ...]
    rule: WindowRule


@dataclass(frozen=True, slots=True, eq=False)
class _Window:
    """One line: (W, S) float32 and whose it is."""

    device: str | None
    cohort: str | None
    at_ms: int
    cells: npt.NDArray[np.float32]
    columns: _Columns


@dataclass(slots=True, eq=False)
class _Found:
    """What both sides said of one device's windows."""

    cohort: str | None
    times: list[int] = field(default_factory=list)
    current: list[tuple[float, bool]] = field(default_factory=list)
    candidate: list[tuple[float, bool]] = field(default_factory=list)


def is_stored_windows(path: Path) -> bool:
    """Whether a file holds windows of a server, by its first line."""
    if not path.is_file():
        return False
    with path.open("rb") as stream:
        return KIND.encode() in stream.readline(1_024)


def replay_windows(
    path: Path, candidate: Side, current: Side, *, progress: Callable[[float], None] = lambda _: None
) -> Outcome:
    """Replay the windows of a file.

    Args:
        path: The file.
        candidate: The release that is asked about.
        current: The release in use.
        progress: Takes the share of the file that is done.

    Returns:
        The figures; days and incidents are 0.

    Raises:
        InputError: The file is not whole, or its windows are not those that a side's bundles read.
        ScoringError: A model failed.
    """
    found: dict[str | None, _Found] = {}
    outcome = Outcome(
        "windows", notes=["These windows are a sample that a server kept: days and incidents are not counted."]
    )
    size = max(1, path.stat().st_size)
    with path.open("rb") as stream:
        for block in _blocks(_windows(stream, path), candidate, current):
            outcome.left_out += _score_block(block, found)
            progress(min(1.0, stream.tell() / size))
    for device, one in sorted(found.items(), key=lambda item: item[0] or ""):
        _add(outcome, device, one)
    if not outcome.devices:
        raise InputError(
            f"No window in {path} has a bundle on both sides.", advice="Check the channel and its cohorts."
        )
    return outcome


_Pair = tuple[Model, Model] | None


def _blocks(windows: Iterator[_Window], candidate: Side, current: Side) -> Iterator[tuple[_Pair, list[_Window]]]:
    """Yield windows that the same two bundles judge, some at a time; None where a side has none."""
    waiting: dict[tuple[str, ...], tuple[_Pair, list[_Window]]] = defaultdict(lambda: (None, []))
    for window in windows:
        now, then = current.model_for(window.cohort), candidate.model_for(window.cohort)
        pair = None if now is None or then is None else (now, then)
        for model in pair or ():
            _check_columns(window, model)
        key = () if pair is None else (pair[0].digest, pair[1].digest)
        waiting.setdefault(key, (pair, []))[1].append(window)
        if len(waiting[key][1]) == BLOCK:
            yield waiting.pop(key)
    yield from waiting.values()


def _check_columns(window: _Window, model: Model) -> None:
    rule, own = window.columns.rule, model.manifest.window
    same = (rule.slots, rule.interval_ms) == (own.slots, own.interval_ms) and window.columns.signals == model.columns
    if not same:
        raise InputError(
            f"The windows were cut for other signals or slots than release {model.manifest.release_number} reads.",
            advice="Replay recorded readings instead: they are cut anew for each release.",
        )


def _score_block(block: tuple[_Pair, list[_Window]], found: dict[str | None, _Found]) -> int:
    """Score a block with both sides; returns how many of its windows have no bundle on one of them."""
    pair, windows = block
    if pair is None:
        return len(windows)
    cells = np.stack([window.cells for window in windows])
    ready = np.count_nonzero(~np.isnan(cells).all(axis=2), axis=1)
    least = max(model.manifest.window.minimum_readings for model in pair)
    chosen = np.flatnonzero(ready >= least)
    if not len(chosen):
        return 0
    now, then = (model.scorer.score(cells[chosen]) for model in pair)
    for place, row in enumerate(chosen.tolist()):
        window = windows[row]
        one = found.setdefault(window.device, _Found(window.cohort))
        one.times.append(window.at_ms)
        one.current.append((float(now.raw_score[place]), bool(now.is_anomaly[place])))
        one.candidate.append((float(then.raw_score[place]), bool(then.is_anomaly[place])))
    return 0


def _add(outcome: Outcome, device: str | None, one: _Found) -> None:
    order = np.argsort(one.times, kind="stable")
    times = np.array(one.times, dtype=np.int64)[order]
    labels = np.full(len(times), UNLABELLED, np.int8)
    (now_raw, now), (then_raw, then) = _arrays(one.current, order), _arrays(one.candidate, order)
    counts = count_windows(now, then, labels)
    first = [int(times[int(flags.argmax())]) if flags.any() else None for flags in (now, then)]
    outcome.add(DeviceOutcome(device or "", one.cohort, counts, *first), now_raw, then_raw, labels)


def _arrays(pairs: list[tuple[float, bool]], order: npt.NDArray[np.intp]) -> tuple[Scores, Flags]:
    raw = np.array([pair[0] for pair in pairs], dtype=np.float32)[order]
    return raw, np.array([pair[1] for pair in pairs], dtype=np.bool_)[order]


def _windows(stream: BinaryIO, path: Path) -> Iterator[_Window]:
    """Yield the windows of a file, checked line by line."""
    columns: dict[str, _Columns] = {}
    number, windows = 0, 0
    while line := stream.readline(MAX_LINE_BYTES + 1):
        number += 1
        try:
            value = checks.parse_object(line, "line") if len(line) <= MAX_LINE_BYTES else {}
            if number == 1:
                _check_header(value)
            elif "end" in value:
                if value["end"] != windows:
                    raise ContractError(f"It says that there are {value['end']} windows, not {windows}.")
                return
            elif "bundle" in value:
                columns[checks.text(value["bundle"], "bundle", most=64)] = _columns(value)
            else:
                windows += 1
                yield _window(value, columns)
        except ContractError as error:
            raise InputError(
                f"Line {number} of {path} cannot be used: {error.message}", advice="Get the file from the server again."
            ) from error
    raise InputError(f"{path} is not whole: its last line is missing.", advice="Get the file from the server again.")


def _check_header(value: Mapping[str, Any]) -> None:
    if (value.get("format"), value.get("kind")) != (FORMAT, KIND):
        raise ContractError(f"It is no file of windows in format {FORMAT}.")


def _columns(value: Mapping[str, Any]) -> _Columns:
    names = checks.array(checks.get(value, "signals"), "signals", most=1_024)
    rule = WindowRule.from_dict(checks.table(checks.get(value, "window"), "window"))
    return _Columns(tuple(checks.text(name, "signals", most=256) for name in names), rule)


def _window(value: Mapping[str, Any], known: Mapping[str, _Columns]) -> _Window:
    columns = known.get(str(checks.get(value, "in")))
    if columns is None:
        raise ContractError("It names a bundle that no line before describes.")
    shape = (columns.rule.slots, len(columns.signals))
    try:
        data = base64.b64decode(checks.text(checks.get(value, "cells"), "cells", most=MAX_LINE_BYTES), validate=True)
        cells = np.frombuffer(data, dtype="<f4").reshape(shape).astype(np.float32)
    except (binascii.Error, ValueError) as error:
        raise ContractError(f"Its cells are not {shape[0]} slots of {shape[1]} values.") from error
    if np.isinf(cells).any():
        raise ContractError("It holds an infinity.")
    observed = value.get("observed_at_ms")
    at_ms = checks.integer(checks.get(value, "scored_at_ms") if observed is None else observed, "observed_at_ms")
    names = [
        None if value.get(name) is None else checks.text(value[name], name, most=128) for name in ("device", "cohort")
    ]
    return _Window(names[0], names[1], at_ms, cells, columns)

"""Telemetry as devices: sorted readings with labels, and an account of every row that was left out.

Bad input has three classes (contract, last section). *Refused*: a file or column that is not there, no rows, too many
bad rows. *Set aside*: a broken line of a CSV, a row with text where a number should be, an infinity, no device or
time, or a time that its device had already; counted by reason. *Noted*: what works but deserves a line in the report::

    fleet = read_fleet(spec.data)
    fleet.devices[0].values        # (n, S) float32, NaN = missing
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from exporter.config import DataSpec
from exporter.errors import TelemetryError
from exporter.tables import as_numbers, as_texts, as_times, read_columns, table_files

HEALTHY, FAULTY, UNLABELLED = 0, 1, -1
LABEL_COLUMN = "label"
# Reasons, in the order in which a row is judged: each row counts once.
REASONS = {
    "no_device": "without a device id",
    "bad_timestamp": "without a time between 1970 and 9999",
    "text_in_number": "with text where a number should be",
    "infinity": "with an infinity, or a number beyond float32",
    "duplicated_timestamp": "with a time that their device had already",
    "bad_line": "with too many or too few fields",
}
TIMES = "Times are ISO 8601, or seconds since 1970 as a number."


@dataclass(frozen=True, slots=True, eq=False)
class Device:
    """The readings of one device, oldest first.

    Attributes:
        name: Its id.
        cohort: The cohort of its newest reading, or None.
        timestamps_ms: (n,) int64, strictly ascending.
        values: (n, S) float32, columns as in the manifest, NaN = missing.
        labels: (n,) int8: 0 healthy, 1 faulty, -1 unknown.
    """

    name: str
    cohort: str | None
    timestamps_ms: npt.NDArray[np.int64]
    values: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int8]


@dataclass(frozen=True, slots=True, eq=False)
class Fleet:
    """All devices, by name, and what happened to the rows.

    Attributes:
        devices: Sorted by name.
        columns: S names: signals, then context.
        labelled: Whether a labels file was given.
        rows: Rows read.
        set_aside: Rows left out, by reason (``REASONS``).
        digest: SHA-256 in hex over the files that were read.
        notes: Sentences for the report.
    """

    devices: tuple[Device, ...]
    columns: tuple[str, ...]
    labelled: bool
    rows: int
    set_aside: Mapping[str, int]
    digest: str
    notes: tuple[str, ...]


def read_fleet(data: DataSpec) -> Fleet:
    """Read the telemetry and labels that ``model.toml`` names.

    Raises:
        TelemetryError: A file or column is not there or cannot be read, there are no rows, or more rows are bad than
            ``max_bad_rows`` allows.
    """
    files = table_files(data.readings, leave_out=data.labels)
    parts = [_read_one(path, data) for path in files]
    frame = pd.concat([part.frame for part in parts], ignore_index=True)
    values = np.concatenate([part.values for part in parts])
    broken = sum(part.broken_lines for part in parts)
    reason = _judge(frame)
    counts = {name: int((reason == name).sum()) for name in REASONS} | {"bad_line": broken}
    set_aside = {name: count for name, count in counts.items() if count}
    text = next((part.example for part in parts if part.example), "")
    _refuse_too_many(data, len(frame) + broken, set_aside, text)
    keep = np.flatnonzero(reason == "")
    order = keep[np.lexsort((frame["time"].to_numpy()[keep], frame["code"].to_numpy()[keep]))]
    frame, values = frame.iloc[order], values[order]
    labels, notes = _labels(data, frame)
    return Fleet(
        devices=_split(frame, values, labels),
        columns=data.columns,
        labelled=data.labels is not None,
        rows=len(reason) + broken,
        set_aside=set_aside,
        digest=_digest([*files, *([data.labels] if data.labels else [])]),
        notes=(*_aside_notes(set_aside), *notes),
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """One file: its rows, their (n, S) values, broken lines, and the first text that should be a number."""

    frame: pd.DataFrame
    values: npt.NDArray[np.float32]
    broken_lines: int
    example: str


def _read_one(path: Path, data: DataSpec) -> _Part:
    keys = [data.device, data.time, *([data.cohort] if data.cohort else [])]
    table, broken_lines = read_columns(path, [*keys, *data.columns], texts=keys)
    times, bad_time = as_times(table[data.time])
    values = np.empty((table.num_rows, len(data.columns)), np.float32)
    text, infinite, example = np.zeros(table.num_rows, bool), np.zeros(table.num_rows, bool), ""
    for i, name in enumerate(data.columns):
        numbers, bad = as_numbers(table[name])
        with np.errstate(over="ignore"):  # beyond float32 is an infinity, and that is counted below
            values[:, i] = numbers
        if bad.any() and not example:
            example = f"{table[name][int(bad.argmax())].as_py()!r} in column {name!r}"
        text |= bad
        infinite |= np.isinf(values[:, i])
    frame = pd.DataFrame(
        {
            "device": as_texts(table[data.device]),
            "time": times,
            "cohort": as_texts(table[data.cohort]) if data.cohort else None,
            "bad_time": bad_time,
            "text": text,
            "infinite": infinite,
        }
    )
    return _Part(frame, values, broken_lines, example)


def _judge(frame: pd.DataFrame) -> npt.NDArray[np.object_]:
    """Return the reason against each row, empty for good ones; adds the column ``code``, a device's rank by name."""
    codes, _ = pd.factorize(frame["device"], sort=True)
    frame["code"] = codes
    reason = np.full(len(frame), "", object)
    for name, bad in (
        ("infinity", frame["infinite"]),
        ("text_in_number", frame["text"]),
        ("bad_timestamp", frame["bad_time"]),
        ("no_device", codes < 0),
    ):
        reason[np.asarray(bad, bool)] = name
    good = frame.loc[reason == "", ["code", "time"]]
    reason[good.index[good.duplicated()].to_numpy()] = "duplicated_timestamp"
    return reason


def _refuse_too_many(data: DataSpec, rows: int, set_aside: Mapping[str, int], text: str) -> None:
    bad = sum(set_aside.values())
    if bad > data.max_bad_rows * rows or bad == rows:
        listed = ", ".join(f"{count} {REASONS[name]}" for name, count in set_aside.items())
        hints = [f"The first text is {text}."] if "text_in_number" in set_aside else []
        hints += [TIMES] if "bad_timestamp" in set_aside else []
        raised = f", or raise --max-bad-rows above {data.max_bad_rows:g}" if bad < rows else ""
        raise TelemetryError(
            f"{bad} of {rows} rows of {data.readings} cannot be used: {listed}.",
            advice=" ".join([*hints, f"Correct them{raised}."]),
            path=str(data.readings),
            set_aside=dict(set_aside),
        )


def _labels(data: DataSpec, frame: pd.DataFrame) -> tuple[npt.NDArray[np.int8], list[str]]:
    """Return the label of each row of the frame, and notes."""
    result = np.full(len(frame), UNLABELLED, np.int8)
    if data.labels is None:
        return result, []
    (path,) = table_files(data.labels)
    table, _ = read_columns(path, [data.device, data.time, LABEL_COLUMN], texts=[data.device, data.time])
    times, bad_time = as_times(table[data.time])
    numbers, text = as_numbers(table[LABEL_COLUMN])
    labels = pd.DataFrame({"device": as_texts(table[data.device]), "time": times, "label": numbers})[~(bad_time | text)]
    labels = labels.drop_duplicates(["device", "time"], keep="last")
    merged = frame[["device", "time"]].merge(labels, on=["device", "time"], how="left")["label"].to_numpy()
    result[merged == HEALTHY] = HEALTHY
    result[merged == FAULTY] = FAULTY
    if not (result == HEALTHY).any():
        matched = not np.isnan(merged).all()
        raise TelemetryError(
            f"No reading is labelled healthy (0) by {path}.",
            advice=f"Its column {LABEL_COLUMN!r} must be 0 for healthy readings and 1 for faulty ones."
            if matched or text.any()
            else "Check that its device and time columns match those of the readings.",
            path=str(path),
        )
    unmatched = len(labels) - int(np.count_nonzero(~np.isnan(merged)))
    notes = [f"{unmatched} labels belong to no reading."] if unmatched else []
    if int(bad_time.sum() + text.sum()):
        notes.append(f"{int((bad_time | text).sum())} labels could not be read.")
    return result, notes


def _split(frame: pd.DataFrame, values: npt.NDArray[np.float32], labels: npt.NDArray[np.int8]) -> tuple[Device, ...]:
    codes, times = frame["code"].to_numpy(), frame["time"].to_numpy(np.int64)
    names, cohorts = frame["device"].to_numpy(), frame["cohort"].to_numpy()
    starts = np.flatnonzero(np.r_[True, np.diff(codes) != 0])
    ends = np.r_[starts[1:], len(codes)]
    return tuple(
        Device(
            name=str(names[start]),
            cohort=None if pd.isna(cohorts[end - 1]) else str(cohorts[end - 1]),
            timestamps_ms=times[start:end],
            values=values[start:end],
            labels=labels[start:end],
        )
        for start, end in zip(starts.tolist(), ends.tolist(), strict=True)
    )


def _digest(files: Iterable[Path]) -> str:
    total = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()


def _aside_notes(set_aside: Mapping[str, int]) -> list[str]:
    return [
        f"{count} {'row' if count == 1 else 'rows'} {REASONS[name]} {'was' if count == 1 else 'were'} set aside."
        for name, count in set_aside.items()
    ]

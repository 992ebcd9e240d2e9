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

from exporter.config import DataSpec
from exporter.labels import FAULTY, HEALTHY, UNLABELLED, join_labels
from exporter.reading_rows import REASONS, RowReader, SortedRows
from exporter.tables import table_files

__all__ = ["FAULTY", "HEALTHY", "REASONS", "UNLABELLED", "Device", "Fleet", "read_fleet"]


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
    """Read the telemetry and labels that ``model.toml`` names, file by file and part by part.

    The values are in memory once, as float32; a fleet that lies in its files by device and time is not sorted.

    Raises:
        TelemetryError: A file or column is not there or cannot be read, there are no rows, or more rows are bad than
            ``max_bad_rows`` allows.
    """
    files = table_files(data.readings, leave_out=data.labels)
    label_files = table_files(data.labels) if data.labels else ()
    reader = RowReader(data)
    for path in files:
        reader.read(path)
    rows = reader.sorted()
    del reader  # what it knows of each row is in order now
    if label_files:
        labels, notes = join_labels(data, label_files, rows)
    else:
        labels, notes = np.full(len(rows.device), UNLABELLED, np.int8), []
    return Fleet(
        devices=_split(rows, labels),
        columns=data.columns,
        labelled=data.labels is not None,
        rows=rows.rows,
        set_aside=rows.set_aside,
        digest=_digest([*files, *label_files]),
        notes=(*_aside_notes(rows.set_aside), *notes),
    )


def _split(rows: SortedRows, labels: npt.NDArray[np.int8]) -> tuple[Device, ...]:
    present, starts = np.unique(rows.device, return_index=True)
    ends = np.r_[starts[1:], len(rows.device)]
    newest = rows.cohort[ends - 1]
    return tuple(
        Device(
            name=rows.names[number],
            cohort=None if cohort < 0 else rows.cohorts[cohort],
            timestamps_ms=rows.timestamps_ms[start:end],
            values=rows.values[start:end],
            labels=labels[start:end],
        )
        for number, start, end, cohort in zip(
            present.tolist(), starts.tolist(), ends.tolist(), newest.tolist(), strict=True
        )
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

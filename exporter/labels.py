"""Labels beside readings: each reading gets the label of its device and time.

A label is 0 for healthy and 1 for faulty; every other number says that nobody knows. Of several labels of one device
and time the last one counts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from exporter.config import DataSpec
from exporter.errors import TelemetryError
from exporter.reading_rows import SortedRows, order_of, same_as_before
from exporter.tables import as_codes, as_numbers, as_times, read_parts

HEALTHY, FAULTY, UNLABELLED = 0, 1, -1
LABEL_COLUMN = "label"
# What a label says while it is joined: a number that is neither 0 nor 1, and none at all.
_OTHER, _BLANK = 2, 3


@dataclass(slots=True, eq=False)
class _Labels:
    """Labels by device and time: number of the device, time and label, (n,) each; and how many could not be read."""

    device: npt.NDArray[np.int32]
    timestamps_ms: npt.NDArray[np.int64]
    label: npt.NDArray[np.int8]
    unreadable: int
    texts: bool


def join_labels(data: DataSpec, files: tuple[Path, ...], rows: SortedRows) -> tuple[npt.NDArray[np.int8], list[str]]:
    """Return the label of each reading.

    Args:
        data: Names of the columns.
        files: The labels.
        rows: The readings.

    Returns:
        (n,) int8: 0 healthy, 1 faulty, -1 unknown; and sentences for the report.

    Raises:
        TelemetryError: A file or column is not there or cannot be read, or no reading is labelled healthy.
    """
    labels = _read(data, files, rows.names)
    found = _match(labels, rows)
    result = np.where((found == HEALTHY) | (found == FAULTY), found, np.int8(UNLABELLED))
    matched = np.count_nonzero(found != _BLANK)
    if not (result == HEALTHY).any():
        raise TelemetryError(
            f"No reading is labelled healthy (0) by {data.labels}.",
            advice=f"Its column {LABEL_COLUMN!r} must be 0 for healthy readings and 1 for faulty ones."
            if matched or labels.texts
            else "Check that its device and time columns match those of the readings.",
            path=str(data.labels),
        )
    unmatched = len(labels.label) - matched
    notes = [f"{unmatched} labels belong to no reading."] if unmatched else []
    if labels.unreadable:
        notes.append(f"{labels.unreadable} labels could not be read.")
    return result, notes


def _read(data: DataSpec, files: tuple[Path, ...], names: tuple[str, ...]) -> _Labels:
    """Read labels, by device and time, one each; a device without readings gets a number beyond theirs."""
    known = {name: number for number, name in enumerate(names)}
    parts = [part for path in files for part in _parts(path, data, known)]
    device = np.concatenate([part.device for part in parts])
    times = np.concatenate([part.timestamps_ms for part in parts])
    label = np.concatenate([part.label for part in parts])
    order = order_of(device, times)
    device, times, label = device[order], times[order], label[order]
    last = ~np.r_[same_as_before(device, times)[1:], False][: len(device)]
    unreadable = sum(part.unreadable for part in parts)
    return _Labels(device[last], times[last], label[last], unreadable, any(part.texts for part in parts))


def _parts(path: Path, data: DataSpec, known: dict[str, int]) -> Iterator[_Labels]:
    table = read_parts(path, [data.device, data.time, LABEL_COLUMN], texts=[data.device, data.time])
    for part in table.parts:
        times, bad_time = as_times(part[data.time])
        numbers, text = as_numbers(part[LABEL_COLUMN])
        label = np.full(len(numbers), _OTHER, np.int8)
        label[np.isnan(numbers)] = _BLANK
        label[numbers == HEALTHY] = HEALTHY
        label[numbers == FAULTY] = FAULTY
        good = ~(bad_time | text)
        device = as_codes(part[data.device], known)
        yield _Labels(device[good], times[good], label[good], int(np.count_nonzero(~good)), bool(text.any()))


def _match(labels: _Labels, rows: SortedRows) -> npt.NDArray[np.int8]:
    """Return the label of each reading, ``_BLANK`` where it has none: (n,) int8."""
    found = np.full(len(rows.device), _BLANK, np.int8)
    numbers = np.arange(len(rows.names) + 1)
    first_label = np.searchsorted(labels.device, numbers).tolist()
    first_row = np.searchsorted(rows.device, numbers).tolist()
    for number in range(len(rows.names)):
        own = slice(first_label[number], first_label[number + 1])
        these = slice(first_row[number], first_row[number + 1])
        labelled, times = labels.timestamps_ms[own], rows.timestamps_ms[these]
        if labelled.size:
            place = np.minimum(np.searchsorted(labelled, times), labelled.size - 1)
            found[these] = np.where(labelled[place] == times, labels.label[own][place], np.int8(_BLANK))
    return found

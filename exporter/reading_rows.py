"""Rows of readings as they are read: judged part by part, put in order, kept in one array.

The readings of a large fleet fill half the memory there is, so they exist once. What is known of a row beside its
values is 17 bytes; the values are put in order within their array, a column at a time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from exporter.config import DataSpec
from exporter.errors import TelemetryError
from exporter.tables import as_codes, as_numbers, as_times, read_parts

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
_GOOD = -1
_NUMBER = {name: number for number, name in enumerate(REASONS)}


@dataclass(frozen=True, slots=True, eq=False)
class SortedRows:
    """The rows that can be used, by device name and time.

    Attributes:
        names: Of the devices, sorted.
        device: (n,) int32, ascending: number of its name.
        timestamps_ms: (n,) int64, strictly ascending within a device.
        cohort: (n,) int32, number of its cohort, -1 for none.
        values: (n, S) float32.
        cohorts: Names of the cohorts.
        rows: Rows read, broken lines among them.
        set_aside: Rows left out, by reason (``REASONS``).
    """

    names: tuple[str, ...]
    device: npt.NDArray[np.int32]
    timestamps_ms: npt.NDArray[np.int64]
    cohort: npt.NDArray[np.int32]
    values: npt.NDArray[np.float32]
    cohorts: tuple[str, ...]
    rows: int
    set_aside: Mapping[str, int]


class RowReader:
    """Collects the rows of several files.

    Args:
        data: Which columns they have, and how many rows may be bad.
    """

    def __init__(self, data: DataSpec) -> None:
        self._data = data
        self._keys = [data.device, data.time, *([data.cohort] if data.cohort else [])]
        self._devices: dict[str, int] = {}
        self._cohorts: dict[str, int] = {}
        self._parts: list[_Part] = []
        self._values = np.empty((0, len(data.columns)), np.float32)
        self._held = self._broken = 0
        self._example = ""

    def read(self, path: Path) -> None:
        """Read all rows of a file.

        Raises:
            TelemetryError: The file or one of the columns is not there or cannot be read, or there are no rows.
        """
        table = read_parts(path, [*self._keys, *self._data.columns], texts=self._keys)
        self._broken += table.broken_lines
        # Nobody else holds the array yet, and the pages of a large one are moved, not copied.
        self._values.resize((self._held + table.rows, len(self._data.columns)), refcheck=False)
        for part in table.parts:
            self._add(part)

    def _add(self, table: pa.Table) -> None:
        data = self._data
        values = self._values[self._held : self._held + table.num_rows]
        self._held += table.num_rows
        times, bad_time = as_times(table[data.time])
        device = as_codes(table[data.device], self._devices)
        none = np.full(table.num_rows, -1, np.int32)
        text, infinite = self._fill(values, table)
        reason = np.full(table.num_rows, _GOOD, np.int8)
        # The last one that holds is the first in the order of judging.
        for name, bad in (
            ("infinity", infinite), ("text_in_number", text), ("bad_timestamp", bad_time), ("no_device", device < 0),
        ):  # fmt: skip
            reason[bad] = _NUMBER[name]
        cohort = as_codes(table[data.cohort], self._cohorts) if data.cohort else none
        self._parts.append(_Part(device, times, cohort, reason))

    def _fill(
        self, values: npt.NDArray[np.float32], table: pa.Table
    ) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
        """Fill in the values; returns which rows hold a text and which an infinity."""
        text, infinite = np.zeros(len(values), bool), np.zeros(len(values), bool)
        for i, name in enumerate(self._data.columns):
            numbers, bad = as_numbers(table[name])
            with np.errstate(over="ignore"):  # beyond float32 is an infinity, and that is counted below
                column = numbers.astype(np.float32)
            values[:, i] = column
            if bad.any() and not self._example:
                self._example = f"{table[name][int(bad.argmax())].as_py()!r} in column {name!r}"
            text |= bad
            infinite |= np.isinf(column)
        return text, infinite

    def sorted(self) -> SortedRows:
        """Return the rows that can be used, in order; nothing can be read any more.

        Raises:
            TelemetryError: More rows are bad than ``max_bad_rows`` allows.
        """
        device, times, cohort, reason = _joined(self._parts)
        self._parts.clear()
        names = sorted(self._devices)
        rank = np.empty(len(names) + 1, np.int32)
        rank[[self._devices[name] for name in names]] = np.arange(len(names), dtype=np.int32)
        device = rank[device]  # a missing one takes the place at the end, and is bad
        order = np.flatnonzero(reason == _GOOD)
        order = order[order_of(device[order], times[order])]
        again = same_as_before(device[order], times[order])
        reason[order[again]] = _NUMBER["duplicated_timestamp"]
        order = order[~again]
        counts = np.bincount(reason[reason != _GOOD], minlength=len(REASONS))
        counts[_NUMBER["bad_line"]] = self._broken
        set_aside = {name: int(count) for name, count in zip(REASONS, counts, strict=True) if count}
        _refuse_too_many(self._data, len(reason) + self._broken, set_aside, self._example)
        return SortedRows(
            names=tuple(names),
            device=device[order],
            timestamps_ms=times[order],
            cohort=cohort[order],
            values=_put_in_order(self._values, order),
            cohorts=tuple(self._cohorts),
            rows=len(reason) + self._broken,
            set_aside=set_aside,
        )


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """What is known of some rows beside their values: (n,) each."""

    device: npt.NDArray[np.int32]
    timestamps_ms: npt.NDArray[np.int64]
    cohort: npt.NDArray[np.int32]
    reason: npt.NDArray[np.int8]


def _joined(
    parts: list[_Part],
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64], npt.NDArray[np.int32], npt.NDArray[np.int8]]:
    return (
        np.concatenate([part.device for part in parts]),
        np.concatenate([part.timestamps_ms for part in parts]),
        np.concatenate([part.cohort for part in parts]),
        np.concatenate([part.reason for part in parts]),
    )


def order_of(device: npt.NDArray[np.int32], times: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the order of rows by device and time, equal ones as they are; without sorting where they have it."""
    steps = np.diff(device)
    if ((steps > 0) | ((steps == 0) & (np.diff(times) >= 0))).all():
        return np.arange(len(device))
    return np.lexsort((times, device))


def same_as_before(device: npt.NDArray[np.int32], times: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Return which of some ordered rows have the device and time of the row before."""
    same = np.zeros(len(device), bool)
    same[1:] = (np.diff(device) == 0) & (np.diff(times) == 0)
    return same


def _put_in_order(values: npt.NDArray[np.float32], order: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """Put rows in order within their array; those that are not in the order are gone."""
    if len(order) < len(values) or (order != np.arange(len(order))).any():
        for i in range(values.shape[1]):
            values[: len(order), i] = values[order, i]
    return values[: len(order)]


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

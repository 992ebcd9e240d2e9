"""Readings: from a mapping or a row of text to a time and cells, strictly; what cannot be used says why.

A missing value (empty, null, NaN) is a missing cell. Text, an infinity or a number past float32 sets the whole
reading aside: half a reading would be scored as if the device had said it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from numbers import Real

import numpy as np
import numpy.typing as npt

from edge_runtime.contract.checks import LATEST_MS
from edge_runtime.errors import InputError

# Committed together: at most this many readings or one second (contract, Results).
GROUP_READINGS = 200
TIMESTAMP = "timestamp"
# What people and tools write for "no value"; compared in lower case.
MISSING = frozenset({"", "nan", "null", "none", "na", "n/a"})
_INFINITY = frozenset({"inf", "+inf", "-inf", "infinity", "+infinity", "-infinity"})
_FLAGS = {"true": 1.0, "false": 0.0}
# float() alone would take "1_000" and digits of every script.
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
FLOAT32_MAX = float(np.finfo(np.float32).max)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)

Row = tuple[int, Sequence[float]]


class UnusableReadingError(InputError):
    """A reading that is set aside.

    Args:
        reason: ``bad_line``, ``line_too_long``, ``missing_timestamp``, ``bad_timestamp``, ``text_in_number`` or
            ``infinity``; counted under this name.
        message: One sentence.
    """

    code = "unusable_reading"

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message, reason=reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class ReadingGroup:
    """Some readings, in the order they came.

    Attributes:
        times_ms: (n,) int64, UTC epoch milliseconds.
        cells: (n, S) float32, NaN = missing, columns in the manifest's order.
    """

    times_ms: npt.NDArray[np.int64]
    cells: npt.NDArray[np.float32]

    @classmethod
    def of(cls, rows: Sequence[Row], width: int) -> ReadingGroup:
        """Make a group of parsed rows.

        Args:
            rows: (time, cells) pairs.
            width: S, the number of signals.
        """
        times = np.array([row[0] for row in rows], dtype=np.int64)
        return cls(times, np.array([row[1] for row in rows], dtype=np.float32).reshape(len(rows), width))

    def select(self, rows: npt.NDArray[np.intp]) -> ReadingGroup:
        """Return some of the readings, by row number."""
        return ReadingGroup(self.times_ms[rows], self.cells[rows])


class ReadingParser:
    """Turns what a person, a file or an app gives into rows for one bundle.

    Args:
        signals: Signal names in the manifest's order.
    """

    def __init__(self, signals: Sequence[str]) -> None:
        self.signals = tuple(signals)
        self.width = len(self.signals)

    def row(self, reading: Mapping[str, object]) -> Row:
        """Read a mapping, such as one JSON object.

        Args:
            reading: ``timestamp`` and a number for each signal; one that is absent or None is missing.

        Raises:
            UnusableReadingError: It must be set aside.
        """
        at_ms = moment(reading.get(TIMESTAMP))
        return at_ms, [cell(reading.get(name), name) for name in self.signals]


def moment(value: object) -> int:
    """Return a time as UTC epoch milliseconds; parts of a millisecond are cut off.

    Args:
        value: ISO 8601 text (UTC without a zone), epoch seconds as a number or text, or a datetime.

    Raises:
        UnusableReadingError: There is none (``missing_timestamp``), or it is no time (``bad_timestamp``).
    """
    if isinstance(value, str):
        value = value.strip()
        if value.lower() in MISSING:
            value = None
        elif _NUMBER.fullmatch(value):
            value = float(value)
    if value is None:
        raise UnusableReadingError("missing_timestamp", "A reading has no timestamp.")
    at_ms = _moment_of(value)
    if at_ms is None or not 0 <= at_ms <= LATEST_MS:
        raise UnusableReadingError(
            "bad_timestamp",
            f"The timestamp {str(value)[:40]!r} is neither ISO 8601 nor epoch seconds from 1970 to 9999.",
        )
    return at_ms


def _moment_of(value: object) -> int | None:
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            return None
    if isinstance(value, datetime):
        try:
            return (value if value.tzinfo else value.replace(tzinfo=UTC)).__sub__(_EPOCH) // _MILLISECOND
        except OverflowError:
            return None
    if isinstance(value, bool) or not isinstance(value, Real):
        return None
    seconds = float(value)
    # Rounded to microseconds before the cut: 1700000000.123 s is a float a little below 123 ms.
    return math.floor(round(seconds * 1e6) / 1000) if math.isfinite(seconds) and abs(seconds) < 1e12 else None


def cell(value: object, name: str) -> float:
    """Return one value of a mapping as a number, NaN when it is missing.

    Args:
        value: A number, a boolean or None.
        name: The signal, for the error.

    Raises:
        UnusableReadingError: Text (``text_in_number``), or an infinity or a number past float32 (``infinity``).
    """
    if value is None:
        return math.nan
    if not isinstance(value, Real):
        raise UnusableReadingError("text_in_number", f"Signal {name!r} is no number: {str(value)[:40]!r}.")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    return _bounded(number, name)


def text_cell(text: str, name: str) -> float:
    """Return one field of a CSV line as a number, NaN when it is missing.

    Args:
        text: The field.
        name: The signal, for the error.

    Raises:
        UnusableReadingError: Text (``text_in_number``), or an infinity or a number past float32 (``infinity``).
    """
    stripped = text.strip()
    if _NUMBER.fullmatch(stripped):
        return _bounded(float(stripped), name)
    word = stripped.lower()
    if word in MISSING:
        return math.nan
    if word in _FLAGS:
        return _FLAGS[word]
    if word in _INFINITY:
        return _bounded(math.inf, name)
    raise UnusableReadingError("text_in_number", f"Signal {name!r} is no number: {stripped[:40]!r}.")


def _bounded(number: float, name: str) -> float:
    if abs(number) > FLOAT32_MAX:  # NaN passes: it is a missing value
        raise UnusableReadingError("infinity", f"Signal {name!r} is infinite or too large: {number!r}.")
    return number

"""One line of CSV below a known header becomes a time and cells."""

from __future__ import annotations

import csv
from collections.abc import Sequence

from edge_runtime.readings import FLOAT32_MAX, TIMESTAMP, Row, UnusableReadingError, moment, text_cell


class CsvRow:
    """Reads the lines below one header.

    Args:
        header: The column names, ``timestamp`` among them.
        signals: Signal names in the manifest's order; those that the header lacks are missing in every line.
    """

    def __init__(self, header: Sequence[str], signals: Sequence[str]) -> None:
        self._width = len(header)
        self._time = header.index(TIMESTAMP)
        self._cells = [(header.index(name) if name in header else None, name) for name in signals]
        # Most lines are all numbers: these skip the careful way.
        self._quick = [index for index, _ in self._cells if index is not None]
        self._complete = len(self._quick) == len(self._cells)

    def parse(self, line: str) -> Row:
        """Read one line.

        Raises:
            UnusableReadingError: It must be set aside.
        """
        fields = csv_fields(line)
        if len(fields) != self._width:
            raise UnusableReadingError("bad_line", f"The line has {len(fields)} fields instead of {self._width}.")
        at_ms = moment(fields[self._time])
        if self._complete and "_" not in line and line.isascii():
            try:
                numbers = [float(fields[index]) for index in self._quick]
            except ValueError:
                pass
            else:
                if max(numbers) <= FLOAT32_MAX and min(numbers) >= -FLOAT32_MAX:
                    return at_ms, numbers
        return at_ms, [float("nan") if i is None else text_cell(fields[i], name) for i, name in self._cells]


def csv_fields(line: str) -> list[str]:
    """Return the fields of one CSV line; a field never spans lines.

    Raises:
        UnusableReadingError: Quotes do not match (``bad_line``).
    """
    if '"' not in line:
        return line.split(",")
    try:
        return next(csv.reader([line], strict=True))
    except csv.Error:
        raise UnusableReadingError("bad_line", "The line has quotes that do not match.") from None

"""Telemetry: a stream of CSV or NDJSON lines becomes groups of readings for one bundle.

The whole input is refused, before anything is scored, when a column is missing (with the name that was probably
meant) or when it holds nothing. A line that cannot be used is set aside and counted by reason, and the rest goes on::

    with open_input("readings.csv") as stream:
        source = Telemetry(stream, signals, name="readings.csv")
        for group, set_aside in source.groups():
            ...

Memory does not grow with the input: lines are bounded, and a group holds at most 200 readings or one second.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Literal

from edge_runtime.csv_row import CsvRow, csv_fields
from edge_runtime.errors import InputError
from edge_runtime.lines import TooLong, lines
from edge_runtime.readings import (
    GROUP_READINGS,
    TIMESTAMP,
    ReadingGroup,
    ReadingParser,
    Row,
    UnusableReadingError,
)
from edge_runtime.stopping import Stop

Format = Literal["auto", "csv", "ndjson"]
STDIN = "-"
GROUP_SECONDS = 1.0
_NDJSON_SUFFIXES = frozenset({".ndjson", ".jsonl"})
_OTHER_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars"}
# Names of ignored columns that a report shows; their number is counted in full for CSV.
_SHOWN_COLUMNS = 20


@dataclass(slots=True)
class TelemetryReport:
    """What was found in an input so far.

    Attributes:
        format: ``csv`` or ``ndjson``; empty before the first line.
        lines: Lines with anything on them, the header of a CSV excepted.
        readings: Lines that became readings.
        set_aside: Lines that could not be used, by reason.
        example: The first sentence about a line that was set aside, with its number.
        ignored_columns: Columns that are no signal of the bundle.
        missing_signals: Signals that the input lacks, as allowed.
    """

    format: str = ""
    lines: int = 0
    readings: int = 0
    set_aside: Counter[str] = field(default_factory=Counter)
    example: str = ""
    ignored_columns: tuple[str, ...] = ()
    missing_signals: tuple[str, ...] = ()


class Telemetry:
    """One input, read once.

    Args:
        stream: Binary; see ``open_input``.
        signals: Signal names in the manifest's order.
        name: What to call the input in messages; its ending tells the format.
        form: ``csv``, ``ndjson``, or ``auto``: by the name's ending, else by the first character.
        allow_missing_signals: Take an input that lacks signals; they are missing in every reading.
        stop: Ends the input early; what was read whole is still given.
        clock: Seconds, for grouping; monotonic.
    """

    def __init__(
        self,
        stream: BinaryIO,
        signals: Sequence[str],
        *,
        name: str = "standard input",
        form: Format = "auto",
        allow_missing_signals: bool = False,
        stop: Stop | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.report = TelemetryReport()
        self._stream = stream
        self._parser = ReadingParser(signals)
        self._name = name
        self._form = form
        self._allow_missing = allow_missing_signals
        self._stop = stop
        self._clock = clock
        self._parse: Callable[[str], Row] | None = None
        self._rows: list[Row] = []
        self._aside: Counter[str] = Counter()
        self._pending_since: float | None = None
        self._flushed_at = -GROUP_SECONDS

    def groups(self) -> Iterator[tuple[ReadingGroup, Counter[str]]]:
        """Yield groups of readings with what was set aside since the group before.

        A file gives groups of 200. A pipe gives what it has when it falls silent, at most once a second, and when
        it is told to stop.

        Raises:
            InputError: A column is missing or twice, the columns are not separated by commas, the input is empty, or
                no line of it could be used.
        """
        number = 0
        for line in self._lines():
            if line is not None:
                number += 1
                self._take(line, number)
            if self._is_due(idle=line is None):
                yield self._flush()
        if self._rows or self._aside:
            yield self._flush()
        if self._stop is None or not self._stop.told:
            self._check_found_something()

    def _lines(self) -> Iterator[bytes | TooLong | None]:
        try:
            yield from lines(self._stream, self._patience, self._stop)
        except OSError as error:
            raise InputError(f"{self._name} cannot be read: {error.strerror or error}.", path=self._name) from error

    def _patience(self) -> float | None:
        if self._pending_since is None:
            return None
        return max(0.01, self._flushed_at + GROUP_SECONDS - self._clock())

    def _is_due(self, *, idle: bool) -> bool:
        if self._pending_since is None:
            return False
        if len(self._rows) >= GROUP_READINGS:
            return True
        # Silence flushes, so that a slow sensor gets its verdict at once; but one fsync a second is enough.
        since = self._flushed_at if idle else self._pending_since
        return self._clock() - since >= GROUP_SECONDS

    def _flush(self) -> tuple[ReadingGroup, Counter[str]]:
        group, aside = ReadingGroup.of(self._rows, self._parser.width), self._aside
        self._rows, self._aside = [], Counter()
        self._pending_since, self._flushed_at = None, self._clock()
        return group, aside

    def _take(self, line: bytes | TooLong, number: int) -> None:
        try:
            text = _text(line)
            if not text.strip():
                return
            parse = self._parse or self._begin(text.removeprefix("\ufeff"))
            if parse is None:
                return
            row = parse(text)
        except UnusableReadingError as error:
            self._aside[error.reason] += 1
            self.report.set_aside[error.reason] += 1
            self.report.example = self.report.example or f"line {number}: {error.message}"
        else:
            self._rows.append(row)
            self.report.readings += 1
        self.report.lines += 1
        if self._pending_since is None:
            self._pending_since = self._clock()

    def _begin(self, text: str) -> Callable[[str], Row] | None:
        """Settle format and columns by the first line; returns None when the line was a header."""
        form = self._form
        if form == "auto":
            suffix = Path(self._name).suffix.lower()
            is_object = text.lstrip().startswith("{")
            form = "ndjson" if suffix in _NDJSON_SUFFIXES or is_object else "csv"
        self.report.format = form
        if form == "ndjson":
            self._check_columns(list(_object(text)))
            self._parse = self._parse_object
            return self._parse
        header = [column.strip() for column in csv_fields(text)]
        self._check_separator(header)
        self._check_columns(header)
        self._parse = CsvRow(header, self._parser.signals).parse
        return None

    def _parse_object(self, text: str) -> Row:
        return self._parser.row(_object(text.removeprefix("\ufeff")))

    def _check_separator(self, header: list[str]) -> None:
        found = next((name for mark, name in _OTHER_SEPARATORS.items() if len(header) == 1 and mark in header[0]), None)
        if found is not None:
            raise InputError(f"{self._name} separates its columns with {found}.", advice="Write it with commas.")
        if header[0].startswith("[{"):
            raise InputError(f"{self._name} is one JSON array.", advice="Write one JSON object a line (NDJSON).")

    def _check_columns(self, columns: list[str]) -> None:
        twice = [column for column, times in Counter(columns).items() if times > 1 and column]
        if twice:
            raise InputError(f"{self._name} has the column {twice[0]!r} twice.", advice="Remove one of them.")
        signals = self._parser.signals
        missing = [signal for signal in signals if signal not in columns]
        if TIMESTAMP not in columns:
            raise _missing_column(self._name, [TIMESTAMP], columns, "Name the column of times `timestamp`.")
        if missing and (not self._allow_missing or len(missing) == len(signals)):
            advice = "Correct the names, or pass --allow-missing-signals to score without them."
            raise _missing_column(self._name, missing, [c for c in columns if c not in signals], advice)
        known = {TIMESTAMP, *signals}
        self.report.ignored_columns = tuple(column for column in columns if column and column not in known)
        self.report.missing_signals = tuple(missing)

    def _check_found_something(self) -> None:
        report = self.report
        if report.readings:
            return
        if report.lines:
            reasons = ", ".join(f"{reason} {times}" for reason, times in sorted(report.set_aside.items()))
            raise InputError(
                f"None of the {report.lines} lines of {self._name} is a usable reading ({reasons}); {report.example}",
                advice="Check the format, or name it with --format.",
                set_aside=dict(report.set_aside),
            )
        what = "has a header but no readings" if report.format else "is empty"
        raise InputError(f"{self._name} {what}.", advice="Give at least one reading.", empty=True)


@contextmanager
def open_input(path: str) -> Iterator[BinaryIO]:
    """Open a file of readings, or standard input for ``-``.

    Raises:
        InputError: There is no such file, or it cannot be read.
    """
    if path == STDIN:
        yield sys.stdin.buffer
        return
    try:
        stream = Path(path).open("rb")  # noqa: SIM115 - only errors of opening are meant here
    except OSError as error:
        raise InputError(
            f"The readings {path} cannot be read: {error.strerror}.", advice="Check the name.", path=path
        ) from error
    with stream:
        yield stream


def _text(line: bytes | TooLong) -> str:
    if isinstance(line, TooLong):
        raise UnusableReadingError("line_too_long", "The line is too long to be a reading.")
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError:
        raise UnusableReadingError("bad_encoding", "The line is not UTF-8.") from None
    return text.rstrip("\r")


def _object(line: str) -> dict[str, object]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        raise UnusableReadingError("bad_line", "The line is not JSON.") from None
    if not isinstance(value, dict):
        raise UnusableReadingError("bad_line", "The line is not a JSON object.")
    return value


def _missing_column(name: str, missing: Sequence[str], candidates: Sequence[str], advice: str) -> InputError:
    from difflib import get_close_matches  # only on the way out

    by_lower = {candidate.lower(): candidate for candidate in candidates}
    parts = []
    for column in missing[:_SHOWN_COLUMNS]:
        close = get_close_matches(column.lower(), list(by_lower), n=1, cutoff=0.6)
        parts.append(repr(column) + (f" (did you mean {by_lower[close[0]]!r}?)" if close else ""))
    more = f" and {len(missing) - _SHOWN_COLUMNS} more" if len(missing) > _SHOWN_COLUMNS else ""
    plural = "columns" if len(missing) > 1 else "column"
    return InputError(f"{name} lacks the {plural} {', '.join(parts)}{more}.", advice=advice, missing=list(missing))

"""Parquet and CSV files as columns: which are there, and values as numbers, texts and times.

Nothing here knows what a device or a signal is. A value that cannot be read as what it should be becomes a flag in a
mask, and the caller decides what a bad value costs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv, parquet

from edge_runtime.contract.checks import LATEST_MS
from exporter.errors import TelemetryError, did_you_mean

SUFFIXES = (".parquet", ".csv")
# What CSV files are written with where the comma marks decimals.
SEPARATORS = (";", "\t", "|")
# Rows of a part: 13 MB of float32 with 25 signals, and twice that as float64 while they are judged.
PART_ROWS = 131_072
# How other programs write that there is no number.
_BLANKS = ("", "nan", "-nan", "null", "none", "na", "n/a", "#n/a", "#na", "<na>")
Mask = npt.NDArray[np.bool_]


def table_files(path: Path, *, leave_out: Path | None = None) -> tuple[Path, ...]:
    """Return the tables at a path: the file itself, or those of a folder by name.

    Args:
        path: A file or a folder.
        leave_out: A file of that folder that is something else, such as the labels.

    Raises:
        TelemetryError: There is nothing, or nothing with a suffix that is read here.
    """
    if path.is_file():
        if path.suffix.lower() not in SUFFIXES:
            raise TelemetryError(
                f"{path} is neither Parquet nor CSV.", advice="Name it .parquet or .csv.", path=str(path)
            )
        return (path,)
    if not path.is_dir():
        raise TelemetryError(f"There is no file or folder {path}.", advice="Correct data.readings.", path=str(path))
    other = None if leave_out is None else leave_out.resolve()
    found = sorted(p for p in path.iterdir() if p.suffix.lower() in SUFFIXES and p.resolve() != other)
    if not found:
        raise TelemetryError(
            f"The folder {path} holds no .parquet or .csv file.", advice="Correct data.readings.", path=str(path)
        )
    return tuple(found)


def column_names(path: Path) -> tuple[str, ...]:
    """Return the names of a table's columns, in order.

    Raises:
        TelemetryError: The file is empty, unreadable, or not what its suffix says.
    """
    return tuple(_schema(path).names)


@dataclass(frozen=True, slots=True, eq=False)
class TableParts:
    """Some columns of a table, to be read once, in parts.

    Attributes:
        rows: How many rows there are.
        broken_lines: Lines of a CSV that were left out because they have too many or too few fields.
        parts: The rows in order, ``PART_ROWS`` of them at most a part. Going through them raises TelemetryError where
            the file cannot be read.
    """

    rows: int
    broken_lines: int
    parts: Iterator[pa.Table]


def read_parts(path: Path, columns: Sequence[str], *, texts: Iterable[str]) -> TableParts:
    """Open some columns of a table to be read in parts: a Parquet file is never in memory as a whole.

    Args:
        path: Parquet or CSV, by suffix.
        columns: Which ones.
        texts: Those of them that a CSV reader must leave as text.

    Returns:
        The parts, where in a CSV columns that are not all numbers stay text.

    Raises:
        TelemetryError: There are no rows, a column is not there, there twice or holds lists, or the file cannot be
            read.
    """
    _check_columns(path, columns)
    try:
        found = _open_parquet(path, columns) if path.suffix.lower() == ".parquet" else _read_csv(path, columns, texts)
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(path, error) from error
    if found.rows == 0:
        raise TelemetryError(f"{path} has no rows.", advice="Give a file with readings.", path=str(path))
    return found


def _open_parquet(path: Path, columns: Sequence[str]) -> TableParts:
    def parts() -> Iterator[pa.Table]:
        try:
            with parquet.ParquetFile(path, pre_buffer=False) as file:  # a buffer would be the whole file
                for batch in file.iter_batches(PART_ROWS, columns=list(columns)):
                    yield pa.Table.from_batches([batch])
        except (pa.ArrowException, OSError) as error:
            raise _unreadable(path, error) from error

    return TableParts(parquet.read_metadata(path).num_rows, 0, parts())


def _read_csv(path: Path, columns: Sequence[str], texts: Iterable[str]) -> TableParts:
    """Read a CSV as a whole: whether a column is one of numbers is known after its last row."""
    skipped = _SkippedLines()
    # A cohort may be called NA: only what is empty is missing here, the rest is judged as numbers are read.
    options = csv.ConvertOptions(
        include_columns=list(columns),
        column_types=dict.fromkeys(texts, pa.string()),
        null_values=[""],
        strings_can_be_null=True,
    )
    table = csv.read_csv(path, parse_options=skipped.options(), convert_options=options)
    rows = table.num_rows
    return TableParts(rows, skipped.count, (table.slice(start, PART_ROWS) for start in range(0, rows, PART_ROWS)))


class _SkippedLines:
    """Leaves out lines of a CSV that have another number of fields than the first, and counts them."""

    def __init__(self) -> None:
        self.count = 0

    def options(self) -> csv.ParseOptions:
        return csv.ParseOptions(invalid_row_handler=self._skip)

    def _skip(self, _row: csv.InvalidRow) -> str:
        self.count += 1
        return "skip"


def _check_columns(path: Path, columns: Sequence[str]) -> None:
    schema = _schema(path)
    for column in columns:
        count = schema.names.count(column)
        if count == 0:
            advice = did_you_mean(column, schema.names)
            separators = [mark for mark in SEPARATORS if len(schema.names) == 1 and mark in schema.names[0]]
            if separators and path.suffix.lower() == ".csv":
                advice = f"Its columns seem to be separated by {separators[0]!r}: write it with commas."
            raise TelemetryError(f"{path} has no column {column!r}.", advice=advice, path=str(path), column=column)
        if count > 1:
            raise TelemetryError(
                f"{path} has {count} columns {column!r}.", advice="Rename one of them.", path=str(path), column=column
            )
        kind = schema.field(column).type
        if pa.types.is_nested(kind):
            raise TelemetryError(
                f"Column {column!r} of {path} holds {kind}, not one value a reading.",
                advice="Give each of its values a column of its own.",
                path=str(path),
                column=column,
            )


def as_numbers(column: pa.ChunkedArray) -> tuple[npt.NDArray[np.float64], Mask]:
    """Return a column as float64, missing as NaN, and which of its values are no numbers."""
    kind = column.type
    if pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_null(kind):
        values = pc.cast(column, pa.float64(), safe=False).to_numpy()
        return np.asarray(values, np.float64), np.zeros(len(column), bool)
    if pa.types.is_boolean(kind) or pa.types.is_decimal(kind):
        return np.asarray(pc.cast(column, pa.float64()).to_numpy(), np.float64), np.zeros(len(column), bool)
    texts = pd.Series(as_texts(column))
    numbers = pd.to_numeric(texts, errors="coerce").to_numpy(np.float64)
    blank = texts.isna() | texts.str.strip().str.lower().isin(_BLANKS)
    return numbers, np.isnan(numbers) & ~blank.to_numpy(bool)


def as_texts(column: pa.ChunkedArray) -> npt.NDArray[np.object_]:
    """Return a column as texts, missing as None."""
    values: npt.NDArray[np.object_] = pc.cast(column, pa.string()).to_numpy(zero_copy_only=False)
    return values


def as_codes(column: pa.ChunkedArray, known: dict[str, int]) -> npt.NDArray[np.int32]:
    """Return a column of texts as numbers, missing as -1.

    Args:
        column: Of any type that has a text.
        known: Number by text; a text that is not in it gets the next number there.
    """
    encoded = pc.cast(column, pa.string()).combine_chunks().dictionary_encode()
    numbers = [known.setdefault(text, len(known)) for text in encoded.dictionary.to_pylist()]
    places = pc.fill_null(encoded.indices, len(numbers)).to_numpy(zero_copy_only=False)
    codes: npt.NDArray[np.int32] = np.array([*numbers, -1], np.int32)[places]
    return codes


def as_times(column: pa.ChunkedArray) -> tuple[npt.NDArray[np.int64], Mask]:
    """Return a column as UTC epoch milliseconds, and which of its values are no times between 1970 and 9999.

    Times without a zone are UTC; numbers are epoch seconds; texts are either, or ISO 8601.
    """
    kind = column.type
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        zoned = pa.timestamp("us", tz="UTC") if getattr(kind, "tz", None) else pa.timestamp("us")
        micros = pc.cast(pc.cast(column, zoned, safe=False), pa.int64())
        bad = np.asarray(pc.is_null(micros).to_numpy())
        times = pc.fill_null(micros, -1).to_numpy() // 1000
    else:
        seconds, _ = as_numbers(column)
        millis = np.floor(np.nan_to_num(seconds, nan=-1.0, posinf=-1.0, neginf=-1.0) * 1000.0 + 1e-6)
        times = np.where(np.abs(millis) < 2.0**53, millis, -1).astype(np.int64)
        words = np.isnan(seconds) & np.asarray(pc.is_valid(column).to_numpy())
        if words.any():
            parsed = pd.to_datetime(pd.Series(as_texts(column)[words]), utc=True, errors="coerce", format="ISO8601")
            micros_of = parsed.astype("datetime64[us, UTC]").astype("int64").to_numpy()
            times[words] = np.where(parsed.isna().to_numpy(), -1, micros_of // 1000)
        bad = times < 0
    return times.astype(np.int64), bad | (times < 0) | (times > LATEST_MS)


def _schema(path: Path) -> pa.Schema:
    try:
        if path.stat().st_size == 0:
            raise TelemetryError(f"{path} is empty.", advice="Give a file with readings.", path=str(path))
        if path.suffix.lower() == ".parquet":
            return parquet.read_schema(path)
        with csv.open_csv(path, parse_options=_SkippedLines().options()) as reader:
            schema = reader.schema
        _ = schema.names  # only now are they decoded
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise _unreadable(path, error) from error
    return schema


def _unreadable(path: Path, error: BaseException) -> TelemetryError:
    kind = "Parquet" if path.suffix.lower() == ".parquet" else "CSV"
    reason = str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__
    encoded = isinstance(error, UnicodeDecodeError) or "UTF8" in reason
    advice = "Save it as UTF-8." if encoded and kind == "CSV" else "Check that the file is whole."
    return TelemetryError(f"{path} cannot be read as {kind}: {reason}.", advice=advice, path=str(path))

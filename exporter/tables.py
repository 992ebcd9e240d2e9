"""Parquet and CSV files as columns: which are there, and values as numbers, texts and times.

Nothing here knows what a device or a signal is. A value that cannot be read as what it should be becomes a flag in a
mask, and the caller decides what a bad value costs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
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


def read_columns(path: Path, columns: Sequence[str], *, texts: Iterable[str]) -> tuple[pa.Table, int]:
    """Read some columns of a table.

    Args:
        path: Parquet or CSV, by suffix.
        columns: Which ones.
        texts: Those of them that a CSV reader must leave as text.

    Returns:
        A table with these columns, where in a CSV those that are not all numbers stay text; and how many lines of a
        CSV were left out because they have too many or too few fields.

    Raises:
        TelemetryError: A column is not there, there twice or holds lists, or the file cannot be read.
    """
    _check_columns(path, columns)
    skipped = _SkippedLines()
    try:
        if path.suffix.lower() == ".parquet":
            with parquet.ParquetFile(path) as file:
                table = file.read(columns=list(columns))
        else:
            # A cohort may be called NA: only what is empty is missing here, the rest is judged as numbers are read.
            options = csv.ConvertOptions(
                include_columns=list(columns),
                column_types=dict.fromkeys(texts, pa.string()),
                null_values=[""],
                strings_can_be_null=True,
            )
            table = csv.read_csv(path, parse_options=skipped.options(), convert_options=options)
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(path, error) from error
    if table.num_rows == 0:
        raise TelemetryError(f"{path} has no rows.", advice="Give a file with readings.", path=str(path))
    return table, skipped.count


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

"""Guess what the columns of a telemetry file are: device, time, cohort, signals, context, labels.

A guess is a proposal with its reason; a person decides. Only a sample of the rows is read, spread over the file.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow import csv, parquet

from exporter.errors import TelemetryError, did_you_mean
from exporter.tables import as_numbers, as_texts, as_times, column_names, table_files

SAMPLE_ROWS = 300_000
CSV_BLOCK_BYTES = 1 << 26
# A column of texts is one of numbers when fewer of its values than this are something else.
_FEW_TEXTS = 0.01
# Names, best first; a column counts when its name is one of these or ends with one after an underscore.
_DEVICE = (
    "device_id", "device", "deviceid", "unit_id", "unit", "machine_id", "machine", "asset", "serial",
    "serial_number", "id",
)  # fmt: skip
_TIME = ("timestamp", "time", "ts", "datetime", "observed_at", "date", "event_time")
_COHORT = ("cohort", "hardware", "model", "device_type", "type", "firmware", "group", "sku", "variant")
_LABEL = re.compile(r"(label|target|is_anomaly|anomaly|fault|faulty|failure|rul|class|y)", re.IGNORECASE)
# What a device is doing rather than how it is: set by people, plans or surroundings.
_CONTEXT = re.compile(
    r"(^|_)(op_?setting|setting|mode|state|charging|charger|plugged|network|wifi|screen|context|ambient|altitude"
    r"|setpoint|program|activity|gear|phase)",
    re.IGNORECASE,
)
_FEW_VALUES = 8
# A switch is proposed when knowing it explains this share of the variance of at least two other signals.
_EXPLAINED = 0.15
_SWITCHES_AT_MOST = 3


@dataclass(frozen=True, slots=True)
class Columns:
    """What the columns seem to be.

    Attributes:
        device: Column of the device id.
        time: Column of the time.
        cohort: Column of the cohort, or None.
        signals: Columns that vary, context left out.
        context: Proposed context.
        left_out: Other columns with the reason why.
        units: Units that the file itself names.
        interval_seconds: Median step between readings of a device.
        reasons: Why a column was taken for what it is, by column.
    """

    device: str
    time: str
    cohort: str | None
    signals: tuple[str, ...]
    context: tuple[str, ...]
    left_out: dict[str, str]
    units: dict[str, str]
    interval_seconds: float
    reasons: dict[str, str] = field(default_factory=dict)


def guess_columns(
    path: Path,
    *,
    device: str | None = None,
    time: str | None = None,
    cohort: str | None = None,
    context: Sequence[str] | None = None,
) -> Columns:
    """Guess what the columns of a telemetry file or folder are.

    Args:
        path: Parquet or CSV file, or a folder of them.
        device: The device column, where a person knows it.
        time: The time column, where a person knows it.
        cohort: The cohort column, where a person knows it.
        context: The context signals, where a person knows them.

    Returns:
        The proposal.

    Raises:
        TelemetryError: The file cannot be read, a named column is not there, or no device, time or signal is found.
    """
    names = column_names(table_files(path)[0])
    _check_named((device, time, cohort, *(context or ())), names, path)
    table = read_sample(path)
    time = time or _find_time(table, path)
    device = device or _find_device(table, time, path)
    devices = pd.Series(as_texts(table[device]))
    cohort = cohort or _find_cohort(table, devices, {device, time})
    values, left_out = _numeric(table, [name for name in names if name not in (device, time, cohort)], path)
    reasons: dict[str, str] = {}
    if context is None:
        chosen = _context_by_name(values, reasons) or _context_by_effect(values, devices, reasons)
    else:
        chosen = tuple(context)
    return Columns(
        device=device,
        time=time,
        cohort=cohort,
        signals=tuple(name for name in values if name not in chosen),
        context=chosen,
        left_out={name: reason for name, reason in left_out.items() if name not in chosen},
        units=_units(table),
        interval_seconds=_interval(table, time, devices),
        reasons=reasons,
    )


def _check_named(named: Sequence[str | None], names: Sequence[str], path: Path) -> None:
    for name in named:
        if name is not None and name not in names:
            raise TelemetryError(f"{path} has no column {name!r}.", advice=did_you_mean(name, names))


def read_sample(path: Path, rows: int = SAMPLE_ROWS) -> pa.Table:
    """Read at most about ``rows`` rows, spread over the files and row groups of a path.

    Raises:
        TelemetryError: A file cannot be read, or there is no row.
    """
    files = table_files(path)
    files = files[:: max(1, len(files) // 8)]
    parts = []
    for file in files:
        try:
            parts.append(_sample_file(file, rows // len(files)))
        except (pa.ArrowException, OSError) as error:
            raise TelemetryError(f"{file} cannot be read: {error}.", advice="Check that the file is whole.") from error
    table = pa.concat_tables(parts, promote_options="permissive")
    if table.num_rows == 0:
        raise TelemetryError(f"{path} has no rows.", advice="Give a file with readings.", path=str(path))
    return table


def _sample_file(path: Path, rows: int) -> pa.Table:
    if path.suffix.lower() == ".csv":
        # One large block: types are guessed from the first one, and a text in a later one would end the reading.
        options = csv.ReadOptions(block_size=CSV_BLOCK_BYTES)
        skip_broken = csv.ParseOptions(invalid_row_handler=lambda _: "skip")
        with csv.open_csv(path, read_options=options, parse_options=skip_broken) as reader:
            return pa.Table.from_batches([*itertools.islice(reader, 1)], reader.schema).slice(0, rows)
    with parquet.ParquetFile(path) as file:
        groups = file.num_row_groups
        if groups <= 1:
            # Evenly spread rows of one group would break the steps between readings; take its head.
            return file.read().slice(0, rows)
        per_group = max(1, file.metadata.num_rows // groups)
        wanted = max(1, min(groups, rows // per_group))
        return file.read_row_groups(sorted({int(i) for i in np.linspace(0, groups - 1, wanted)}))


def _rank(name: str, known: tuple[str, ...]) -> int | None:
    lower = name.lower()
    for rank, candidate in enumerate(known):
        if lower == candidate:
            return rank
    for rank, candidate in enumerate(known):
        if lower.endswith(f"_{candidate}"):
            return rank + len(known)
    return None


def _find_time(table: pa.Table, path: Path) -> str:
    dated = [f.name for f in table.schema if pa.types.is_timestamp(f.type) or pa.types.is_date(f.type)]
    named = sorted((rank, name) for name in table.column_names if (rank := _rank(name, _TIME)) is not None)
    candidates = [name for _, name in named if name in dated] + dated + [name for _, name in named]
    readable = []
    for name in candidates:
        times, bad = as_times(table[name])
        if bad.mean() < 0.5:
            readable.append(str(name))
            # A date of manufacture is a time as well, but not the time of a reading.
            if np.unique(times[~bad]).size > 1:
                return str(name)
    if readable:
        return readable[0]
    raise TelemetryError(
        f"No column of {path} looks like a time.",
        advice=f"Name it with --time; there are: {', '.join(table.column_names[:40])}.",
    )


def _find_device(table: pa.Table, time: str, path: Path) -> str:
    named = sorted(
        (rank, name) for name in table.column_names if name != time and (rank := _rank(name, _DEVICE)) is not None
    )
    if named:
        return str(named[0][1])
    raise TelemetryError(
        f"No column of {path} looks like a device id.",
        advice=f"Name it with --device; there are: {', '.join(table.column_names[:40])}.",
    )


def _find_cohort(table: pa.Table, devices: pd.Series, taken: set[str]) -> str | None:
    found = []
    for name in table.column_names:
        rank = _rank(name, _COHORT)
        if name in taken or rank is None:
            continue
        texts = pd.Series(as_texts(table[name]))
        groups = texts.nunique()
        # A cohort is a property of the device, and some devices share one.
        if 1 <= groups < max(2, devices.nunique()) and texts.groupby(devices).nunique().max() <= 1:
            found.append((rank, name))
    return min(found)[1] if found else None


def _numeric(table: pa.Table, names: Sequence[str], path: Path) -> tuple[dict[str, pd.Series], dict[str, str]]:
    values: dict[str, pd.Series] = {}
    left_out: dict[str, str] = {}
    for name in names:
        if _LABEL.fullmatch(name):
            left_out[name] = "a label would leak what the model is to find"
            continue
        kind = table.schema.field(name).type
        if pa.types.is_timestamp(kind) or pa.types.is_date(kind) or pa.types.is_duration(kind):
            left_out[name] = "a second time"
            continue
        if pa.types.is_nested(kind):
            left_out[name] = "no numbers"
            continue
        numbers, no_number = as_numbers(table[name])
        if no_number.mean() > _FEW_TEXTS:
            left_out[name] = "no numbers"
            continue
        column = pd.Series(numbers).replace([np.inf, -np.inf], np.nan)
        if column.notna().sum() == 0:
            left_out[name] = "always missing"
        elif column.min() == column.max():
            left_out[name] = "always the same"
        else:
            values[name] = column
    if not values:
        raise TelemetryError(f"{path} has no column of numbers that vary.", advice="Check that it holds readings.")
    return values, left_out


def _context_by_name(values: dict[str, pd.Series], reasons: dict[str, str]) -> tuple[str, ...]:
    chosen = tuple(name for name in values if _CONTEXT.search(name))
    for name in chosen:
        reasons[name] = "its name says what the device is doing"
    # All signals cannot be context; then the names mean something else.
    return chosen if len(chosen) < len(values) else ()


def _context_by_effect(values: dict[str, pd.Series], devices: pd.Series, reasons: dict[str, str]) -> tuple[str, ...]:
    """Propose switches: signals of few values that go back and forth and explain much of the others."""
    found: list[tuple[float, str]] = []
    for name, column in values.items():
        if not 2 <= column.nunique() <= _FEW_VALUES or column.groupby(devices).nunique().median() < 2:
            continue
        shares = sorted((_explained(column, other) for key, other in values.items() if key != name), reverse=True)
        if len(shares) >= 2 and shares[1] >= _EXPLAINED:
            found.append((shares[1], name))
            reasons[name] = f"it explains {100 * shares[1]:.0f} % and more of the variance of two other signals"
    kept = {name for _, name in sorted(found, reverse=True)[:_SWITCHES_AT_MOST]}
    return tuple(name for name in values if name in kept)


def _explained(switch: pd.Series, other: pd.Series) -> float:
    """Return eta squared: the share of a signal's variance that lies between the values of a switch."""
    known = switch.notna() & other.notna()
    if known.sum() < 2:
        return 0.0
    total = float(other[known].var(ddof=0))
    if not total > 0.0:
        return 0.0
    within = other[known] - other[known].groupby(switch[known]).transform("mean")
    return 1.0 - float(within.var(ddof=0)) / total


def _units(table: pa.Table) -> dict[str, str]:
    units = {}
    for column in table.schema:
        if column.metadata and b"unit" in column.metadata:
            units[column.name] = column.metadata[b"unit"].decode("utf-8", "replace")
    return units


def _interval(table: pa.Table, time: str, devices: pd.Series) -> float:
    times, bad = as_times(table[time])
    frame = pd.DataFrame({"device": devices, "time": times})[~bad].sort_values(["device", "time"])
    steps = frame.groupby("device")["time"].diff()
    steps = steps[steps > 0]
    return 0.0 if steps.empty else float(steps.median()) / 1000.0

"""``exporter init``: a commented model.toml from a data file. What was guessed says so; a person decides."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

from edge_runtime.errors import ContractError, InputError
from exporter.columns import Columns
from exporter.config import parse_spec
from exporter.errors import TelemetryError
from exporter.files import path_from
from exporter.tables import column_names

_ROUND_SECONDS = (1, 5, 10, 15, 20, 30, 60, 120, 300, 600, 900, 1200, 1800, 3600, 7200, 14400, 21600, 43200, 86400)
_LABELS = ("labels.parquet", "labels.csv")


def find_labels(readings: Path, columns: Columns) -> Path | None:
    """Return a labels file beside the readings, when it has device, time and ``label`` columns."""
    folder = readings if readings.is_dir() else readings.parent
    for name in _LABELS:
        path = folder / name
        if not path.is_file() or path == readings:
            continue
        try:
            names = column_names(path)
        except TelemetryError:
            continue
        if {columns.device, columns.time, "label"} <= set(names):
            return path
    return None


def propose_name(readings: Path) -> str:
    """Return a model name made of the folder's or file's name."""
    stem = readings.stem if readings.stem.lower() not in ("readings", "telemetry", "data") else readings.parent.name
    name = re.sub(r"[^a-z0-9._-]+", "-", stem.lower()).strip("-._")[:64]
    return name or "fleet"


def write_settings(columns: Columns, readings: Path, labels: Path | None, *, name: str, folder: Path) -> str:
    """Return the text of model.toml.

    Args:
        columns: What the columns are.
        readings: The data.
        labels: The labels, or None.
        name: The model's name.
        folder: Where model.toml will lie; paths are written relative to it where that is short.

    Returns:
        TOML that ``load_spec`` accepts.

    Raises:
        InputError: The settings would not be accepted, such as a name that breaks the rule.
    """
    text = "\n".join(
        [
            *_model(name),
            *_data(columns, path_from(folder, readings), None if labels is None else path_from(folder, labels)),
            *_training(columns),
            *_release(),
        ]
    )
    try:
        parse_spec(tomllib.loads(text), source="the proposed model.toml", folder=folder)
    except ContractError as error:
        raise InputError(error.message, advice=error.advice) from error
    return text


def _model(name: str) -> list[str]:
    return [
        "# Settings of one model, written by 'exporter init'. Lines that begin with # show defaults.",
        "# What was guessed from the data is marked 'guessed': look at it before you build.",
        "",
        "[model]",
        f"name = {_text(name)}                # devices are enrolled for this name",
        "",
    ]


def _data(columns: Columns, readings: str, labels: str | None) -> list[str]:
    lines = [
        "[data]",
        f"readings = {_text(readings)}    # Parquet or CSV, or a folder of them",
        f"labels = {_text(labels)}        # device, time, label: 0 healthy, 1 faulty, others ignored"
        if labels
        else '# labels = "labels.parquet"   # device, time, label: 0 healthy, 1 faulty, others ignored',
        f"device = {_text(columns.device)}         # guessed",
        f"time = {_text(columns.time)}             # guessed; UTC unless the values name a zone",
        f"cohort = {_text(columns.cohort)}         # guessed: devices that share a model, such as a hardware type"
        if columns.cohort
        else '# cohort = "hardware"         # devices that share a model, such as a hardware type',
        "# max_bad_rows = 0.01         # share of rows that may be set aside before the data is refused",
        "",
        "# What is judged. Leave out what says nothing about a device's health: positions, counters since birth.",
        "signals = [",
        *(f"    {_text(name)}," for name in columns.signals),
        "]",
        *(f"# left out: {_text(name)} ({reason})" for name, reason in columns.left_out.items()),
        "",
        "# Context says what the device is doing; what is normal depends on it. A wrong one hides faults, a missing",
        "# one raises false alarms, so a person decides.",
    ]
    if columns.context:
        lines += [
            "context = [                   # guessed",
            *(f"    {_text(name)},  # {columns.reasons.get(name, 'as given')}" for name in columns.context),
            "]",
        ]
    else:
        lines += ["context = []                  # none was found"]
    shown = {name: columns.units[name] for name in (*columns.signals, *columns.context) if name in columns.units}
    lines += ["", "[data.units]                  # for people"]
    lines += [f"{_text(name)} = {_text(unit)}" for name, unit in shown.items()]
    return [*lines, ""]


def _training(columns: Columns) -> list[str]:
    return [
        "[window]                      # a verdict looks at the last readings of a device",
        "# slots = 12                  # 1 judges each reading alone"
        if columns.interval_seconds
        else "slots = 1                     # guessed: no device has two readings; with more, 12 is a good start",
        _interval(columns.interval_seconds),
        "# largest_gap_seconds = 43200 # nothing before a longer gap is seen; default: all slots together",
        "# minimum_readings = 6        # filled slots that a verdict needs; default: half of the slots",
        "",
        "[features]",
        '# statistics = ["last", "mean"] # more is not better; try with: exporter compare',
        "",
        "[detector]",
        '# kind = "isolation_forest"   # or hybrid, autoencoder, sklearn, onnx; try with: exporter compare',
        "# trees = 200                 # isolation_forest, hybrid",
        "# max_samples = 256",
        "# max_features = 1.0",
        "# cohort_weight = 0.5         # hybrid: weight of the cohort's own forest",
        "# hidden = [16]               # autoencoder: its hidden layers; default: from the number of features",
        "# epochs = 50                 # autoencoder",
        "# seed = 0",
        "",
        "[calibration]",
        "# alarms_per_device_day = 0.02  # incidents of a healthy device per day; the threshold is chosen for it",
        "# threshold = 0.999             # instead: the anomaly score itself",
        "# incident_gap = 3              # healthy windows that end an incident",
        "# assumed_contamination = 0.01  # without labels: share of windows dropped before training",
        "",
        "[train]",
        '# holdout = "every-second-device" # scored, not trained on; or "labelled", "none" to ship, device ids',
        "",
    ]


def _interval(median: float) -> str:
    if not median:
        return "# interval_seconds = 3600     # length of a slot; default: the median step of the data"
    # Readings that come a little late or get lost shift the median; the plan behind them is a round number.
    near = [seconds for seconds in _ROUND_SECONDS if abs(median - seconds) <= 0.05 * seconds]
    if near and near[0] != median:
        return f"interval_seconds = {near[0]}       # guessed: readings come every {median:g} s in the median"
    return f"# interval_seconds = {median:g}     # length of a slot; default: the median step of the data"


def _release() -> list[str]:
    return [
        "[goals]                       # what the form that ships must keep of the trained model, or nothing is packed",
        "# spearman_loss = 0.001       # largest loss of rank correlation of scores",
        "# label_flips = 0.002         # largest share of windows with another verdict",
        "# auc_loss = 0.005            # largest loss of AUC, where there are labels",
        '# prefer = "smallest"         # or fastest',
        "# batch = 1                   # windows in one call for which speed counts: 1, 100 or 10000",
        "# slowdown = 1.2              # how many times slower than fp32 the smallest form may be",
        "",
        "# [[prove]]                   # more data to prove it on, with the columns of [data]; one table each",
        '# name = "winter"',
        '# readings = "winter.parquet"',
        '# labels = "winter-labels.parquet"',
        "",
        "[release]",
        '# channels = ["stable"]         # lines of releases that may run it; release keys bind this',
        '# precision = "auto"            # fp32, codebook8, int8, or auto: what the goals prefer',
        "# cohorts = true                # a model of its own for each cohort with enough devices",
        "",
        "[compare]                     # what `exporter compare` tries, each with each",
        "# windows = [1, 12, 30, 120]",
        '# statistics = [["last", "mean"], ["last", "mean", "std"]]',
        "# context = [true, false]     # with the declared context, and with its signals judged as any others",
        "# [[compare.detectors]]       # beside the own one; default: one of each family",
        '# kind = "hybrid"',
        "",
    ]


def _text(value: str) -> str:
    # A JSON string is a TOML basic string, but for DEL, which TOML wants escaped.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")

"""Where the data of a replay comes from: recorded readings or a server's windows, and what the columns are called."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edge_runtime.errors import InputError
from exporter.dataset import read_fleet
from exporter.replay.outcome import Outcome
from exporter.replay.sides import Side
from exporter.replay.stored import is_stored_windows, replay_windows
from exporter.replay.telemetry import replay_fleet
from exporter.spec import MAX_BAD_ROWS, DataSpec

Show = Callable[[str, float], None]


@dataclass(frozen=True, slots=True)
class Source:
    """What was named.

    Attributes:
        data: Recorded telemetry (a table or a folder of tables), or a file of windows that a server kept.
        labels: Table of device, time and label, or None.
        device: Column of the device id; None: as the candidate was trained.
        time: Column of the time; None: as the candidate was trained.
        cohort: Column of the cohort; None: as the candidate was trained.
        max_bad_rows: Share of rows that may be set aside; None: the default.
    """

    data: Path
    labels: Path | None = None
    device: str | None = None
    time: str | None = None
    cohort: str | None = None
    max_bad_rows: float | None = None


def replay_source(source: Source, candidate: Side, current: Side, show: Show = lambda _step, _share: None) -> Outcome:
    """Replay whatever the source is.

    Args:
        source: What was named.
        candidate: The release that is asked about.
        current: The release in use.
        show: Takes a step's name and the share of it that is done.

    Raises:
        InputError: The data cannot be used; ``TelemetryError`` is one.
        ScoringError: A model failed.
    """

    def progress(share: float) -> None:
        show("replay", share)

    if is_stored_windows(source.data):
        if source.labels is not None:
            raise InputError("Labels belong to readings, not to windows of a server.", advice="Leave --labels out.")
        return replay_windows(source.data, candidate, current, progress=progress)
    spec = data_spec(source, candidate, current)
    show("read", 0.0)
    fleet = read_fleet(spec)
    show("read", 1.0)
    outcome = replay_fleet(fleet, candidate, current, progress=progress)
    outcome.notes += fleet.notes
    return outcome


def data_spec(source: Source, candidate: Side, current: Side) -> DataSpec:
    """Return how to read recorded telemetry: columns as named, else as the candidate's provenance has them.

    Raises:
        InputError: Nobody says what the columns of device and time are called.
    """
    device, time, cohort = (
        getattr(source, name) or _text(candidate.data.get(name)) for name in ("device", "time", "cohort")
    )
    if device is None or time is None:
        raise InputError(
            "The candidate does not say what the columns of device and time are called.",
            advice="Give --device and --time.",
        )
    # Those of both sides, so that the data is read once; each bundle takes its own columns.
    models = [model for side in (candidate, current) for model in side.models.values()]
    signals = tuple(dict.fromkeys(name for model in models for name in model.columns))
    most = MAX_BAD_ROWS if source.max_bad_rows is None else source.max_bad_rows
    return DataSpec(source.data, source.labels, device, time, cohort, signals, max_bad_rows=most)


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None

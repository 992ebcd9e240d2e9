"""Replaying recorded readings: device by device, both sides, a chunk of devices at a time.

The readings are in memory once, as in training. Beside them a chunk's windows (cut block by block) and, for each
window, two raw scores and a label: 9 bytes, of which ranks are made at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from exporter.alarms import DAY_MS, find_incidents
from exporter.dataset import Device, Fleet
from exporter.errors import TelemetryError
from exporter.replay.outcome import DeviceOutcome, Outcome, count_windows, without_partner
from exporter.replay.sides import Flags, Model, Scores, Side, score_blocks
from exporter.window_sets import cut_windows

# Readings that are scored together: large enough for full blocks, small enough to tell of progress.
CHUNK_READINGS = 100_000


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """One side's verdicts on the readings of one device.

    Attributes:
        scored: (n,) which readings have a verdict; the others are warming up.
        raw: (n,) raw scores, undefined where there is none.
        flags: (n,) verdicts, False where there is none.
        watched_ms: (n,) time that a reading's window stands for, 0 where there is none.
    """

    scored: Flags
    raw: Scores
    flags: Flags
    watched_ms: npt.NDArray[np.int64]


def replay_fleet(
    fleet: Fleet, candidate: Side, current: Side, *, progress: Callable[[float], None] = lambda _: None
) -> Outcome:
    """Replay the readings of a fleet.

    Args:
        fleet: The readings; its columns are those of both sides together.
        candidate: The release that is asked about.
        current: The release in use.
        progress: Takes the share that is done.

    Returns:
        The figures.

    Raises:
        ScoringError: A model failed.
        TelemetryError: No device has a bundle on both sides.
    """
    outcome, done, every = Outcome(), 0, sum(len(device.timestamps_ms) for device in fleet.devices)
    for chunk, now, then in _chunks(fleet.devices, current, candidate):
        judged = _judge(chunk, now, fleet.columns), _judge(chunk, then, fleet.columns)
        for device, one, other in zip(chunk, *judged, strict=True):
            _add(outcome, device, (one, now), (other, then))
        done += sum(len(device.timestamps_ms) for device in chunk)
        progress(done / every)
    outcome.left_out = len(fleet.devices) - len(outcome.devices)
    if not outcome.devices:
        raise TelemetryError(
            "No device has a bundle on both sides.",
            advice="Name the column of the cohort with --cohort, or releases that hold a default bundle.",
        )
    return outcome


def _chunks(devices: Sequence[Device], current: Side, candidate: Side) -> Iterator[tuple[list[Device], Model, Model]]:
    """Yield devices that run the same two bundles, some at a time."""
    waiting: dict[tuple[str, str], tuple[list[Device], Model, Model]] = {}
    for device in devices:
        now, then = current.model_for(device.cohort), candidate.model_for(device.cohort)
        if now is None or then is None:
            continue
        key = (now.digest, then.digest)
        chunk = waiting.setdefault(key, ([], now, then))
        chunk[0].append(device)
        if sum(len(one.timestamps_ms) for one in chunk[0]) >= CHUNK_READINGS:
            yield waiting.pop(key)
    yield from waiting.values()


def _judge(devices: Sequence[Device], model: Model, columns: Sequence[str]) -> list[Judged]:
    """Return a side's verdicts on some devices."""
    places = [columns.index(name) for name in model.columns]
    if places != list(range(len(columns))):
        devices = [replace(device, values=device.values[:, places]) for device in devices]
    windows = cut_windows(devices, model.manifest.window)
    scores, verdicts = score_blocks(model, windows.blocks(), len(windows))
    every = int(windows.starts[-1])
    scored, flags = np.zeros(every, np.bool_), np.zeros(every, np.bool_)
    raw, watched = np.zeros(every, np.float32), np.zeros(every, np.int64)
    rows = windows.rows
    scored[rows], flags[rows], raw[rows], watched[rows] = True, verdicts, scores, windows.watched_ms
    cuts = windows.starts[1:-1]
    parts = (np.split(values, cuts) for values in (scored, raw, flags, watched))
    return [Judged(*one) for one in zip(*parts, strict=True)]


def _add(outcome: Outcome, device: Device, now: tuple[Judged, Model], then: tuple[Judged, Model]) -> None:
    (one, current), (other, candidate) = now, then
    both = one.scored & other.scored
    counts = count_windows(one.flags[both], other.flags[both], device.labels[both])
    mine = _incidents(other, candidate.manifest.incident_gap)
    theirs = _incidents(one, current.manifest.incident_gap)
    counts = replace(
        counts,
        days=float(one.watched_ms[both].sum()) / DAY_MS,
        incidents_current=len(theirs),
        incidents_candidate=len(mine),
        incidents_new=without_partner(mine, theirs),
        incidents_gone=without_partner(theirs, mine),
    )
    found = DeviceOutcome(
        device.name, device.cohort, counts, _first_alarm(device, one.flags), _first_alarm(device, other.flags)
    )
    outcome.add(found, one.raw[both], other.raw[both], device.labels[both])


def _incidents(judged: Judged, gap: int) -> list[tuple[int, int]]:
    """Return the first and last reading of each incident of one device; what has no verdict ends none."""
    rows = np.flatnonzero(judged.scored)
    found = find_incidents(judged.flags[rows], np.zeros(len(rows), np.int64), gap)
    return list(zip(rows[found.first].tolist(), rows[found.last].tolist(), strict=True))


def _first_alarm(device: Device, flags: Flags) -> int | None:
    return int(device.timestamps_ms[int(flags.argmax())]) if flags.any() else None

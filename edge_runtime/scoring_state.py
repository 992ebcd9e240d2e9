"""What scoring must remember between readings, and its way into and out of ``edge.db``.

The readings that later windows can still see, the marks, the open incident and the open summaries. All of it is read
and written inside the caller's transaction, so that a killed process leaves it as of some whole group of readings.
"""

from __future__ import annotations

import json
import sqlite3
from dataclasses import astuple, dataclass, field, replace

import numpy as np
import numpy.typing as npt

from edge_runtime.contract.manifest import Manifest
from edge_runtime.contract.result import Summary
from edge_runtime.contract.window import WindowRule
from edge_runtime.edge_db import EdgeDatabase
from edge_runtime.incidents import OpenIncident
from edge_runtime.outbox import DEFAULT_LIMITS, OutboxLimits, append_records
from edge_runtime.summaries import OpenSummary, hour_of

Times = npt.NDArray[np.int64]
Cells = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Layout:
    """What the columns and slots of the stored readings mean.

    Attributes:
        signals: (name, unit) of each column.
        interval_ms: Length of a slot.
    """

    signals: tuple[tuple[str, str], ...]
    interval_ms: int

    @classmethod
    def of(cls, manifest: Manifest) -> Layout:
        """Return the layout that a bundle asks for."""
        return cls(tuple((signal.name, signal.unit) for signal in manifest.signals), manifest.window.interval_ms)

    def columns_of(self, wanted: Layout) -> list[int] | None:
        """Return which of our columns make the wanted ones, or None when our readings are of no use for them."""
        if wanted.interval_ms != self.interval_ms or not set(wanted.signals) <= set(self.signals):
            return None
        return [self.signals.index(signal) for signal in wanted.signals]

    def to_json(self) -> str:
        """Return the layout as ``edge.db`` keeps it."""
        return json.dumps({"signals": self.signals, "interval_ms": self.interval_ms}, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Layout:
        """Read the layout as ``edge.db`` keeps it."""
        value = json.loads(text)
        return cls(tuple((name, unit) for name, unit in value["signals"]), value["interval_ms"])


@dataclass(slots=True)
class ScoringState:
    """One device's scoring, between two groups of readings.

    Attributes:
        revision: Grows with every group; tells a process that another one has scored since.
        bundle: SHA-256 of the bundle that scored last, or None.
        layout: What the columns of ``cells`` are, or None before the first reading.
        highest_timestamp_ms: The highest accepted time, or None.
        highest_clock_ms: The highest value the clock has shown, or None.
        times: (n,) int64 of the readings kept, ascending.
        cells: (n, S) float32 of the readings kept.
        incident: The open incident, or None.
        summaries: Open summaries by (bundle, start of the hour).
    """

    revision: int
    bundle: str | None
    layout: Layout | None
    highest_timestamp_ms: int | None
    highest_clock_ms: int | None
    times: Times
    cells: Cells
    incident: OpenIncident | None
    summaries: dict[tuple[str, int], OpenSummary] = field(default_factory=dict)

    def forget_readings(self) -> None:
        """Start the window afresh."""
        self.times = self.times[:0]
        self.cells = self.cells[:0]

    def summary(self, bundle: str, timestamp_ms: int) -> OpenSummary:
        """Return the open summary of a bundle and of the hour that the newest reading's time falls into."""
        summary = self.summaries.setdefault((bundle, hour_of(timestamp_ms)), OpenSummary(timestamp_ms))
        summary.newest_reading_ms = max(summary.newest_reading_ms, timestamp_ms)
        return summary

    def close_summaries(self, *, keep: tuple[str, int] | None = None) -> list[Summary]:
        """Close the open summaries, oldest first, but for the one to keep.

        Args:
            keep: (bundle, start of the hour) of the summary that goes on, or None.
        """
        closing = sorted((key for key in self.summaries if key != keep), key=lambda key: (key[1], key[0]))
        return [self.summaries.pop(key).closed(*key) for key in closing]


def load_state(sql: sqlite3.Connection, cached: ScoringState | None = None) -> ScoringState:
    """Read the state inside the caller's transaction.

    Args:
        sql: The connection of an open transaction.
        cached: The state as this process wrote it last; its readings are used again when nobody else has written.

    Returns:
        A state of its own, free to change.
    """
    row = sql.execute(
        "SELECT revision, bundle, layout, highest_timestamp_ms, highest_clock_ms FROM scoring_state"
    ).fetchone()
    layout = None if row[2] is None else Layout.from_json(row[2])
    if cached is not None and cached.revision == row[0]:
        times, cells = cached.times, cached.cells
    else:
        times, cells = _load_readings(sql, len(layout.signals) if layout else 0)
    open_incident = sql.execute(
        "SELECT bundle, started_at_ms, windows, highest_anomaly_score, healthy_run, last_stored_ms FROM open_incident"
    ).fetchone()
    # Summaries are not cached: an uploader closes them between two groups.
    return ScoringState(
        row[0],
        row[1],
        layout,
        row[3],
        row[4],
        times,
        cells,
        None if open_incident is None else OpenIncident(*open_incident),
        _load_summaries(sql),
    )


def save_state(sql: sqlite3.Connection, before: ScoringState, after: ScoringState) -> None:
    """Write what changed, inside the caller's transaction.

    Args:
        sql: The connection of the transaction that ``before`` was read in.
        before: The state as it was read.
        after: The state to keep; its revision is raised.
    """
    after.revision = before.revision + 1
    sql.execute(
        "UPDATE scoring_state SET revision = ?, bundle = ?, layout = ?, highest_timestamp_ms = ?, highest_clock_ms = ?",
        (
            after.revision,
            after.bundle,
            None if after.layout is None else after.layout.to_json(),
            after.highest_timestamp_ms,
            after.highest_clock_ms,
        ),
    )
    _save_readings(sql, before, after)
    if after.incident != before.incident:
        sql.execute("DELETE FROM open_incident")
        if after.incident is not None:
            sql.execute("INSERT INTO open_incident VALUES (1, ?, ?, ?, ?, ?, ?)", astuple(after.incident))
    sql.execute("DELETE FROM open_summary")
    _insert_summaries(sql, after)


def close_open_summaries(database: EdgeDatabase, limits: OutboxLimits = DEFAULT_LIMITS) -> int:
    """Turn the open summaries into records, as an upload does, so that the server sees the hour so far.

    Args:
        database: The device's database.
        limits: Bounds of the outbox.

    Returns:
        How many were closed.

    Raises:
        StorageError: The database cannot be used; nothing was closed.
    """
    with database.transaction() as sql:
        closed = [summary.closed(*key) for key, summary in sorted(_load_summaries(sql).items())]
        sql.execute("DELETE FROM open_summary")
        append_records(sql, closed, limits)
        return len(closed)


def kept_readings(times: Times, rule: WindowRule) -> npt.NDArray[np.bool_]:
    """Return which readings later windows need: the first and the last of each of the newest W slots.

    The last one is what a window shows. The first one keeps the distance to the slot before exact, so that forgetting
    the others never makes a gap look longer than it was.

    Args:
        times: (n,) int64, strictly ascending.
        rule: The window rule.

    Returns:
        (n,) bool.
    """
    slots = times // rule.interval_ms
    change = np.diff(slots) != 0
    edge = np.concatenate([[True], change]) | np.concatenate([change, [True]]) if len(times) else times == 0
    result: npt.NDArray[np.bool_] = edge & (slots > (slots[-1] if len(times) else 0) - rule.slots)
    return result


def with_bundle(state: ScoringState, bundle: str, manifest: Manifest) -> ScoringState:
    """Return the state under another bundle: its readings stay where they mean the same, else the window is new.

    Args:
        state: The state so far.
        bundle: SHA-256 of the active bundle, hex.
        manifest: Its manifest.
    """
    wanted = Layout.of(manifest)
    columns = None if state.layout is None else state.layout.columns_of(wanted)
    if columns is None:
        empty = np.empty((0, len(wanted.signals)), dtype=np.float32)
        return replace(state, bundle=bundle, layout=wanted, times=np.empty(0, dtype=np.int64), cells=empty)
    return replace(state, bundle=bundle, layout=wanted, cells=np.ascontiguousarray(state.cells[:, columns]))


def _load_readings(sql: sqlite3.Connection, signals: int) -> tuple[Times, Cells]:
    rows = sql.execute("SELECT timestamp_ms, cells FROM recent_reading ORDER BY timestamp_ms").fetchall()
    times = np.array([row[0] for row in rows], dtype=np.int64)
    cells = np.frombuffer(b"".join(row[1] for row in rows), dtype="<f4").reshape(len(rows), signals)
    return times, cells.astype(np.float32)


def _save_readings(sql: sqlite3.Connection, before: ScoringState, after: ScoringState) -> None:
    # A mark that was lowered lets other readings of the same times in: none of the old ones may stay.
    lowered = (after.highest_clock_ms or 0) < (before.highest_clock_ms or 0)
    if before.layout != after.layout or lowered:
        sql.execute("DELETE FROM recent_reading")
        stored: set[int] = set()
    else:
        stored = set(before.times.tolist())
        kept = set(after.times.tolist())
        sql.executemany("DELETE FROM recent_reading WHERE timestamp_ms = ?", [(time,) for time in stored - kept])
    new = [index for index, time in enumerate(after.times.tolist()) if time not in stored]
    cells = after.cells.astype("<f4", copy=False)
    sql.executemany(
        "INSERT INTO recent_reading VALUES (?, ?)",
        [(int(after.times[index]), cells[index].tobytes()) for index in new],
    )


def _load_summaries(sql: sqlite3.Connection) -> dict[tuple[str, int], OpenSummary]:
    rows = sql.execute("SELECT bundle, period_start_ms, counts FROM open_summary")
    return {(bundle, start): OpenSummary.from_json(counts) for bundle, start, counts in rows}


def _insert_summaries(sql: sqlite3.Connection, state: ScoringState) -> None:
    sql.executemany(
        "INSERT INTO open_summary VALUES (?, ?, ?)",
        [(bundle, start, summary.to_json()) for (bundle, start), summary in state.summaries.items()],
    )

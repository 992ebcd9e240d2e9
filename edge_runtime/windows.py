"""Windows from readings: the one function that training, the device and every test use.

The rule is ``edge_runtime.contract.window``: a window is W slots, the newest one is the reading's own, an older one
holds the last reading that fell into it, an empty one is all NaN, and nothing before too long a gap is seen::

    indices = window_indices(timestamps_ms, rule)       # (n, W) row numbers, -1 for an empty slot
    windows = gather(values, indices)                   # (n, W, S) float32
    ready = filled(indices) >= rule.minimum_readings    # the others are warming up
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edge_runtime.contract.window import WindowRule

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float32]


def window_indices(
    timestamps_ms: IntArray, rule: WindowRule, *, rows: IntArray | None = None, starts: IntArray | None = None
) -> IntArray:
    """Return which rows form the window of each reading.

    Args:
        timestamps_ms: (n,) int64, strictly ascending within a device.
        rule: The window rule.
        rows: (m,) int64, the readings whose windows are wanted; all when None.
        starts: (d,) int64, the first row of each device where the readings are those of several, one device after the
            other; None for one device.

    Returns:
        (m, W) int64: row numbers, oldest slot first, -1 where a slot is empty.

    Raises:
        ValueError: The timestamps are not one-dimensional or not strictly ascending.
    """
    line, first = _slot_line(timestamps_ms, rule, starts)
    wanted = np.arange(first.size, dtype=np.int64) if rows is None else rows
    result: IntArray = np.lib.stride_tricks.sliding_window_view(line, rule.slots)[first[wanted]]
    result[:, -1] = wanted
    return result


def windows_of(
    values: FloatArray, timestamps_ms: IntArray, rule: WindowRule, *, rows: IntArray, starts: IntArray
) -> FloatArray:
    """Return the windows that ``gather`` would return for ``window_indices`` of the same: for many at a time.

    The readings are laid out slot by slot once, and a window is copied from there in one piece.

    Args:
        values: (n, S) float32 readings, NaN = missing.
        timestamps_ms: (n,) int64, strictly ascending within a device.
        rule: The window rule.
        rows: (m,) int64, the readings whose windows are wanted.
        starts: (d,) int64, the first row of each device.

    Returns:
        (m, W, S) float32, C order; an empty slot is all NaN.

    Raises:
        ValueError: The timestamps are not one-dimensional or not strictly ascending.
    """
    line, first = _slot_line(timestamps_ms, rule, starts)
    columns = values.shape[1]
    if first.size == 0:
        return np.empty((0, rule.slots, columns), np.float32)
    laid_out = gather(values, line).reshape(-1)
    whole = np.lib.stride_tricks.sliding_window_view(laid_out, rule.slots * columns)[::columns]
    windows: FloatArray = whole[first[rows]].reshape(-1, rule.slots, columns)
    windows[:, -1] = values[rows]
    return windows


def _slot_line(timestamps_ms: IntArray, rule: WindowRule, starts: IntArray | None) -> tuple[IntArray, IntArray]:
    """Return all slots on one line, and where on it the window of each reading begins.

    Returns:
        (k,) int64, the last reading that fell into each slot, -1 for none; and (n,) int64, the first of the W slots of
        each reading's window. The newest of them holds the reading itself, whatever the line says.
    """
    times = np.asarray(timestamps_ms, dtype=np.int64)
    if times.ndim != 1:
        raise ValueError("timestamps_ms must be one-dimensional")
    if times.size == 0:
        return np.full(rule.slots, -1, np.int64), np.empty(0, np.int64)
    unseen = np.zeros(times.size, bool)  # nothing before this reading is seen from it on
    if starts is not None:
        unseen[starts] = True
    steps = np.diff(times)
    if ((steps <= 0) & ~unseen[1:]).any():
        raise ValueError("timestamps_ms must ascend strictly")
    unseen[1:] |= steps > rule.largest_gap_ms
    # W slots lie before whatever sees nothing of the past. More than W say no more than W: so the line is never longer
    # than W times the readings.
    strides = np.minimum(np.diff(times // rule.interval_ms), rule.slots)
    strides[unseen[1:]] = rule.slots
    first = np.r_[np.int64(0), strides].cumsum()
    newest_of_slot = np.flatnonzero(np.r_[strides > 0, True])
    line = np.full(int(first[-1]) + rule.slots, -1, np.int64)
    line[first[newest_of_slot] + rule.slots - 1] = newest_of_slot
    return line, first


def gather(values: FloatArray, indices: IntArray) -> FloatArray:
    """Return the windows that ``indices`` describe.

    Args:
        values: (n, S) float32 readings, NaN = missing.
        indices: (m, W) int64 from ``window_indices``, or some of its rows.

    Returns:
        (m, W, S) float32, C order; an empty slot is all NaN.
    """
    windows: FloatArray = np.asarray(values, dtype=np.float32).take(indices, axis=0)
    empty = indices < 0
    if empty.any():
        windows[empty] = np.nan
    return windows


def filled(indices: IntArray) -> IntArray:
    """Return how many slots of each window hold a reading: (m,) int64."""
    counts: IntArray = np.count_nonzero(indices >= 0, axis=1).astype(np.int64)
    return counts

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


def window_indices(timestamps_ms: IntArray, rule: WindowRule) -> IntArray:
    """Return which rows form the window of each reading of one device.

    Args:
        timestamps_ms: (n,) int64, strictly ascending.
        rule: The window rule.

    Returns:
        (n, W) int64: row numbers, oldest slot first, -1 where a slot is empty.

    Raises:
        ValueError: The timestamps are not one-dimensional or not strictly ascending.
    """
    times = np.asarray(timestamps_ms, dtype=np.int64)
    if times.ndim != 1:
        raise ValueError("timestamps_ms must be one-dimensional")
    steps = np.diff(times)
    if (steps <= 0).any():
        raise ValueError("timestamps_ms must ascend strictly")
    n = times.size
    result = np.full((n, rule.slots), -1, dtype=np.int64)
    if n == 0:
        return result
    rows = np.arange(n, dtype=np.int64)
    result[:, -1] = rows
    if rule.slots == 1:
        return result
    slots = times // rule.interval_ms
    # The first row after the latest gap that is too long: nothing before it is seen.
    first = np.maximum.accumulate(np.where(np.r_[False, steps > rule.largest_gap_ms], rows, 0))
    for back in range(1, rule.slots):
        wanted = slots - back
        candidate = np.searchsorted(slots, wanted, side="right") - 1
        found = (candidate >= first) & (slots[np.maximum(candidate, 0)] == wanted)
        result[found, -1 - back] = candidate[found]
    return result


def gather(values: FloatArray, indices: IntArray) -> FloatArray:
    """Return the windows that ``indices`` describe.

    Args:
        values: (n, S) float32 readings, NaN = missing.
        indices: (m, W) int64 from ``window_indices``, or some of its rows.

    Returns:
        (m, W, S) float32, C order; an empty slot is all NaN.
    """
    windows = np.asarray(values, dtype=np.float32)[indices]
    windows[indices < 0] = np.nan
    return np.ascontiguousarray(windows)


def filled(indices: IntArray) -> IntArray:
    """Return how many slots of each window hold a reading: (m,) int64."""
    counts: IntArray = np.count_nonzero(indices >= 0, axis=1).astype(np.int64)
    return counts

"""From a request to windows of one bundle: checked, bounded, cut by the contract's rule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_runtime.contract.manifest import Manifest
from edge_runtime.scoring import Float32s
from edge_runtime.windows import IntArray, filled, gather, window_indices
from sync_server.errors import RequestError
from sync_server.scoring.requests import MAX_WINDOWS, Readings, ScoreRequest, Value

# Values of all windows of a request: 16 MB. Windows of 24 x 25 values reach it at 6,990, more than a request may hold.
MAX_CELLS = 4 * 1024 * 1024
_FLOAT32_MAX = float(np.finfo(np.float32).max)


@dataclass(frozen=True, slots=True)
class Cut:
    """Windows of one bundle.

    Attributes:
        windows: (n, W, S) float32, oldest slot first, NaN = missing.
        filled: (n,) int64, slots that hold a reading. Of a window that came as it is, those with any value.
        observed_at_ms: (n,) time of the newest reading; None for windows that came as they are.
        ignored: Names of signals that the bundle does not know.
    """

    windows: Float32s
    filled: IntArray
    observed_at_ms: tuple[int | None, ...]
    ignored: tuple[str, ...] = ()


def cut(asked: ScoreRequest, manifest: Manifest) -> Cut:
    """Return the windows that a request asks to be scored.

    Args:
        asked: The request.
        manifest: The manifest of the bundle that scores.

    Raises:
        RequestError: 422, neither or both of windows and readings, or something in them that cannot be used.
    """
    if (asked.windows is None) == (asked.readings is None):
        raise _bad("one_input", "A request holds either windows or readings.", "Send one of the two.")
    if asked.readings is not None:
        return _from_readings(asked.readings, asked.last, manifest)
    return _from_windows(asked.windows or [], asked.signals, manifest)


def _from_windows(given: Sequence[Sequence[Sequence[Value]]], signals: Sequence[str] | None, manifest: Manifest) -> Cut:
    slots, names = manifest.window.slots, [signal.name for signal in manifest.signals]
    if signals is not None and list(signals) != names:
        raise _bad(
            "other_signals", f"The windows have other columns than release {manifest.release_number} reads.",
            f"Its columns are, in this order: {_listed(names)}.",
        )  # fmt: skip
    _check_cells(len(given), manifest)
    for number, window in enumerate(given):
        if len(window) != slots or any(len(reading) != len(names) for reading in window):
            raise _bad(
                "window_shape", f"Window {number} is not {slots} slots of {len(names)} values.",
                f"The columns are, in this order: {_listed(names)}.",
            )  # fmt: skip
    windows = _numbers(given).reshape(len(given), slots, len(names))
    there = np.count_nonzero(~np.isnan(windows).all(axis=2), axis=1).astype(np.int64)
    return Cut(windows, there, (None,) * len(given))


def _from_readings(readings: Readings, last: int, manifest: Manifest) -> Cut:
    names = [signal.name for signal in manifest.signals]
    absent = [name for name in names if name not in readings.signals]
    if absent:
        raise _bad("signal_missing", f"The readings lack {_listed(absent)}.", "Send null for values that are missing.")
    times = np.array(readings.observed_at_ms, dtype=np.int64)
    uneven = [name for name in names if len(readings.signals[name]) != len(times)]
    if uneven:
        raise _bad(
            "uneven_columns", f"There are {len(times)} times, but not as many values of {_listed(uneven)}.",
            "Send one value, or null, for each time.",
        )  # fmt: skip
    if (np.diff(times) <= 0).any():
        raise _bad("not_ascending", "The times of the readings do not ascend strictly.", "Sort them; drop doubles.")
    rows = np.arange(max(0, len(times) - last), len(times), dtype=np.int64)
    _check_cells(len(rows), manifest)
    cells = np.stack([_numbers(readings.signals[name]) for name in names], axis=1)
    indices = window_indices(times, manifest.window, rows=rows)
    known = set(names)
    ignored = tuple(sorted(name for name in readings.signals if name not in known))
    return Cut(gather(cells, indices), filled(indices), tuple(times[rows].tolist()), ignored)


def _numbers(values: Sequence[object]) -> Float32s:
    """Return numbers as float32, null as NaN; what float32 cannot hold is refused and never becomes an infinity."""
    wide: npt.NDArray[np.float64] = np.array(values, dtype=np.float64)
    if (np.abs(wide) > _FLOAT32_MAX).any():  # NaN compares false: it is a missing value
        raise _bad("infinity", "A value is infinite or too large for float32.", "Send null for what is not known.")
    return wide.astype(np.float32)


def _check_cells(windows: int, manifest: Manifest) -> None:
    cells = windows * manifest.window.slots * len(manifest.signals)
    if windows > MAX_WINDOWS or cells > MAX_CELLS:
        raise _bad(
            "too_many_windows", f"{windows} windows of this bundle hold {cells} values; a request may hold"
            f" {MAX_WINDOWS} windows and {MAX_CELLS} values.", "Send fewer windows at once.",
        )  # fmt: skip


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:40]) + (" ..." if len(names) > 40 else "")


def _bad(code: str, message: str, advice: str) -> RequestError:
    return RequestError(422, code, message, advice=advice)

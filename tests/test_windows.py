"""Windows: the vectorised rule against the contract's sentence read literally, reading by reading."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.contract.window import WindowRule
from edge_runtime.scoring_state import kept_readings
from edge_runtime.windows import filled, gather, window_indices, windows_of

TIMES = st.lists(st.integers(1, 40), max_size=30).map(lambda steps: np.cumsum(steps, dtype=np.int64))
RULES = st.builds(
    lambda slots, interval, gap: WindowRule(slots, interval, interval + gap, 1),
    st.integers(1, 6), st.integers(1, 20), st.integers(0, 40),
)  # fmt: skip


def _literal(times: list[int], rule: WindowRule, newest: int) -> list[int]:
    """An older slot holds the last reading that fell into it; nothing before too long a gap is seen."""
    seen = [newest]
    while seen[0] > 0 and times[seen[0]] - times[seen[0] - 1] <= rule.largest_gap_ms:
        seen.insert(0, seen[0] - 1)
    window = [-1] * rule.slots
    for row in seen:
        back = rule.slot(times[newest]) - rule.slot(times[row])
        if 0 < back < rule.slots:
            window[-1 - back] = row
    window[-1] = newest
    return window


@given(TIMES, RULES)
def test_the_rule_read_literally(times: np.ndarray, rule: WindowRule) -> None:
    expected = [_literal(times.tolist(), rule, row) for row in range(len(times))]
    assert window_indices(times, rule).tolist() == expected


@given(st.lists(TIMES, max_size=4), RULES, st.data())
def test_some_windows_of_several_devices_at_once(
    devices: list[np.ndarray], rule: WindowRule, data: st.DataObject
) -> None:
    devices = [times for times in devices if times.size]
    starts = np.cumsum([0, *(times.size for times in devices)])
    alone = [window_indices(times, rule) for times in devices]
    expected = [np.where(found >= 0, found + start, -1) for found, start in zip(alone, starts[:-1], strict=True)]
    whole = np.concatenate([np.empty((0, rule.slots), np.int64), *expected])
    rows = np.array(data.draw(st.lists(st.integers(0, len(whole) - 1))) if len(whole) else [], np.int64)
    times = np.concatenate([np.empty(0, np.int64), *devices])
    np.testing.assert_array_equal(window_indices(times, rule, rows=rows, starts=starts[:-1]), whole[rows])
    values = np.arange(2 * len(times), dtype=np.float32).reshape(-1, 2)
    cut = windows_of(values, times, rule, rows=rows, starts=starts[:-1])
    np.testing.assert_array_equal(cut, gather(values, whole[rows]))


@given(TIMES, RULES, st.integers(0, 30))
def test_a_device_that_forgets_old_readings_sees_the_same_windows(
    times: np.ndarray, rule: WindowRule, cut: int
) -> None:
    before, after = times[:cut], times[cut:]
    held = np.r_[before[kept_readings(before, rule)], after]
    alone = window_indices(held, rule)[len(held) - len(after) :]
    whole = window_indices(times, rule)[len(before) :]
    assert _times(alone, held) == _times(whole, times)


def _times(windows: np.ndarray, times: np.ndarray) -> list[list[int | None]]:
    return [[int(times[row]) if row >= 0 else None for row in window] for window in windows]


def test_empty_slots_are_missing() -> None:
    rule = WindowRule(3, 10, 100, 1)
    indices = window_indices(np.array([0, 20]), rule)
    windows = gather(np.array([[1.0, 2.0], [3.0, np.nan]], dtype=np.float32), indices)
    assert windows.shape == (2, 3, 2)
    assert np.isnan(windows[1, 1]).all()
    assert windows[1, 0].tolist() == [1.0, 2.0]
    assert filled(indices).tolist() == [1, 2]


def test_times_that_do_not_ascend_are_refused() -> None:
    with pytest.raises(ValueError, match="ascend"):
        window_indices(np.array([2, 2]), WindowRule(1, 1, 1, 1))

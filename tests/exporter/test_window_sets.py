"""Window sets: what is cut on demand is what the rule says, whatever was taken and however many threads run."""

from __future__ import annotations

import pickle
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.contract.window import WindowRule
from edge_runtime.windows import filled, gather, window_indices
from exporter.dataset import Device
from exporter.graph import running
from exporter.graph.features import feature_model, plan_features
from exporter.graph.running import Graph, block_slices
from exporter.window_sets import WindowSet, cut_windows

STEPS = st.lists(st.integers(1, 40), min_size=1, max_size=12)
RULES = st.builds(
    lambda slots, interval, gap, least: WindowRule(slots, interval, interval + gap, min(slots, least)),
    st.integers(1, 5), st.integers(1, 20), st.integers(0, 40), st.integers(1, 3),
)  # fmt: skip


def device(number: int, times: np.ndarray) -> Device:
    rng = np.random.default_rng(number)
    values = rng.normal(size=(times.size, 2)).astype(np.float32)
    values[rng.random(values.shape) < 0.2] = np.nan
    return Device(f"d{number}", f"c{number % 2}", times, values, rng.integers(-1, 2, times.size).astype(np.int8))


def fleet(steps: list[list[int]]) -> list[Device]:
    return [device(number, np.cumsum(own, dtype=np.int64)) for number, own in enumerate(steps)]


def held_whole(devices: list[Device], rule: WindowRule) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All windows of all devices in memory, with the device and the place of each: what a set must say on demand."""
    windows, numbers, places = [], [], []
    for number, one in enumerate(devices):
        indices = window_indices(one.timestamps_ms, rule)
        ready = np.flatnonzero(filled(indices) >= rule.minimum_readings)
        windows.append(gather(one.values, indices[ready]))
        numbers.append(np.full(ready.size, number))
        places.append(ready)
    return np.concatenate(windows), np.concatenate(numbers), np.concatenate(places)


@given(st.lists(STEPS, min_size=1, max_size=4), RULES, st.data())
def test_any_windows_taken_are_those_of_the_rule(steps: list[list[int]], rule: WindowRule, data: st.DataObject) -> None:
    devices = fleet(steps)
    windows, numbers, places = held_whole(devices, rule)
    cut = cut_windows(devices, rule)
    assert len(cut) == len(windows)
    chosen = np.array(data.draw(st.lists(st.integers(0, len(cut) - 1))) if len(cut) else [], np.int64)
    taken = cut.take(chosen)
    np.testing.assert_array_equal(taken.windows(), windows[chosen])
    np.testing.assert_array_equal(taken.device, numbers[chosen])
    np.testing.assert_array_equal(taken.newest, windows[chosen][:, -1])
    for name in ("timestamps_ms", "labels"):
        expected = [getattr(devices[n], name)[p] for n, p in zip(numbers[chosen], places[chosen], strict=True)]
        assert getattr(taken, name).tolist() == expected


@given(st.lists(STEPS, min_size=1, max_size=4), RULES, st.data())
def test_devices_alone_have_the_same_windows(steps: list[list[int]], rule: WindowRule, data: st.DataObject) -> None:
    cut = cut_windows(fleet(steps), rule)
    wanted = data.draw(st.lists(st.integers(0, len(steps) - 1), unique=True))
    some = cut.of_devices(wanted)
    assert set(some.device.tolist()) <= set(wanted)
    alone = pickle.loads(pickle.dumps(some.alone()))  # as it goes to another process
    np.testing.assert_array_equal(alone.windows(), some.windows())
    np.testing.assert_array_equal(alone.watched_ms, some.watched_ms)
    names = np.array(some.devices)[some.device].tolist()
    assert np.array(alone.devices, str)[alone.device].tolist() == names
    assert set(alone.devices) == set(names) or not names


@given(st.lists(STEPS, min_size=1, max_size=3), RULES)
def test_the_newest_readings_alone(steps: list[list[int]], rule: WindowRule) -> None:
    cut = cut_windows(fleet(steps), rule)
    np.testing.assert_array_equal(cut.newest_only().windows(), cut.windows()[:, -1:])
    assert len(cut.newest_only()) == len(cut)


@pytest.fixture
def large() -> WindowSet:
    devices = [device(number, np.arange(1, 400, dtype=np.int64) * 10) for number in range(5)]
    return cut_windows(devices, WindowRule(6, 10, 60, 1))


def test_a_window_costs_one_number(large: WindowSet) -> None:
    held = sum(getattr(large, name).nbytes for name in ("starts", "rows"))
    assert held < 5 * len(large)
    assert large.take(np.ones(len(large), bool)).readings is large.readings


def test_windows_far_apart_are_cut_from_stretches_of_their_own(large: WindowSet) -> None:
    for chosen in ([0, 398], [398, 0, 3, 1_900, 1_600, 2], [200]):
        np.testing.assert_array_equal(large.take(np.array(chosen)).windows(), large.windows()[chosen])


def test_threads_change_no_bit(large: WindowSet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "BLOCK_VALUES", 12 * 17)
    model = feature_model(plan_features(("last", "mean", "std"), signals="ab", context=(), slots=6), None)
    one, three = (large.run(Graph(model, threads=threads), ["features"])[0] for threads in (1, 3))
    assert len(list(large.blocks())) > 100
    assert one.tobytes() == three.tobytes()
    assert one.tobytes() == Graph(model, threads=1).run(large.windows(), ["features"])[0].tobytes()
    assert Graph(model).run(large.windows()[:0], ["features"])[0].shape == (0, 6)


def test_no_more_blocks_at_once_than_threads(large: WindowSet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "BLOCK_VALUES", 12 * 17)
    model = feature_model(plan_features(("last",), signals="ab", context=(), slots=6), None)
    threads = set()

    def make(rows: slice) -> np.ndarray:
        threads.add(threading.get_ident())
        return large.windows()[rows]

    Graph(model, threads=2).run_blocks(make, len(large), ["features"], values_a_row=12)
    assert 1 < len(threads) <= 3  # the caller makes the first block itself


def test_what_a_thread_raises_reaches_the_caller(large: WindowSet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "BLOCK_VALUES", 12 * 17)
    model = feature_model(plan_features(("last",), signals="ab", context=(), slots=6), None)

    def make(rows: slice) -> np.ndarray:
        if rows.start > 1000:
            raise MemoryError
        return large.windows()[rows]

    with pytest.raises(MemoryError):
        Graph(model, threads=2).run_blocks(make, len(large), ["features"], values_a_row=12)


@given(st.integers(0, 1000), st.integers(1, 400_000))
def test_blocks_are_all_rows_in_order(count: int, values: int) -> None:
    blocks = block_slices(count, values)
    assert [row for block in blocks for row in range(count)[block]] == list(range(count))
    assert all((block.stop - block.start) * values <= max(values, running.BLOCK_VALUES) for block in blocks)

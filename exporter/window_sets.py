"""All windows of many devices, kept as one number each: a window is cut and gathered when it is needed, in blocks.

A million windows of 24 readings x 25 signals would be 2.4 GB, and the rows that they are made of 192 MB; the row of
the newest reading is 4 MB, and ``edge_runtime.windows``, the function that devices use, makes the rest of it.
The readings stay where the fleet holds them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from edge_runtime.contract.window import WindowRule
from edge_runtime.windows import filled, window_indices, windows_of
from exporter.config import WindowSpec
from exporter.dataset import Device
from exporter.errors import SpecError
from exporter.graph.running import Graph, block_slices

# Without two readings of one device there is no step to take a median of: an hour, as good as any.
LONE_READING_INTERVAL_MS = 3_600_000
# Windows this many times their own length apart are cut each from its own stretch of readings: what lies between would
# cost more than another stretch.
FAR_APART = 20
Rows = npt.NDArray[np.int32] | npt.NDArray[np.int64]
T = TypeVar("T", bound=np.generic)


@dataclass(frozen=True, slots=True, eq=False)
class _Seen:
    """Stretches of readings, one after the other.

    Attributes:
        stretches: Of which device, from which reading to which.
        rows: (m,) int64, where among them some windows end.
        starts: (stretches,) int64, where each begins.
    """

    stretches: tuple[tuple[Device, slice], ...]
    rows: npt.NDArray[np.int64]
    starts: npt.NDArray[np.int64]

    def times(self) -> npt.NDArray[np.int64]:
        return np.concatenate([device.timestamps_ms[part] for device, part in self.stretches])

    def values(self) -> npt.NDArray[np.float32]:
        return np.concatenate([device.values[part] for device, part in self.stretches])


@dataclass(frozen=True, slots=True, eq=False)
class WindowSet:
    """Windows of several devices, ordered by device and time; m windows over n readings.

    Attributes:
        readings: The devices, in the order that gives them their numbers.
        starts: (devices + 1,) int64, how many readings the devices before each have: a row is a reading's number among
            those of all devices.
        rows: (m,) int32, or int64 beyond two billion readings: the row of each window's newest reading, which tells how
            far apart two windows of a device are.
        rule: The window rule.
    """

    readings: tuple[Device, ...]
    starts: npt.NDArray[np.int64]
    rows: Rows
    rule: WindowRule

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def shape(self) -> tuple[int, int]:
        """(W, S): slots and columns of a window."""
        return self.rule.slots, self.readings[0].values.shape[1]

    @property
    def devices(self) -> tuple[str, ...]:
        """Names by number."""
        return tuple(device.name for device in self.readings)

    @property
    def cohorts(self) -> tuple[str | None, ...]:
        """Cohort by device number."""
        return tuple(device.cohort for device in self.readings)

    @property
    def device(self) -> npt.NDArray[np.int64]:
        """(m,) int64, number of the window's device."""
        return np.searchsorted(self.starts, self.rows, side="right") - 1

    @property
    def timestamps_ms(self) -> npt.NDArray[np.int64]:
        """(m,) int64, time of the newest reading."""
        return self._of_newest(lambda device: device.timestamps_ms)

    @property
    def labels(self) -> npt.NDArray[np.int8]:
        """(m,) int8, label of the newest reading."""
        return self._of_newest(lambda device: device.labels)

    @property
    def watched_ms(self) -> npt.NDArray[np.int64]:
        """(m,) int64, the time that a window stands for.

        It is the time since the reading before, at most the largest gap; one interval for a device's first reading.
        """
        rule = self.rule
        return self._of_newest(
            lambda device: np.r_[
                np.int64(rule.interval_ms), np.minimum(np.diff(device.timestamps_ms), rule.largest_gap_ms)
            ]
        )

    @property
    def newest(self) -> npt.NDArray[np.float32]:
        """(m, S): the newest reading of each window."""
        return self.newest_of(slice(None))

    def newest_of(self, columns: slice) -> npt.NDArray[np.float32]:
        """Return some columns of the newest reading of each window, (m, columns) float32."""
        parts = [device.values[places, columns] for device, places in self._runs(self.rows)]
        return np.concatenate(parts) if parts else self.readings[0].values[:0, columns]

    def take(self, chosen: npt.NDArray[np.bool_] | npt.NDArray[np.int64]) -> WindowSet:
        """Return some of the windows, by mask or number, over the same readings."""
        return replace(self, rows=self.rows[chosen])

    def of_devices(self, numbers: npt.NDArray[np.int64] | Sequence[int]) -> WindowSet:
        """Return the windows of some devices, which keep their numbers."""
        wanted = np.zeros(len(self.readings), bool)
        wanted[np.asarray(numbers, np.int64)] = True
        return self.take(wanted[self.device])

    def alone(self) -> WindowSet:
        """Return the same windows without the devices that have none, numbered anew: what another process needs."""
        device = self.device
        present = (
            np.unique(device) if len(device) else np.zeros(1, np.int64)
        )  # one has to say how many columns there are
        readings = tuple(self.readings[number] for number in present.tolist())
        starts = _starts(readings)
        rows = self.rows - self.starts[device] + starts[np.searchsorted(present, device)]
        return WindowSet(readings, starts, _compact(rows), self.rule)

    def newest_only(self) -> WindowSet:
        """Return the same windows cut down to their newest reading."""
        return replace(self, rule=WindowRule(1, self.rule.interval_ms, self.rule.largest_gap_ms, 1))

    def sample(self, most: int, seed: int) -> WindowSet:
        """Return at most so many of the windows, drawn evenly over all of them and still in order."""
        if len(self) <= most:
            return self
        return self.take(np.sort(np.random.default_rng(seed).choice(len(self), most, replace=False)))

    def whole_devices(self, most: int, seed: int) -> WindowSet:
        """Return the windows of as many devices, drawn by chance, as have at most so many windows; one at least."""
        if len(self) <= most:
            return self
        numbers, counts = np.unique(self.device, return_counts=True)
        drawn = np.random.default_rng(seed).permutation(numbers.size)
        fitting = max(1, int(np.searchsorted(np.cumsum(counts[drawn]), most, side="right")))
        return self.of_devices(numbers[drawn[:fitting]])

    def windows(self) -> npt.NDArray[np.float32]:
        """Return all of them: (m, W, S) float32. For few windows only."""
        return self._gather(slice(0, len(self)))

    def blocks(self) -> Iterator[npt.NDArray[np.float32]]:
        """Yield all of them in order, in blocks of bounded size."""
        for rows in block_slices(len(self), self.shape[0] * self.shape[1]):
            yield self._gather(rows)

    def run(self, graph: Graph, outputs: Sequence[str]) -> list[npt.NDArray[Any]]:
        """Run a graph over all windows; returns each output for all m of them."""
        return graph.run_blocks(self._gather, len(self), outputs, values_a_row=self.shape[0] * self.shape[1])

    def filled(self) -> npt.NDArray[np.int64]:
        """Return how many slots of each window hold a reading: (m,) int64."""
        counts = []
        for block in block_slices(len(self), self.rule.slots):
            seen = self._seen(self.rows[block])
            counts.append(filled(window_indices(seen.times(), self.rule, rows=seen.rows, starts=seen.starts)))
        return np.concatenate(counts) if counts else np.empty(0, np.int64)

    def _gather(self, block: slice) -> npt.NDArray[np.float32]:
        """Return some of the windows: (m, W, S) float32."""
        rows = self.rows[block]
        if not len(rows):
            return np.empty((0, *self.shape), np.float32)
        seen = self._seen(rows)
        return windows_of(seen.values(), seen.times(), self.rule, rows=seen.rows, starts=seen.starts)

    def _seen(self, rows: Rows) -> _Seen:
        """Return the readings that the windows which end at some rows can see, and no more of a device than that."""
        stretches, wanted, starts, held = [], [], [], 0
        for device, places in self._runs(rows):
            far = np.flatnonzero(np.abs(np.diff(places)) > FAR_APART * self.rule.slots) + 1
            for part in np.split(places, far) if far.size else (places,):
                first, last = self._first_seen(device, int(part.min())), int(part.max()) + 1
                stretches.append((device, slice(first, last)))
                wanted.append(part - first + held)
                starts.append(held)
                held += last - first
        return _Seen(tuple(stretches), np.concatenate(wanted), np.array(starts))

    def _first_seen(self, device: Device, place: int) -> int:
        """Return the first reading of a device that the window of one of its readings could hold."""
        if place == 0:
            return 0
        times = device.timestamps_ms
        oldest_slot = int(times[place]) // self.rule.interval_ms - self.rule.slots + 1
        return int(np.searchsorted(times[: place + 1], oldest_slot * self.rule.interval_ms))

    def _runs(self, rows: Rows) -> Iterator[tuple[Device, npt.NDArray[np.int64]]]:
        """Yield each device of some rows in turn, with which of its readings they are."""
        numbers = np.searchsorted(self.starts, rows, side="right") - 1
        ends = np.r_[np.flatnonzero(np.diff(numbers)) + 1, len(rows)].tolist() if len(rows) else []
        start = 0
        for end in ends:
            number = int(numbers[start])
            yield self.readings[number], rows[start:end] - self.starts[number]
            start = end

    def _of_newest(self, of: Callable[[Device], npt.NDArray[T]]) -> npt.NDArray[T]:
        return np.concatenate([of(device) for device in self.readings])[self.rows]


def window_rule(spec: WindowSpec, devices: Sequence[Device]) -> WindowRule:
    """Return the window rule, with what ``model.toml`` leaves open taken from the data.

    The interval is the median step between readings of a device, the largest gap W intervals, and a verdict needs half
    of the slots (contract, Windows).

    Raises:
        SpecError: The largest gap is shorter than the interval.
    """
    steps = [np.diff(device.timestamps_ms) for device in devices if device.timestamps_ms.size > 1]
    if spec.interval_seconds is not None:
        interval = max(1, round(spec.interval_seconds * 1000))
    else:
        interval = int(np.median(np.concatenate(steps))) if steps else LONE_READING_INTERVAL_MS
    gap = spec.slots * interval if spec.largest_gap_seconds is None else round(spec.largest_gap_seconds * 1000)
    if gap < interval:
        raise SpecError(
            f"window.largest_gap_seconds is {gap / 1000:g}, shorter than the interval of {interval / 1000:g} s.",
            advice="Then no window would hold two readings: make it longer.",
        )
    least = max(1, spec.slots // 2) if spec.minimum_readings is None else spec.minimum_readings
    return WindowRule(spec.slots, interval, gap, least)


def cut_windows(devices: Sequence[Device], rule: WindowRule) -> WindowSet:
    """Return the windows of all readings that have enough of them behind: partial ones are in, as on a device.

    Args:
        devices: In the order that gives them their numbers. Their readings are not copied.
        rule: The window rule.
    """
    starts = _starts(devices)
    every = WindowSet(tuple(devices), starts, _compact(np.arange(starts[-1])), rule)
    if rule.minimum_readings <= 1:
        return every  # the newest slot of each is filled
    return every.take(every.filled() >= rule.minimum_readings)


def _starts(devices: Sequence[Device]) -> npt.NDArray[np.int64]:
    starts: npt.NDArray[np.int64] = np.r_[
        np.int64(0), np.cumsum([device.timestamps_ms.size for device in devices], dtype=np.int64)
    ]
    return starts


def _compact(rows: npt.NDArray[np.int64]) -> Rows:
    return rows.astype(np.int32) if rows.max(initial=0) <= np.iinfo(np.int32).max else rows

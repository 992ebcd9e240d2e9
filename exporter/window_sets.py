"""All windows of many devices, kept as row numbers: a window is gathered when it is needed, in blocks.

A million windows of 24 readings x 25 signals would be 2.4 GB; their row numbers are a tenth, and the readings are
there once. Windows come from ``edge_runtime.windows``, the function that devices use.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_runtime.contract.window import WindowRule
from edge_runtime.windows import filled, gather, window_indices
from exporter.config import WindowSpec
from exporter.dataset import Device
from exporter.errors import SpecError
from exporter.graph.running import BLOCK_VALUES, Graph

# Without two readings of one device there is no step to take a median of: an hour, as good as any.
LONE_READING_INTERVAL_MS = 3_600_000


@dataclass(frozen=True, slots=True, eq=False)
class WindowSet:
    """Windows of several devices, ordered by device and time; m windows over n readings.

    Attributes:
        values: (n, S) float32 readings of all devices.
        indices: (m, W) int64 rows of ``values``, oldest slot first, -1 for an empty slot.
        device: (m,) int64, number of the window's device.
        timestamps_ms: (m,) int64, time of the newest reading.
        labels: (m,) int8, label of the newest reading.
        watched_ms: (m,) int64, the time that a window stands for: since the reading before, at most the largest gap;
            one interval for a device's first reading.
        devices: Names by number.
        cohorts: Cohort by device number.
        rule: The window rule.
    """

    values: npt.NDArray[np.float32]
    indices: npt.NDArray[np.int64]
    device: npt.NDArray[np.int64]
    timestamps_ms: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int8]
    watched_ms: npt.NDArray[np.int64]
    devices: tuple[str, ...]
    cohorts: tuple[str | None, ...]
    rule: WindowRule

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def rows(self) -> npt.NDArray[np.int64]:
        """(m,): the row of each window's newest reading, which tells how far apart two windows of a device are."""
        return self.indices[:, -1]

    @property
    def newest(self) -> npt.NDArray[np.float32]:
        """(m, S): the newest reading of each window."""
        return self.values[self.rows]

    def take(self, chosen: npt.NDArray[np.bool_] | npt.NDArray[np.int64]) -> WindowSet:
        """Return some of the windows, by mask or number, over the same readings."""
        return WindowSet(
            self.values,
            self.indices[chosen],
            self.device[chosen],
            self.timestamps_ms[chosen],
            self.labels[chosen],
            self.watched_ms[chosen],
            self.devices,
            self.cohorts,
            self.rule,
        )

    def of_devices(self, numbers: npt.NDArray[np.int64] | Sequence[int]) -> WindowSet:
        """Return the windows of some devices."""
        return self.take(np.isin(self.device, numbers))

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
        return gather(self.values, self.indices)

    def blocks(self) -> Iterator[npt.NDArray[np.float32]]:
        """Yield all of them in order, in blocks of bounded size."""
        size = max(1, BLOCK_VALUES // max(1, self.indices.shape[1] * self.values.shape[1]))
        for start in range(0, len(self), size):
            yield gather(self.values, self.indices[start : start + size])

    def run(self, graph: Graph, outputs: Sequence[str]) -> list[npt.NDArray[np.generic]]:
        """Run a graph over all windows; returns each output for all m of them."""
        parts = [graph.run(block, outputs) for block in self.blocks()]
        if not parts:
            return graph.run(gather(self.values, self.indices), outputs)
        return [np.concatenate(values) for values in zip(*parts, strict=True)]


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
        devices: In the order that gives them their numbers.
        rule: The window rule.
    """
    first = 0
    indices, numbers, times, labels, watched = [], [], [], [], []
    for number, device in enumerate(devices):
        found = window_indices(device.timestamps_ms, rule)
        ready = filled(found) >= rule.minimum_readings
        indices.append(np.where(found[ready] >= 0, found[ready] + first, -1))
        numbers.append(np.full(int(ready.sum()), number, np.int64))
        times.append(device.timestamps_ms[ready])
        labels.append(device.labels[ready])
        steps = np.minimum(np.diff(device.timestamps_ms), rule.largest_gap_ms)
        watched.append(np.r_[np.int64(rule.interval_ms), steps][ready])
        first += device.timestamps_ms.size
    return WindowSet(
        values=np.concatenate([device.values for device in devices]),
        indices=np.concatenate(indices),
        device=np.concatenate(numbers),
        timestamps_ms=np.concatenate(times),
        labels=np.concatenate(labels),
        watched_ms=np.concatenate(watched),
        devices=tuple(device.name for device in devices),
        cohorts=tuple(device.cohort for device in devices),
        rule=rule,
    )

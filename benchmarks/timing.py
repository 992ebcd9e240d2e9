"""The timer: sides take turns in one run, each call gets rows of its own, and every repeat is kept.

Two things that timed apart see different machines (clock speed, neighbours, page cache); two things that take turns see
the same one. Rows that come again are found in caches and branch predictors, which no device's next reading is::

    timings = take_turns([Side("ours", score_ours, calls=200), Side("theirs", score_theirs)], repeats=20)
    timings["theirs"].median / timings["ours"].median
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

SideCall = Callable[[int], object]


@dataclass(frozen=True, slots=True)
class Side:
    """One of the things compared.

    Attributes:
        name: What the result calls it.
        call: Does the work; gets a number that never comes twice, to choose its rows by.
        calls: Calls per repeat: many for what takes microseconds, so that the clock's own cost vanishes.
        items: Rows or windows that one call works on.
    """

    name: str
    call: SideCall
    calls: int = 1
    items: int = 1


@dataclass(frozen=True, slots=True)
class Timing:
    """What was measured of one side.

    Attributes:
        name: The side.
        items: Rows or windows per call.
        calls: Calls per repeat.
        seconds: Mean seconds of a call, one figure for every repeat, in order.
        cpu_seconds: The same in processor time of this process, which neighbours on the machine change little; empty
            where another process did the work.
    """

    name: str
    items: int
    calls: int
    seconds: tuple[float, ...]
    cpu_seconds: tuple[float, ...] = ()

    @property
    def median(self) -> float:
        """Seconds per call, median of the repeats."""
        return statistics.median(self.seconds)

    @property
    def per_item(self) -> float:
        """Seconds per row or window, median of the repeats."""
        return self.median / self.items

    def to_dict(self) -> dict[str, object]:
        """Return it JSON-ready, every repeat included."""
        return {
            "name": self.name,
            "items_per_call": self.items,
            "calls_per_repeat": self.calls,
            "median_seconds_per_call": self.median,
            "fastest_seconds_per_call": min(self.seconds),
            "slowest_seconds_per_call": max(self.seconds),
            "median_cpu_seconds_per_call": statistics.median(self.cpu_seconds) if self.cpu_seconds else None,
            "repeats": list(self.seconds),
            "cpu_repeats": list(self.cpu_seconds),
        }


def take_turns(sides: Sequence[Side], *, repeats: int, warmups: int = 1) -> dict[str, Timing]:
    """Time the sides in turn, in the opposite order every other time.

    Args:
        sides: What to compare; names differ.
        repeats: Timed repeats of each side.
        warmups: Untimed repeats of each side before.

    Returns:
        Timings by name.

    Raises:
        ValueError: There is nothing to time.
    """
    if not sides or repeats < 1 or len({side.name for side in sides}) != len(sides):
        raise ValueError("needs sides of different names and at least one repeat")
    number = 0
    taken: dict[str, list[tuple[float, float]]] = {side.name: [] for side in sides}
    was_enabled = gc.isenabled()
    gc.collect()
    gc.freeze()  # what is there already is not looked through again: collecting between repeats stays cheap
    gc.disable()  # a collection in the middle would be charged to whoever is at it
    try:
        for repeat in range(-warmups, repeats):
            for side in sides if repeat % 2 == 0 else reversed(sides):
                pair = _time(side, number)
                number += side.calls
                if repeat >= 0:
                    taken[side.name].append(pair)
            gc.collect()
    finally:
        gc.unfreeze()
        if was_enabled:
            gc.enable()
    return {
        side.name: Timing(side.name, side.items, side.calls, *zip(*taken[side.name], strict=True)) for side in sides
    }


def _time(side: Side, number: int) -> tuple[float, float]:
    """Return wall-clock and processor seconds of a call."""
    call = side.call
    cpu, start = time.process_time(), time.perf_counter()
    for k in range(number, number + side.calls):
        call(k)
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu
    return seconds / side.calls, cpu_seconds / side.calls

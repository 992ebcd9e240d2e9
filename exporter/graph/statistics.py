"""Statistics over the slots of a window as ONNX nodes, blind to missing values, in float64.

Every tensor that two statistics need (which values are missing, how many there are, their mean) is made once. A
statistic of no data is NaN::

    slots = Slots(graph, values, signals=5, slots=12)      # values: [batch, 12, 5] double
    means = slots.statistic("mean")                        # [batch, 5] double
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import numpy as np

from exporter.graph.nodes import GraphBuilder

# What each of them says, for the card and `exporter init`.
STATISTICS = {
    "last": "the newest value",
    "mean": "the mean",
    "std": "the population standard deviation",
    "min": "the smallest value",
    "max": "the largest value",
    "range": "the largest minus the smallest value",
    "slope": "the least-squares slope, per interval",
    "delta": "the newest minus the oldest value",
}
_SLOT_AXIS = 1


class Slots:
    """The last slots of a window, with each statistic as a method that adds what is not there yet.

    Args:
        graph: Where to add nodes.
        values: Name of a [batch, slots, signals] double tensor, NaN = missing.
        slots: Its number of slots.
    """

    def __init__(self, graph: GraphBuilder, values: str, *, slots: int) -> None:
        self._graph = graph
        self._values = values
        self._slots = slots
        self._axes = graph.constant(np.array([_SLOT_AXIS], np.int64))
        self._zero = graph.constant(np.float64(0))
        self._nan = graph.constant(np.float64(np.nan))

    def statistic(self, name: str) -> str:
        """Add a statistic, one of ``STATISTICS``; returns the name of its [batch, signals] double tensor."""
        makers: dict[str, Callable[[], str]] = {
            "last": lambda: self._last,
            "mean": lambda: self._flat(self._mean),
            "std": self._std,
            "min": lambda: self._smallest,
            "max": lambda: self._largest,
            "range": lambda: self._graph.add("Sub", self._largest, self._smallest),
            "slope": self._slope,
            "delta": self._delta,
        }
        return makers[name]()

    def flattened(self) -> str:
        """Add the values themselves, oldest slot first: the name of a [batch, slots * signals] double tensor."""
        return self._graph.add("Flatten", self._values, axis=1)

    @cached_property
    def missing(self) -> str:
        """[batch, slots, signals] bool: which values are missing."""
        return self._graph.add("IsNaN", self._values)

    @cached_property
    def present(self) -> str:
        """[batch, slots, signals] double: 1 where there is a value, else 0."""
        one = self._graph.constant(np.float64(1))
        return self._graph.add("Where", self.missing, self._zero, one)

    @cached_property
    def count(self) -> str:
        """[batch, 1, signals] double: how many values there are."""
        return self._sum(self.present)

    @cached_property
    def _mean(self) -> str:
        total = self._sum(self._graph.add("Where", self.missing, self._zero, self._values))
        return self._graph.add("Div", total, self.count)  # 0 / 0 is NaN: a mean of no data

    @cached_property
    def _deviations(self) -> str:
        deviations = self._graph.add("Sub", self._values, self._mean)
        return self._graph.add("Where", self.missing, self._zero, deviations)

    @cached_property
    def _last(self) -> str:
        return self._first_by(np.arange(1, self._slots + 1))

    @cached_property
    def _smallest(self) -> str:
        return self._extreme("ReduceMin", np.inf)

    @cached_property
    def _largest(self) -> str:
        return self._extreme("ReduceMax", -np.inf)

    def _std(self) -> str:
        squares = self._graph.add("ReduceSumSquare", self._deviations, self._axes, keepdims=1)
        return self._flat(self._graph.add("Sqrt", self._graph.add("Div", squares, self.count)))

    def _slope(self) -> str:
        """Cov(t, x) / var(t) over the slots that hold a value; one value alone gives 0 / 0 = NaN."""
        add = self._graph.add
        times = self._graph.constant(np.arange(self._slots, dtype=np.float64).reshape(1, -1, 1))
        present_times = add("Mul", self.present, times)
        centred = add("Sub", times, add("Div", self._sum(present_times), self.count))
        along = self._sum(add("Mul", centred, self._deviations))
        spread = self._sum(add("Mul", add("Mul", centred, centred), self.present))
        return self._flat(add("Div", along, spread))

    def _delta(self) -> str:
        add = self._graph.add
        change = add("Sub", self._last, self._first_by(np.arange(self._slots, 0, -1)))
        several = add("Greater", self._flat(self.count), self._graph.constant(np.float64(1)))
        return add("Where", several, change, self._nan)

    def _first_by(self, ranks: np.ndarray) -> str:
        """The value that is there and ranks highest; where none is there, one that is missing."""
        add = self._graph.add
        rank = self._graph.constant(ranks.astype(np.float64).reshape(1, -1, 1))
        best = add("ArgMax", add("Where", self.missing, self._zero, rank), axis=_SLOT_AXIS, keepdims=1)
        return self._flat(add("GatherElements", self._values, best, axis=_SLOT_AXIS))

    def _extreme(self, operator: str, neutral: float) -> str:
        filled = self._graph.add("Where", self.missing, self._graph.constant(np.float64(neutral)), self._values)
        found = self._graph.add(operator, filled, self._axes, keepdims=0)
        nothing = self._graph.add("Equal", self._flat(self.count), self._zero)
        return self._graph.add("Where", nothing, self._nan, found)

    def _sum(self, values: str) -> str:
        return self._graph.add("ReduceSum", values, self._axes, keepdims=1)

    def _flat(self, values: str) -> str:
        """[batch, 1, signals] to [batch, signals]."""
        return self._graph.add("Squeeze", values, self._axes)

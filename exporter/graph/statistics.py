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
import onnx

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
        # Where costs onnxruntime four times as much as Cast or Mul, so it is used once.
        return self._graph.add("Cast", self._graph.add("Not", self.missing), to=onnx.TensorProto.DOUBLE)

    @cached_property
    def count(self) -> str:
        """[batch, 1, signals] double: how many values there are."""
        # Of zeros and ones the sum of squares, which onnxruntime makes three times as fast over few signals.
        return self._graph.add("ReduceSumSquare", self.present, self._axes, keepdims=1)

    @cached_property
    def _held(self) -> str:
        """[batch, slots, signals] double: the values, 0 where one is missing."""
        return self._graph.add("Where", self.missing, self._zero, self._values)

    @cached_property
    def _mean(self) -> str:
        return self._graph.add("Div", self._sum(self._held), self.count)  # 0 / 0 is NaN: a mean of no data

    @cached_property
    def _deviations(self) -> str:
        """[batch, slots, signals] double: the values minus their mean, 0 where one is missing; NaN where all are."""
        return self._graph.add("Mul", self._graph.add("Sub", self._held, self._mean), self.present)

    @cached_property
    def _last(self) -> str:
        return self._there(newest=True)

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
        change = add("Sub", self._last, self._there(newest=False))
        several = add("Greater", self._flat(self.count), self._graph.constant(np.float64(1)))
        return add("Where", several, change, self._nan)

    def _there(self, *, newest: bool) -> str:
        """The newest or the oldest value that is there; where none is, one that is missing."""
        add = self._graph.add
        place = add("ArgMax", self.present, axis=_SLOT_AXIS, keepdims=1, select_last_index=int(newest))
        return self._flat(add("GatherElements", self._values, place, axis=_SLOT_AXIS))

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

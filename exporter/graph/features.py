"""From a window of raw readings to features: context to regimes, residuals, statistics.

This graph is the only implementation of the features: training runs it in blocks (``feature_model``), and the shipped
graph contains the same nodes. All is float64 inside and each feature is cast to float32 once, so that a window has
the same features alone and in a block.

With context signals each reading is placed in the nearest of K regimes (squared distance in training spreads), and
every other signal becomes its residual against the healthy mean and spread of that regime. A reading whose context is
missing counts as missing. The distance of the newest reading's context to its regime is a feature of its own, so that
a regime never seen in training shows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from edge_runtime.contract.manifest import Regimes
from exporter.errors import SpecError, did_you_mean
from exporter.graph.nodes import GraphBuilder, tensor_info
from exporter.graph.statistics import STATISTICS, Slots

REGIME_DISTANCE = "regime_distance"
MISSING_SHARE = "missing_share"
# Not a statistic but the window itself: every slot of every signal is a feature, as networks want it.
SLOTS = "slots"


@dataclass(frozen=True, slots=True)
class Statistic:
    """A statistic over the last slots of the window.

    Attributes:
        name: One of ``STATISTICS``, or ``slots`` for the values themselves.
        slots: How many of the newest slots it sees.
    """

    name: str
    slots: int

    def labels(self, window_slots: int) -> tuple[str, ...]:
        """Return what it calls its features of one signal; ``ago_3`` is the value three slots before the newest."""
        if self.name == SLOTS:
            return tuple(f"ago_{age}" for age in reversed(range(self.slots)))
        return (self.name if self.slots == window_slots else f"{self.name}_{self.slots}",)


@dataclass(frozen=True, slots=True)
class FeaturePlan:
    """Which features a window gets.

    Attributes:
        signals: Columns that are judged, the first of the window.
        context: Columns after them that are context.
        slots: W.
        statistics: Taken of every signal.
        shares: Signals whose share of missing values is a feature.
    """

    signals: tuple[str, ...]
    context: tuple[str, ...]
    slots: int
    statistics: tuple[Statistic, ...]
    shares: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the features, in the order of the graph's output."""
        names = [
            f"{signal}.{label}"
            for item in self.statistics
            for label in item.labels(self.slots)
            for signal in self.signals
        ]
        names += [REGIME_DISTANCE] if self.context else []
        return (*names, *(f"{signal}.{MISSING_SHARE}" for signal in self.shares))

    @property
    def columns(self) -> int:
        """S, the columns of a window."""
        return len(self.signals) + len(self.context)


def plan_features(
    statistics: Sequence[str],
    *,
    signals: Sequence[str],
    context: Sequence[str],
    slots: int,
    shares: Sequence[str] = (),
) -> FeaturePlan:
    """Read the statistics of ``model.toml``.

    Args:
        statistics: Such as ``mean``, or ``mean:6`` for the newest 6 slots; ``slots`` for every value of the window.
        signals: Columns that are judged.
        context: Columns that are context.
        slots: W. With one slot every statistic but ``last`` would say the same or nothing, so only that one is made.
        shares: Signals whose share of missing values is a feature; ignored when W = 1.

    Returns:
        The plan, each statistic once.

    Raises:
        SpecError: An unknown statistic, or one over more slots than there are.
    """
    if slots == 1:
        return FeaturePlan(tuple(signals), tuple(context), 1, (Statistic("last", 1),))
    parsed = dict.fromkeys(_statistic(text, slots) for text in statistics)
    return FeaturePlan(tuple(signals), tuple(context), slots, tuple(parsed), tuple(shares))


def add_features(
    graph: GraphBuilder, plan: FeaturePlan, regimes: Regimes | None, window: str, *, regime_name: str = "regime"
) -> str:
    """Add the feature graph.

    Args:
        graph: Where to add.
        plan: Which features.
        regimes: What is normal in which context; None without context.
        window: Name of the [batch, W, S] float32 input.
        regime_name: Name of the [batch, W] int64 output, made with context only: the regime of each slot, 0 where
            its context is missing.

    Returns:
        Name of the features: [batch, F] float32.
    """
    raw = graph.add("Cast", window, to=onnx.TensorProto.DOUBLE)
    parts: list[str] = []
    values = raw
    if regimes is not None:
        raw, context = graph.split(raw, [len(plan.signals), len(plan.context)], axis=2)
        values, distance = _residuals(graph, regimes, raw, context, regime_name)
        newest = graph.constant(np.array([plan.slots - 1], np.int64))
        parts.append(graph.add("Squeeze", graph.add("Gather", distance, newest, axis=1), _axes(graph, 1)))
    views = {
        count: _view(graph, values, plan.slots, count)
        for count in dict.fromkeys(item.slots for item in plan.statistics)
    }
    parts = [_statistic_of(views[item.slots], item.name) for item in plan.statistics] + parts
    if plan.shares:
        parts.append(_missing_shares(graph, plan, raw))
    joined = parts[0] if len(parts) == 1 else graph.add("Concat", *parts, axis=1)
    return graph.add("Cast", joined, to=onnx.TensorProto.FLOAT, name="features")


def feature_model(plan: FeaturePlan, regimes: Regimes | None) -> onnx.ModelProto:
    """Return the feature graph alone, as training runs it: ``window`` to ``features`` (and ``regime``)."""
    graph = GraphBuilder()
    add_features(graph, plan, regimes, "window")
    outputs = [tensor_info("features", np.float32, ("batch", len(plan.names)))]
    if regimes is not None:
        outputs.append(tensor_info("regime", np.int64, ("batch", plan.slots)))
    return graph.model("features", [window_info(plan)], outputs)


def window_info(plan: FeaturePlan) -> onnx.ValueInfoProto:
    """Return the description of the input ``window``."""
    return tensor_info("window", np.float32, ("batch", plan.slots, plan.columns))


def _statistic(text: str, slots: int) -> Statistic:
    name, _, count = text.partition(":")
    known = (*STATISTICS, SLOTS)
    if name not in known:
        raise SpecError(f"features.statistics: {name!r} is no statistic.", advice=did_you_mean(name, known))
    if not count:
        return Statistic(name, slots)
    if not count.isdecimal() or not 1 <= int(count) <= slots:
        raise SpecError(f"features.statistics: {text!r} must name 1 to {slots} slots.", advice="Or widen window.slots.")
    return Statistic(name, int(count))


def _residuals(graph: GraphBuilder, regimes: Regimes, signals: str, context: str, regime_name: str) -> tuple[str, str]:
    """Return the residuals [batch, W, P] and the distance to the nearest regime [batch, W, 1], both double."""
    add, constant = graph.add, graph.constant
    means, spreads = np.array(regimes.context_means), np.array(regimes.context_spreads)
    # (x - mean) / spread - centroid is (x - place) / spread with the centroid's place in the signal's own unit.
    places = means + spreads * np.array(regimes.centroids)
    apart = add("Div", add("Sub", add("Unsqueeze", context, _axes(graph, 2)), constant(places)), constant(spreads))
    squares = add("ReduceSumSquare", apart, _axes(graph, 3), keepdims=0)
    unknown = add("IsNaN", squares)
    # NaN has no order: without this the regime of a missing context would depend on the runtime.
    ordered = add("Where", unknown, constant(np.float64(0)), squares)
    regime = add("ArgMin", ordered, axis=2, keepdims=0, name=regime_name)
    nearest = add("ReduceMin", squares, _axes(graph, 2), keepdims=1)
    centre = add("Gather", constant(np.array(regimes.means)), regime, axis=0)
    spread = add("Gather", constant(np.array(regimes.spreads)), regime, axis=0)
    residual = add("Div", add("Sub", signals, centre), spread)
    # A reading of unknown context is missing: NaN * 0 is NaN, and every other distance adds 0.
    nothing = add("Mul", nearest, constant(np.float64(0)))
    return add("Add", residual, nothing), add("Sqrt", nearest)


def _statistic_of(view: Slots, name: str) -> str:
    return view.flattened() if name == SLOTS else view.statistic(name)


def _view(graph: GraphBuilder, values: str, slots: int, count: int) -> Slots:
    if count < slots:
        bounds = (graph.constant(np.array([number], np.int64)) for number in (slots - count, slots, 1))
        values = graph.add("Slice", values, *bounds)
    return Slots(graph, values, slots=count)


def _missing_shares(graph: GraphBuilder, plan: FeaturePlan, raw: str) -> str:
    """Return the share of the filled slots in which a signal is missing: [batch, shares] double."""
    add = graph.add
    view = Slots(graph, raw, slots=plan.slots)
    filled = add("ReduceSum", add("ReduceMax", view.present, _axes(graph, 2), keepdims=1), _axes(graph, 1), keepdims=1)
    columns = graph.constant(np.array([plan.signals.index(name) for name in plan.shares], np.int64))
    held = add("Div", add("Gather", view.count, columns, axis=2), filled)
    return add("Squeeze", add("Sub", graph.constant(np.float64(1)), held), _axes(graph, 1))


def _axes(graph: GraphBuilder, axis: int) -> str:
    return graph.constant(np.array([axis], np.int64))

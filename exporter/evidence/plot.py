"""Quality against cost on the device, one point per specification."""

from __future__ import annotations

import io
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter

from exporter.evidence.ranking import Comparison
from exporter.files import write_bytes

# Points between the smallest and the largest marker, by bytes of the graph.
_LEAST_AREA, _MOST_AREA = 30.0, 400.0
# A date inside would make two runs of one comparison differ.
_NO_DATE = {"svg": {"Date": None}, "png": {}}


def write_plot(comparison: Comparison, path: Path) -> None:
    """Draw the comparison: time of one window along, AUC up, size of the graph as the size of the mark.

    Args:
        comparison: What to draw.
        path: ``.png`` or ``.svg``.

    Raises:
        StorageError: The file cannot be written.
    """
    figure = Figure(figsize=(9, 6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    points = [
        (trial, cost) for trial, cost in zip(comparison.trials, comparison.costs, strict=True) if cost is not None
    ]
    largest = max(cost.bytes_deflated for _, cost in points)
    for kind in dict.fromkeys(trial.spec.detector.kind for trial, _ in points):
        own = [(trial, cost) for trial, cost in points if trial.spec.detector.kind == kind]
        axes.scatter(
            [cost.window_us[1] for _, cost in own],
            [trial.quality for trial, _ in own],
            s=[_LEAST_AREA + (_MOST_AREA - _LEAST_AREA) * cost.bytes_deflated / largest for _, cost in own],
            alpha=0.6,
            label=kind,
        )
    _number(comparison, axes)
    axes.set_xscale("log")
    for set_formatter in (axes.xaxis.set_major_formatter, axes.xaxis.set_minor_formatter):
        set_formatter(StrMethodFormatter("{x:g}"))
    axes.set_xlabel("one window, microseconds on one thread")
    axes.set_ylabel("AUC on labels" if comparison.by == "labels" else "AUC on injected faults")
    axes.set_title(f"1: {comparison.winner.name}\nA larger mark is a larger graph, at most {largest / 1000:,.0f} kB")
    axes.grid(alpha=0.3)
    axes.legend(loc="best", markerscale=0.5)
    content = io.BytesIO()
    kind = path.suffix.lstrip(".").lower()
    figure.savefig(content, format=kind, dpi=120, metadata=_NO_DATE[kind])
    write_bytes(path, content.getvalue())


def _number(comparison: Comparison, axes: Axes) -> None:
    """Write each specification's rank beside its mark, as the table has it; names would lie on each other."""
    for rank, (trial, cost) in enumerate(zip(comparison.trials, comparison.costs, strict=True), 1):
        if cost is not None:
            axes.annotate(
                str(rank),
                (cost.window_us[1], trial.quality),
                xytext=(7, 5),
                textcoords="offset points",
                fontsize="small",
            )

"""The plots of the model card as inline SVG: small, the same bytes every time, light and dark with the page.

matplotlib draws them without a display. What it would make different from run to run (ids, dates) is fixed or taken
out, and its colours become names that the page's style sheet gives a value.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Inches: as wide as a phone at 72 points an inch, so that text is readable there and larger on a desk.
_SIZE = (4.0, 2.8)
# matplotlib wants colours, the page has names for them: each of these stands for one name and for nothing else.
_NAMES = {"#010101": "--text", "#020202": "--soft", "#030303": "--line", "#040404": "--bad"}
_TEXT, _SOFT, _LINE, _BAD = _NAMES
_SERIES = {
    "healthy, in training": "#050505",
    "healthy, held out": "#060606",
    "faulty, held out": "#070707",
    "unlabelled, held out": "#080808",
}
_NAMES |= {"#050505": "--soft", "#060606": "--first", "#070707": "--second", "#080808": "--third"}
_STYLE: Any = {
    "svg.fonttype": "none",  # text stays text: smaller, and it can be read aloud and searched
    "font.family": ["sans-serif"],
    "font.size": 8.5,
    "text.parse_math": False,
    "text.color": _TEXT,
    "axes.edgecolor": _SOFT,
    "axes.labelcolor": _TEXT,
    "axes.axisbelow": True,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "xtick.color": _SOFT,
    "ytick.color": _SOFT,
    "grid.color": _LINE,
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "path.simplify": False,
}


def score_plot(data: Mapping[str, Any], threshold: float) -> str:
    """Draw how raw scores are spread, by group, with the threshold.

    Args:
        data: ``scores`` of the card's data.
        threshold: The raw score from which on a window is an anomaly.

    Returns:
        One ``<svg>`` element.
    """

    def draw(axes: Axes) -> None:
        edges = np.asarray(data["edges"], np.float64)
        for name in (name for name in _SERIES if name in data["groups"]):
            counts = data["groups"][name]
            shares = np.asarray(counts, np.float64) / max(1, sum(counts))
            training = name == "healthy, in training"
            style = {"fill": False, "linestyle": "--"} if training else {"fill": True, "alpha": 0.55}
            axes.stairs(shares * 100, edges, color=_SERIES[name], label=name, **style)
        axes.axvline(threshold, color=_BAD, linewidth=1.5, label="threshold")
        axes.set(xlabel="raw score", ylabel="% of the group's windows", ylim=(0, None))
        axes.grid(axis="y")

    return _svg("scores", draw)


def fidelity_plot(trained: list[float], graph: list[float], threshold: float) -> str:
    """Draw the raw score of the trained model against that of the graph, a point a window.

    Args:
        trained: Raw scores of the trained model.
        graph: Raw scores of the graph for the same windows.
        threshold: The raw score from which on a window is an anomaly.

    Returns:
        One ``<svg>`` element.
    """

    def draw(axes: Axes) -> None:
        low, high = min(*trained, *graph, threshold), max(*trained, *graph, threshold)
        axes.plot([low, high], [low, high], color=_SOFT, linewidth=1, label="equal")
        axes.axvline(threshold, color=_BAD, linewidth=1, linestyle=":")
        axes.axhline(threshold, color=_BAD, linewidth=1, linestyle=":", label="threshold")
        axes.plot(trained, graph, "o", color="#060606", markersize=3, alpha=0.7, markeredgewidth=0, label="a window")
        axes.set(xlabel="raw score of the trained model", ylabel="raw score of the graph")
        axes.grid()

    return _svg("fidelity", draw)


def _svg(name: str, draw: Callable[[Axes], None]) -> str:
    """Return one plot as an element of a page."""
    # The salt makes ids that depend on the plot alone, and differ from those of the page's other plots.
    with mpl.rc_context({**_STYLE, "svg.hashsalt": name}):
        figure = Figure(figsize=_SIZE, layout="constrained")
        FigureCanvasSVG(figure)
        draw(figure.add_subplot())
        figure.legend(loc="outside upper left", ncols=3, fontsize=8)  # where it hides no data
        stream = io.StringIO()
        figure.savefig(stream, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    return _slimmed(stream.getvalue())


def _slimmed(text: str) -> str:
    """Take out what a page does not need: the XML head, ids that nothing refers to, digits below a pixel."""
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'<g id="[^"]*"', "<g", text)
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r"; font-family: [^;\"]*", "", text)  # the page's own
    text = re.sub(r"(\d+\.\d\d)\d+", r"\1", text)
    for colour, role in _NAMES.items():
        text = text.replace(colour, f"var({role})")
    return re.sub(r"\s*\n\s*", "\n", text).strip()

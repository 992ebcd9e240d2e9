"""What the gates found over time, as plots: the devices that are in against those that are not, and the limit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sync_server.dashboard.plots import Plot, plot, series

GATES = {
    "failures": ("Devices that cannot activate it", "share"),
    "anomalies": ("Share of anomalous windows", "share"),
    "scores": ("Stability index of the score distribution", "linear"),
    "latency": ("Time to score a window", "linear"),
    "silent": ("Devices gone silent", "share"),
}
_UNITS = {"latency": "us"}
# A control that is a limit of its own: no group of devices, but a share that is tolerated.
_CONTROLS = {"control": "outside", "own_week": "half of the devices", "limit": "tolerated"}


@dataclass(frozen=True, slots=True)
class GatePlot:
    """One gate's figures over the looks of a rollout.

    Attributes:
        gate: Its name.
        title: In words.
        spec: The plot.
        newest: The newest finding.
    """

    gate: str
    title: str
    spec: Plot
    newest: Mapping[str, Any]


def gate_plots(looks: Sequence[Mapping[str, Any]], steps: Sequence[Mapping[str, Any]]) -> list[GatePlot]:
    """Return a plot for each gate that ever looked.

    Args:
        looks: Oldest first, with ``at`` and ``gates``, the findings.
        steps: Changes of the rollout, with ``at`` and ``share``; they become marks.
    """
    marks = [(_ms(step["at"]), f"{step['share'] / 100:g} %") for step in steps]
    found = []
    for gate, (title, scale) in GATES.items():
        points = [(look, finding) for look in looks for finding in look["gates"] if finding["gate"] == gate]
        if points:
            found.append(_gate_plot(gate, title, "share" if scale == "share" else "linear", points, marks))
    return found


def _gate_plot(
    gate: str,
    title: str,
    scale: Literal["share", "linear"],
    points: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]],
    marks: Sequence[tuple[int, str]],
) -> GatePlot:
    newest = points[-1][1]
    # Figures of another comparison have another unit: an own-week vote is no share of windows.
    alike = [(look, finding) for look, finding in points if finding["against"] == newest["against"]]
    votes = newest["against"] == "own_week"
    drawn = [
        series("in the rollout", [finding["treated"] for _, finding in alike], style="line"),
        series(_CONTROLS[newest["against"]], [finding["control"] for _, finding in alike], ink="second", style="line"),
    ]
    if gate == "scores" and not votes:  # the index is one figure of both groups
        drawn = [
            series("between the groups", [finding["treated"] for _, finding in alike], style="line"),
            series("limit", [finding["limit"] for _, finding in alike], ink="limit", style="limit"),
        ]
    spec = plot(
        [_ms(look["at"]) for look, _ in alike],
        drawn,
        scale="share" if votes else scale,
        unit=None if votes else _UNITS.get(gate),
        marks=marks,
    )
    return GatePlot(gate, f"{title}: devices worse than their own week before" if votes else title, spec, newest)


def _ms(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)

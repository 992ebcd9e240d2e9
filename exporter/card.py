"""MODEL_CARD.md: the page that a person reads before trusting a model.

After Mitchell et al., "Model Cards for Model Reporting" (FAT* 2019): what it is for, what it was made from, how good it
is and for whom, and where it must not be trusted. Every figure comes from the build; nothing is written by hand.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from exporter.built import BuiltModel
from exporter.provenance import Provenance

_USE = """\
Each window of readings gets an anomaly score from 0 to 1, on the device, offline. Up to .999 the score is the share of
healthy windows that score lower; above it, an order. From the threshold on a window is an anomaly. It says that a
device behaves unlike healthy ones of its kind. It does not say why, and it is no safety function."""


def model_card(model: BuiltModel, provenance: Provenance, *, name: str, version: str, release_number: int) -> bytes:
    """Write the card of one model.

    Args:
        model: The model.
        provenance: Where it comes from.
        name: The model's name.
        version: Its label.
        release_number: Its release number.

    Returns:
        Markdown, UTF-8; the same inputs give the same bytes.
    """
    rule = model.window_rule
    cohort = "all devices (the default model)" if model.cohort is None else f"cohort {model.cohort}"
    alarms = model.threshold.alarms_per_device_day
    how = "given directly" if alarms is None else f"chosen for {alarms:g} incidents per healthy device and day"
    sections = [
        f"# {name} {version}\n\nRelease {release_number}, for {cohort}. Precision: {model.precision}.",
        f"## What it is for\n\n{_USE}",
        "## What it sees\n\n"
        f"The last {rule.slots} slots of {rule.interval_ms / 1000:g} s; at least {rule.minimum_readings} of them "
        f"filled; nothing before a gap of more than {rule.largest_gap_ms / 1000:g} s.\n\n"
        + _table(("signal", "unit", "role"), ((s.name, s.unit or "-", s.role) for s in model.signals))
        + f"\n\n{len(model.features)} features; {_regimes(model)}.",
        "## What it was made from\n\n"
        f"{provenance.readings:,} readings, {_counts(provenance.devices)}. SHA-256 of the data: "
        f"`{provenance.data_digest}`. Settings and versions: provenance.json.",
        "## When it raises an alarm\n\n"
        f"Anomaly score from {model.threshold.anomaly_score:.6g} on, which is raw score "
        f"{model.threshold.raw_score:.6g}, {how}. An incident ends after {model.incident_gap} healthy windows.",
        "## How good it is\n\n" + _figures(model.evaluation, "Nothing was held out, so nothing was measured."),
        "## How true the shipped graph is\n\n" + _figures(model.parity, "Not measured."),
        "## Where not to trust it\n\n" + _limits(model),
    ]
    return ("\n\n".join(sections) + "\n").encode()


def flatten(value: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Return nested figures as (name, text) rows: plain ones first, then groups, each by name; long lists as lengths.

    Args:
        value: JSON-ready figures.
        prefix: What the names of this level begin with.
    """
    rows: list[tuple[str, str]] = []
    # Sorted, so that figures that went through JSON make the same card.
    for key, item in sorted(value.items(), key=lambda entry: (isinstance(entry[1], Mapping), entry[0])):
        name = f"{prefix}{key}".replace("_", " ")
        if isinstance(item, Mapping):
            rows += flatten(item, f"{name}: ")
        elif isinstance(item, list | tuple):
            rows.append((name, ", ".join(map(_text, item)) if len(item) <= 8 else f"{len(item)} values"))
        elif item is not None:
            rows.append((name, _text(item)))
    return rows


def _text(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return str(value)


def _figures(figures: Mapping[str, Any], without: str) -> str:
    rows = flatten(figures)
    return _table(("figure", "value"), rows) if rows else without


def _limits(model: BuiltModel) -> str:
    lines = [
        "Devices unlike those it was trained on, other firmware or other sensors: score them, but check before acting.",
        "Faults that leave the signals above unchanged cannot be seen.",
        *model.notes,
        *(f"Below a goal: {goal}" for goal in model.below_goals),
    ]
    return "\n".join(f"- {_cell(line)}" for line in lines)


def _regimes(model: BuiltModel) -> str:
    if model.regimes is None:
        return "no context"
    return f"{len(model.regimes.centroids)} regimes of {', '.join(model.context)}"


def _counts(devices: Mapping[str, int]) -> str:
    return ", ".join(f"{count} devices {name.replace('_', ' ')}" for name, count in sorted(devices.items()))


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(text: str) -> str:
    # Signal and cohort names are free text: they must not end a cell or a line.
    return text.replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")

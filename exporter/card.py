"""The model card: what a person reads before trusting a model. Here is what it says; ``MODEL_CARD.md`` says it as text.

After Mitchell et al., "Model Cards for Model Reporting" (FAT* 2019): what it is for, what it was made from, how good it
is and for whom, and where it must not be trusted. Every figure comes from the build; nothing is written by hand.
``exporter.card_page`` makes the page with plots of the same content.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from exporter.built import BuiltModel
from exporter.card_figures import Sheet, sheets, text
from exporter.provenance import Provenance

_USE = (
    "Each window of readings gets an anomaly score from 0 to 1, on the device, offline. Up to .999 the score is the "
    "share of healthy windows that score lower; above it, an order. From the threshold on a window is an anomaly. It "
    "says that a device behaves unlike healthy ones of its kind. It does not say why, and it is no safety function."
)
_AUC = (
    "AUC is the chance that a faulty window scores above a healthy one: 1 is perfect, 0.5 is a coin. Single readings "
    "are the same kind of model without windows, as a yardstick."
)
_FIDELITY = (
    "What ships is a graph made from the trained model. The same windows went through both, of devices that training "
    "never saw where some were held out; the figures say how far they differ."
)
_LIMITS = (
    "Devices unlike those it was trained on, other firmware or other sensors: score them, but check before acting.",
    "Faults that leave the signals above unchanged cannot be seen.",
)

Block = str | Sheet | tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the card.

    Attributes:
        title: Its heading.
        blocks: Sentences, tables, and lists of sentences (tuples), in order.
    """

    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True, slots=True)
class Card:
    """What the card says, before it has a form.

    Attributes:
        title: Model and version.
        summary: One line: release, cohort, precision.
        verdict: Whether it meets the goals of its makers, in one sentence.
        missed: The goals that it misses.
        figures: The few that matter most: (name, value, what it means).
        sections: The rest.
    """

    title: str
    summary: str
    verdict: str
    missed: tuple[str, ...]
    figures: tuple[tuple[str, str, str], ...]
    sections: tuple[Section, ...]


def make_card(model: BuiltModel, provenance: Provenance, *, name: str, version: str, release_number: int) -> Card:
    """Say what one model is.

    Args:
        model: The model.
        provenance: Where it comes from.
        name: The model's name.
        version: Its label.
        release_number: Its release number.

    Returns:
        The card; the same inputs give the same one.
    """
    cohort = "all devices (the default model)" if model.cohort is None else f"cohort {model.cohort}"
    missed = model.below_goals
    verdict = "What ships says what was trained, within every goal set for it. How good that is, the figures say."
    if missed:
        verdict = f"It misses {len(missed)} of the goals set for it; its makers packed it all the same."
    return Card(
        title=f"{name} {version}",
        summary=f"Release {release_number}, for {cohort}. Precision: {model.precision}.",
        verdict=verdict,
        missed=missed,
        figures=_headlines(model),
        sections=(
            Section("What it is for", (_USE,)),
            Section("When it raises an alarm", (_alarm(model),)),
            Section("How good it is", _quality(model)),
            Section("How true the shipped graph is", _fidelity(model)),
            Section("What it sees", _inputs(model)),
            Section("What it was made from", (_origin(provenance),)),
            Section("Where not to trust it", ((*_LIMITS, *model.notes),)),
        ),
    )


def markdown(card: Card) -> bytes:
    """Write the card as ``MODEL_CARD.md``: UTF-8; the same card gives the same bytes."""
    parts = [f"# {_cell(card.title)}", _cell(card.summary), f"**{card.verdict}**"]
    if card.missed:
        parts.append(_items(card.missed))
    for section in card.sections:
        parts.append(f"## {section.title}")
        parts += [_block(block) for block in section.blocks]
    return ("\n\n".join(parts) + "\n").encode()


def _headlines(model: BuiltModel) -> tuple[tuple[str, str, str], ...]:
    """Return what a person looks for first, as far as it was measured."""
    evaluation, found = model.evaluation, []
    if evaluation.get("auc") is not None:
        found.append(("AUC", text(evaluation["auc"], "auc"), "on devices it was not trained on"))
    if evaluation.get("faulty_devices"):
        caught = f"{evaluation['faulty_devices_caught']} of {evaluation['faulty_devices']}"
        found.append(("Faulty devices caught", caught, "among those held out"))
    alarms = evaluation.get("healthy_alarms_per_device_day")
    if alarms:
        found.append(("False alarms", text(alarms["mean"]), "per healthy device and day"))
    found.append(("Size", f"{len(model.model_onnx) / 1000:,.0f} KB", "of model.onnx"))
    return tuple(found)


def _alarm(model: BuiltModel) -> str:
    rate = model.threshold.alarms_per_device_day
    how = "given directly" if rate is None else f"chosen for {rate:g} incidents per healthy device and day"
    return (
        f"Anomaly score from {model.threshold.anomaly_score:.6g} on, which is raw score "
        f"{model.threshold.raw_score:.6g}, {how}. An incident ends after {model.incident_gap} healthy windows."
    )


def _quality(model: BuiltModel) -> tuple[Block, ...]:
    if not model.evaluation:
        return ("Nothing was held out, so nothing was measured.",)
    return _AUC, *sheets({**model.evaluation, "slots": model.window_rule.slots}, "this model")


def _fidelity(model: BuiltModel) -> tuple[Block, ...]:
    found = sheets(model.parity)
    return (_FIDELITY, *found) if found else ("Not measured.",)


def _inputs(model: BuiltModel) -> tuple[Block, ...]:
    rule = model.window_rule
    window = (
        f"The last {rule.slots} slots of {rule.interval_ms / 1000:g} s; at least {rule.minimum_readings} of them "
        f"filled; nothing before a gap of more than {rule.largest_gap_ms / 1000:g} s."
    )
    signals = Sheet("", ("signal", "unit", "role"), tuple((s.name, s.unit or "-", s.role) for s in model.signals))
    regimes = "no context"
    if model.regimes is not None:
        regimes = f"{len(model.regimes.centroids)} regimes of {', '.join(model.context)}"
    return window, signals, f"{len(model.features)} features; {regimes}."


def _origin(provenance: Provenance) -> str:
    return (
        f"{provenance.readings:,} readings, {_counts(provenance.devices)}. SHA-256 of the data: "
        f"{provenance.data_digest}. Settings and versions: provenance.json."
    )


def _counts(devices: Mapping[str, Any]) -> str:
    return ", ".join(f"{count} devices {name.replace('_', ' ')}" for name, count in sorted(devices.items()))


def _block(block: Block) -> str:
    if isinstance(block, Sheet):
        lines = [block.head, tuple("---" for _ in block.head), *block.rows]
        table = "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)
        return f"{_cell(block.title[:1].upper() + block.title[1:])}:\n\n{table}" if block.title else table
    return _cell(block) if isinstance(block, str) else _items(block)


def _items(lines: tuple[str, ...]) -> str:
    return "\n".join(f"- {_cell(line)}" for line in lines)


def _cell(words: str) -> str:
    # Signal and cohort names are free text: they must not end a cell or a line, or become a tag.
    return words.replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")

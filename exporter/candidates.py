"""The forms that a model could ship in, and the choice among them by what was measured.

A form is out when it misses a goal of ``model.toml`` on any data set. Of the others the smallest ships that is hardly
slower than fp32, or the fastest, whichever is preferred; why each was chosen or refused is said in one sentence::

    choice = choose(candidates, spec.goals, spec.release.precision)
    choice.name, choice.reason, choice.verdicts["int8"]
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from exporter.costs import Cost
from exporter.parity import Fidelity
from exporter.spec import GoalSpec, Precision

FP32 = "fp32"
# Two medians this near to each other are the same speed on a shared machine.
SAME_SPEED = 1.05


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """One form of a model, with what it keeps and what it costs.

    Attributes:
        name: Unique among the forms; ``fp32`` is the exact one.
        precision: What the manifest says.
        about: What was done, in one sentence.
        float_nodes: Operators that stayed float; empty for fp32.
        content: The graph.
        same_operators: Whether it has the nodes of fp32 with other constants, and therefore its speed.
        fidelity: By data set.
        cost: Measured beside the others.
    """

    name: str
    precision: str
    about: str
    float_nodes: tuple[str, ...]
    content: bytes
    same_operators: bool
    fidelity: Mapping[str, Fidelity]
    cost: Cost

    def missed(self, goals: GoalSpec) -> list[str]:
        """Return the goals that it misses, as parts of a sentence; fp32 is held to exactness elsewhere."""
        return [
            f"{what} ({name})"
            for name, one in self.fidelity.items()
            for what in one.missed(goals)
        ]  # fmt: skip

    def slowdown(self, exact: Measured, batch: int) -> float:
        """Return how many times slower than fp32 it is in calls of so many windows."""
        return 1.0 if self.same_operators else self.cost.window_us[batch] / exact.cost.window_us[batch]


@dataclass(frozen=True, slots=True)
class Choice:
    """What ships, and why.

    Attributes:
        name: The form.
        reason: Why, in one sentence without timings: it travels in the bundle, which is the same on every machine.
        verdicts: For every form, why it ships or does not, in one sentence with the figures of this machine.
        missed: Goals that the chosen form misses, as sentences; only where ``model.toml`` names its precision.
    """

    name: str
    reason: str
    verdicts: Mapping[str, str]
    missed: tuple[str, ...] = ()


def choose(measured: Sequence[Measured], goals: GoalSpec, wanted: Precision) -> Choice:
    """Choose what ships.

    Args:
        measured: All forms, fp32 first.
        goals: What must be kept, and what is preferred.
        wanted: ``auto``, or the one precision that ``model.toml`` asks for; when no form of it keeps the goals, the
            truest one is chosen, with what it misses.
    """
    exact = measured[0]
    eligible = [one for one in measured if wanted in ("auto", one.precision)]
    kept = [one for one in eligible if one is exact or not one.missed(goals)]
    if not eligible:
        return _fallback(measured, wanted)
    if not kept:
        truest = min(eligible, key=lambda one: max((f.label_flip_share for f in one.fidelity.values()), default=0.0))
        missed = tuple(missed_sentence(truest.name, what) for what in truest.missed(goals))
        return _told(measured, truest, f"model.toml asks for {wanted}, and this is its truest form.", goals, missed)
    best = _best(kept, exact, goals, wanted)
    return _told(measured, best, _reason(best, exact, goals, wanted), goals)


def missed_sentence(form: str, what: str) -> str:
    """Return the sentence for one goal that a form misses; ``what`` is a part of ``Measured.missed``."""
    return f"{form} has {what}."


def _best(kept: Sequence[Measured], exact: Measured, goals: GoalSpec, wanted: Precision) -> Measured:
    if goals.prefer == "smallest":
        quick = [one for one in kept if one.slowdown(exact, goals.batch) <= goals.slowdown]
        # Where the precision is named, its slowness is the engineer's choice.
        return min(quick if quick or wanted == "auto" else kept, key=lambda one: one.cost.bytes_deflated)
    fastest = min(one.slowdown(exact, goals.batch) for one in kept)
    even = [one for one in kept if one.slowdown(exact, goals.batch) <= fastest * SAME_SPEED]
    return min(even, key=lambda one: one.cost.bytes_deflated)


def _fallback(measured: Sequence[Measured], wanted: Precision) -> Choice:
    """Ship fp32 where the detector has no form of the wanted precision; the report says so as a missed goal."""
    reason = f"model.toml asks for {wanted}, and this detector has no such form."
    verdicts = {one.name: f"Not {wanted}." for one in measured}
    return Choice(FP32, reason, verdicts | {FP32: reason}, (reason,))


def _told(
    measured: Sequence[Measured], best: Measured, reason: str, goals: GoalSpec, missed: tuple[str, ...] = ()
) -> Choice:
    verdicts = {one.name: _why_not(one, best, measured[0], goals) for one in measured}
    compared = reason if best is measured[0] else f"It {_against(best, measured[0], goals)}."
    return Choice(best.name, reason, verdicts | {best.name: f"Ships. {compared}"}, missed)


def _reason(best: Measured, exact: Measured, goals: GoalSpec, wanted: Precision) -> str:
    if best is exact and wanted == FP32:
        return "model.toml asks for it."
    if best is exact:
        return f"No {'smaller' if goals.prefer == 'smallest' else 'faster'} form keeps the goals and its speed."
    asked = f"the {goals.prefer} form that keeps what [goals] asks for"
    if wanted != "auto":
        asked = f"the {goals.prefer} {wanted} form that keeps the goals, and model.toml asks for {wanted}"
    worst = min((one.spearman for one in best.fidelity.values()), default=1.0)
    return f"It is {asked}: it {_saved(best, exact)} against fp32, at a rank correlation of {worst:.5f}."


def _why_not(one: Measured, best: Measured, exact: Measured, goals: GoalSpec) -> str:
    missed = [] if one is exact else one.missed(goals)
    if missed:
        return f"Refused: it has {' and '.join(missed)}."
    if one is exact:
        return f"{best.name} {_against(best, exact, goals)}."
    upper = one.precision.upper() if one.precision == "int8" else one.precision
    return f"Not chosen: {upper} {_against(one, exact, goals)}."


def _against(one: Measured, exact: Measured, goals: GoalSpec) -> str:
    """Say how one form compares with fp32, such as 'is 1.3 times slower at batch 1 on this CPU and saves 49 KB'."""
    ratio = one.slowdown(exact, goals.batch)
    if one.same_operators or 1 / SAME_SPEED <= ratio <= SAME_SPEED:
        speed = "is as fast as fp32"
    elif ratio > 1:
        speed = f"is {ratio:.2g} times slower at batch {goals.batch} on this CPU"
    else:
        speed = f"is {1 / ratio:.2g} times faster at batch {goals.batch} on this CPU"
    return f"{speed} and {_saved(one, exact)}"


def _saved(one: Measured, exact: Measured) -> str:
    saved = exact.cost.bytes_deflated - one.cost.bytes_deflated
    size = f"saves {saved / 1000:.0f} KB" if saved >= 0 else f"needs {-saved / 1000:.0f} KB more"
    return f"{size} ({abs(saved) / exact.cost.bytes_deflated:.0%})"

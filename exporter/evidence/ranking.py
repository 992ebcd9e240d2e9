"""Train several specifications on the same telemetry and put them in order."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from exporter.built import Progress
from exporter.config import ModelSpec
from exporter.costs import Cost, measure_costs
from exporter.dataset import Fleet
from exporter.errors import SpecError, TelemetryError
from exporter.evidence.gathering import Each, gather_evidence
from exporter.evidence.trial import HYBRID, By, Evidence, Trial, judged_windows, run_trial
from exporter.model_build import WORTH_THREADS
from exporter.parallel import Workers, run_side_by_side

# Scored in turn, so that a window is not the one before it.
MEASURED_WINDOWS = 500
# Two AUC this near are equal: the seed of a forest moves it by more. Then the smaller graph wins.
_DIGITS = 3


@dataclass(frozen=True, slots=True, eq=False)
class Comparison:
    """The trials, best first; those that were refused come last.

    Attributes:
        trials: All of them.
        costs: On a device, by trial; None for a refused one.
        present: Number of the trial of the model's own settings.
        by: What they were judged by.
        each: What got a model of its own.
        notes: Sentences about the data.
    """

    trials: tuple[Trial, ...]
    costs: tuple[Cost | None, ...]
    present: int
    by: By
    each: Each
    notes: tuple[str, ...]

    @property
    def winner(self) -> Trial:
        """The best trial."""
        return self.trials[0]

    def to_dict(self) -> dict[str, Any]:
        """Return ``compare.json``."""
        rows = []
        for number, (trial, cost) in enumerate(zip(self.trials, self.costs, strict=True)):
            row = {"rank": number + 1, "present_setting": number == self.present, **trial.to_dict()}
            if cost is not None:
                row |= {
                    "bytes_deflated": cost.bytes_deflated,
                    "load_ms": round(cost.load_ms, 2),
                    "window_us": round(cost.window_us[1], 2),
                }
            rows.append(row)
        return {"judged_by": self.by, "each": self.each, "trials": rows, "notes": list(self.notes)}


def read_columns(specs: Sequence[ModelSpec]) -> ModelSpec:
    """Return the first specification with all columns of all of them, to read the telemetry with once.

    Args:
        specs: The same telemetry, labels and holdout; signals may differ.

    Raises:
        SpecError: They name other telemetry, labels or columns of keys, or hold out something else.
    """
    first = specs[0]
    for spec in specs[1:]:
        if _source(spec) != _source(first):
            raise SpecError(
                f"{spec.name!r} reads other telemetry than {first.name!r}, or holds out something else.",
                advice="Compare models of the same readings, labels, device, time, cohort and train.holdout.",
            )
    columns = dict.fromkeys(name for spec in specs for name in spec.data.columns)
    return replace(first, data=replace(first.data, signals=tuple(columns), context=()))


def compare_specs(
    specs: Sequence[ModelSpec],
    fleet: Fleet,
    *,
    each: Each = "fleet",
    by: By | None = None,
    progress: Progress | None = None,
    workers: Workers | None = None,
) -> Comparison:
    """Train, judge, measure and rank.

    Args:
        specs: What to try, the present settings first.
        fleet: Read with the columns of ``read_columns``.
        each: What gets a model of its own; figures are means over them.
        by: Labels or injected faults; None: labels where there are faulty ones.
        progress: Called with a trial's name and the share of it that is done.
        workers: Who trains; None: a thread a core where there is much to train on.

    Returns:
        The trials, best first.

    Raises:
        TelemetryError: Nothing is held out, there is nothing to judge by, or no specification can be trained.
        SpecError: ``train.holdout`` does not fit the data.
    """
    notes = list(fleet.notes)
    evidence = gather_evidence(specs, fleet, each=each, by=by, notes=notes)
    report = progress or _silent
    if each == "fleet" and any(spec.detector.kind == HYBRID for spec in specs):
        notes.append("One model for the fleet: a hybrid is its forest of all devices alone; see --each cohort.")
    trials = _run_trials(specs, evidence, report, workers)
    if all(trial.refused for trial in trials):
        raise TelemetryError(
            f"None of {len(trials)} specifications can be trained. {trials[0].name}: {trials[0].refused}",
            advice="Try 'exporter build', which says more.",
        )
    report("measure", 0.0)
    costs = _costs(trials, evidence)
    report("measure", 1.0)
    order = sorted(range(len(trials)), key=lambda number: _rank(trials[number], costs[number]))
    return Comparison(
        trials=tuple(trials[number] for number in order),
        costs=tuple(costs[number] for number in order),
        present=order.index(0),
        by=evidence.by,
        each=each,
        notes=tuple(notes),
    )


def _run_trials(
    specs: Sequence[ModelSpec], evidence: Evidence, report: Progress, workers: Workers | None
) -> list[Trial]:
    if workers is None:
        readings = sum(device.timestamps_ms.size for device in evidence.trained)
        workers = Workers(jobs=None if readings >= WORTH_THREADS else 1)
    done: dict[int, Trial] = {}
    tasks = [(spec, evidence) for spec in specs]
    alone = workers.alone(len(tasks))
    outcomes = enumerate(run_trial(*task) for task in tasks) if alone else run_side_by_side(run_trial, tasks, workers)
    report("compare", 0.0)
    for number, trial in outcomes:
        done[number] = trial
        report(trial.name, 1.0)
        report("compare", len(done) / len(specs))
    # A cluster hands back a copy of the settings.
    return [replace(done[number], spec=spec) for number, spec in enumerate(specs)]


def _source(spec: ModelSpec) -> tuple[object, ...]:
    data = spec.data
    return (data.readings.resolve(), data.labels and data.labels.resolve(), data.device, data.time, data.cohort,
            spec.train)  # fmt: skip


def _silent(_step: str, _share: float) -> None:
    """Report progress to nobody."""


def _costs(trials: Sequence[Trial], evidence: Evidence) -> list[Cost | None]:
    """Measure what was not refused, side by side, on windows of the first part."""
    graphs, windows = {}, {}
    for number, trial in enumerate(trials):
        if not trial.refused:
            found = judged_windows(trial.spec, evidence, evidence.parts[0].judged)
            some = np.linspace(0, len(found) - 1, min(len(found), MEASURED_WINDOWS)).astype(np.int64)
            graphs[str(number)], windows[str(number)] = trial.graph, found.take(some).windows()
    costs = measure_costs(graphs, windows, batches=(1,))
    return [costs.get(str(number)) for number in range(len(trials))]


def _rank(trial: Trial, cost: Cost | None) -> tuple[float, float, float]:
    """Better first: AUC, then average precision, then bytes; refused ones at the end."""
    if cost is None:
        return math.inf, math.inf, math.inf
    return -round(trial.quality, _DIGITS), -round(trial.average_precision, _DIGITS), cost.bytes_deflated

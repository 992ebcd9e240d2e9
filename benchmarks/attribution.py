"""Do explanations name the signals at fault: smd and asd say which they were."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt
import pandas as pd

from benchmarks import data
from benchmarks.harness import Cell, Report
from benchmarks.quality import server_spec
from edge_runtime.contract.manifest import Manifest, Signal
from edge_runtime.explanation import Explainer
from edge_runtime.scoring import Scorer
from exporter.attribution import chance_hit_rate, hit_rate, rank_signals
from exporter.config import FeatureSpec, ModelSpec, WindowSpec
from exporter.dataset import Device, read_fleet
from exporter.graph.assembly import assemble
from exporter.holdout import split_devices
from exporter.references import REFERENCES, choose_references
from exporter.training import Columns, Trained, train
from exporter.window_sets import WindowSet, cut_windows, window_rule

QUESTION = (
    "HitRate@100 % and @150 % of the contributions on the anomalous segments of smd and asd, and how often the largest"
    " one is a true one, against chance."
)
SHARES = {"HitRate@100 %": 1.0, "HitRate@150 %": 1.5}
# Slots, statistics and reference windows of each model.
MODELS: tuple[tuple[int, tuple[str, ...], int], ...] = (
    (1, ("last",), 1),
    (30, ("last", "mean", "std"), REFERENCES),
    (30, ("last", "mean", "std"), 4 * REFERENCES),
    (120, ("last", "mean:12", "std:12", "mean", "std"), REFERENCES),
)


@dataclass(frozen=True, slots=True)
class Segment:
    """An anomalous stretch of a device and the signals at fault; both ends are in it."""

    device: str
    first_ms: int
    last_ms: int
    signals: frozenset[str]


def run(report: Report, *, quick: bool) -> None:
    """Measure each model on each data set."""
    if not data.available():
        report.note(data.MISSING)
        return
    for name in ("smd", "asd"):
        with TemporaryDirectory() as folder:
            spec = server_spec(name, Path(folder))
        devices = read_fleet(spec.data).devices[: 1 if quick else None]
        segments = read_segments(name, spec.data.signals)
        rows: list[list[Cell]] = []
        for slots, statistics, references in MODELS[: 1 if quick else None]:
            variant = replace(spec, window=WindowSpec(slots=slots), features=FeatureSpec(statistics))
            title = f"{slots} slots, {' '.join(statistics)}, {references} references"
            outcomes = [pair for device in devices for pair in _rankings(variant, device, segments, references)]
            rows.append([title, len(outcomes), *_mean_rates(outcomes)])
            report.progress(f"{name}: {title}")
        count = len(spec.data.signals)
        rows.append(["chance, exactly", len(outcomes), *_chance(count, [truth for _, truth in outcomes])])
        report.table(f"{name}: {count} signals", ("model", "segments", *SHARES, "top contribution is true"), rows)
        best = max(rows[:-1], key=lambda row: row[2])  # type: ignore[return-value, arg-type]
        for column, (label, measured) in enumerate(zip((*SHARES, "top contribution is true"), best[2:], strict=True)):
            report.figure(f"{name}: {label}, {best[0]}", measured, "", at_least=float(rows[-1][2 + column] or 0))
    if quick:
        report.note("Quick: one device of each, single readings.")


def read_segments(name: str, signals: tuple[str, ...]) -> list[Segment]:
    """Read who was at fault when: interpretation.csv counts signals from 1."""
    frame = pd.read_csv(data.data_folder(name) / "interpretation.csv", parse_dates=["start", "end"])
    return [
        Segment(
            row.device_id,
            int(row.start.timestamp() * 1000),
            int(row.end.timestamp() * 1000),
            frozenset(signals[int(number) - 1] for number in str(row.anomalous_dims).split(",")),
        )
        for row in frame.itertuples()
    ]


def _rankings(
    spec: ModelSpec, device: Device, segments: list[Segment], references: int
) -> Iterator[tuple[tuple[str, ...], frozenset[str]]]:
    """Train on the unlabelled part of a device; yield the ranking and the truth of each of its segments."""
    trained_on, judged = split_devices(spec.train, [device])
    rule = window_rule(spec.window, trained_on)
    columns = Columns(spec.data.signals, spec.data.context, spec.features.statistics)
    trained = train(
        cut_windows(trained_on, rule), columns, spec.detector, replace(spec.calibration, threshold=0.5),
        labelled=False, calibrate=False,
    )  # fmt: skip
    windows = cut_windows(judged, rule)
    scorer, explainer = _explainer(trained, windows, choose_references(trained, references))
    for segment in segments:
        inside = (windows.timestamps_ms >= segment.first_ms) & (windows.timestamps_ms <= segment.last_ms)
        if segment.device == device.name and inside.any():
            own = windows.take(inside).windows()
            yield rank_signals(explainer, own, scorer.raw_scores(own)), segment.signals


def _explainer(trained: Trained, windows: WindowSet, references: npt.NDArray[np.float32]) -> tuple[Scorer, Explainer]:
    """Return what a device would explain with."""
    graph = assemble(
        trained.plan, trained.regimes, trained.detector.add_to, trained.calibration, trained.threshold.raw_score
    )
    manifest = Manifest(
        model="benchmark", version="1", release_number=1, cohort=None, precision="fp32",
        signals=tuple(Signal(name, "", "signal") for name in trained.plan.signals),
        window=windows.rule, features=trained.plan.names, threshold=trained.threshold, incident_gap=1,
        histogram=trained.histogram, regimes=trained.regimes, references=len(references), files={}, runtime={},
    )  # fmt: skip
    scorer = Scorer(graph.SerializeToString())
    return scorer, Explainer(scorer, manifest, references.astype("<f4").tobytes())


def _mean_rates(outcomes: list[tuple[tuple[str, ...], frozenset[str]]]) -> list[float]:
    """Return the mean hit rates, then how often the first signal is a true one."""
    rates = [
        float(np.mean([hit_rate(ranked, truth, share) for ranked, truth in outcomes])) for share in SHARES.values()
    ]
    return [*rates, float(np.mean([ranked[0] in truth for ranked, truth in outcomes]))]


def _chance(signals: int, truths: list[frozenset[str]]) -> list[float]:
    rates = [
        float(np.mean([chance_hit_rate(signals, len(truth), share) for truth in truths])) for share in SHARES.values()
    ]
    return [*rates, float(np.mean([len(truth) / signals for truth in truths]))]

"""How good the models are that the demo ships, on engines they never saw; and whether calibration costs anything."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from benchmarks import data
from benchmarks.harness import Cell, Report

QUESTION = (
    "AUC and healthy alarms of the models that the demo trains on cmapss, on the engines held out; and on every data"
    " set: does the anomaly score order windows as the raw score does."
)
# Goals of the project, by cohort.
GOALS = {"FD001": 0.995, "FD002": 0.99, "FD003": 0.99, "FD004": 0.98}
CONTEXT = ("op_setting_1", "op_setting_2", "op_setting_3")
ORDER_TOLERANCE = 1e-4
_COLUMNS = (
    "cohort", "model", "AUC", "AUC of raw score", "single readings, no context",
    "alarms a day", "median", "90 %", "most", "engines without",
)  # fmt: skip


def run(report: Report, *, quick: bool) -> None:
    """Build as the demo does and score the held-out engines; then compare both scores on the other sets."""
    if not data.available():
        report.note(data.MISSING)
        return
    with tempfile.TemporaryDirectory() as folder:
        worst = _engines(report, Path(folder), quick)
        differences = [("cmapss", worst), *_others(report, Path(folder), quick)]
    report.table(
        "AUC of the anomaly score beside AUC of the raw score",
        ("data set", "largest difference"),
        [list(row) for row in differences],
    )
    largest = max(value for _, value in differences)
    report.figure("AUC, anomaly score beside raw score, every set", largest, "", at_most=ORDER_TOLERANCE)
    if quick:
        report.note("Quick: of the other sets only two small ones.")


def _engines(report: Report, folder: Path, quick: bool) -> float:
    """Measure the four cohort models and the default one; returns the largest AUC difference between the scores."""
    from benchmarks.models import settings, windows_of
    from exporter.dataset import read_fleet
    from exporter.model_build import build_models

    source = data.data_folder("cmapss")
    readings = _two_cohorts(source, folder) if quick else source / "readings.parquet"
    spec = settings(readings, source / "labels.parquet", folder, name="cmapss", context=CONTEXT)
    if quick:
        spec = replace(spec, detector=replace(spec.detector, trees=40))
        report.note("Quick: two cohorts, 40 trees instead of 200.")
    report.progress("building default and cohort models as the demo does")
    build = build_models(spec, progress=None)
    fleet = read_fleet(spec.data)
    models = {model.cohort or "default": model for model in build.models}
    held_out = _held_out(fleet)
    baseline = _single_readings(fleet, held_out)
    rows: list[list[Cell]] = []
    worst = 0.0
    everyone = [name for names in held_out.values() for name in names]
    for cohort, names in {**held_out, "all": everyone}.items():
        for of in (cohort, "default"):
            if of not in models:
                continue
            measured = _measure(windows_of(fleet, models[of], names), models[of])
            worst = max(worst, abs(measured["auc"] - measured["raw_auc"]))
            alarms = measured["alarms"]
            quiet = f"{(alarms == 0).sum()} of {len(alarms)}"
            spread = np.quantile(alarms, (0.5, 0.9, 1.0)).tolist()
            name = "its own" if of == cohort else "default"
            aucs = measured["auc"], measured["raw_auc"], baseline.get(cohort)
            rows.append([cohort, name, *aucs, measured["rate"], *spread, quiet])
            if of == cohort:
                report.figure(f"AUC {cohort}, anomaly score", measured["auc"], "", at_least=GOALS.get(cohort))
    report.table("Engines held out: AUC, and healthy alarms per engine and day with their spread", _COLUMNS, rows)
    report.note(
        f"{build.devices.get('trained')} engines trained, {build.devices.get('held_out')} were held out. Alarms are"
        f" incidents of healthy engines at the threshold of {spec.calibration.alarms_per_device_day:g} per device and"
        " day; median, 90 % and most are over engines. An engine's healthy life is 4 days or so here, so one alarm"
        " is .25 a day. The single-reading baseline is scikit-learn's forest of 300 trees on the cohort's healthy"
        " readings, no context."
    )
    for step, seconds in build.timings.items():
        report.figure(f"build, {step}", float(seconds), "s")
    return worst


def _two_cohorts(source: Path, folder: Path) -> Path:
    frame = pd.read_parquet(source / "readings.parquet")
    path = folder / "two.parquet"
    frame[frame["cohort"].isin(["FD001", "FD003"])].to_parquet(path, index=False)
    return path


def _held_out(fleet: Any) -> dict[str, list[str]]:
    """Every second device, sorted, per cohort, trains; returns the others."""
    cohorts: dict[str, list[str]] = {}
    for device in fleet.devices:
        cohorts.setdefault(str(device.cohort), []).append(device.name)
    return {cohort: sorted(names)[1::2] for cohort, names in sorted(cohorts.items())}


def _measure(windows: Any, model: Any) -> dict[str, Any]:
    from benchmarks.models import verdicts_of
    from exporter.alarms import days_by_device, find_incidents

    anomaly, raw, flags = verdicts_of(windows, model)
    healthy = windows.labels == 0
    incidents = find_incidents(flags > 0.5, windows.device, model.incident_gap)
    days = days_by_device(windows.take(healthy))
    counts = np.bincount(incidents.device[healthy[incidents.first]], minlength=len(days))
    watched = days > 0
    return {
        "auc": auc(windows.labels, anomaly),
        "raw_auc": auc(windows.labels, raw),
        "rate": float(counts.sum() / days.sum()),
        "alarms": counts[watched] / days[watched],
    }


def _single_readings(fleet: Any, held_out: dict[str, list[str]]) -> dict[str, float]:
    """Return the AUC of scikit-learn's forest on single readings, trained per cohort."""
    from sklearn.ensemble import IsolationForest

    result = {}
    for cohort, names in held_out.items():
        train = [d for d in fleet.devices if d.cohort == cohort and d.name not in names]
        test = [d for d in fleet.devices if d.name in names]
        rows = np.concatenate([device.values[device.labels == 0] for device in train])
        forest = IsolationForest(n_estimators=300, random_state=0).fit(rows)
        scores = -forest.score_samples(np.concatenate([device.values for device in test]))
        result[cohort] = auc(np.concatenate([device.labels for device in test]), scores)
    return result


def auc(labels: npt.NDArray[Any], scores: npt.NDArray[Any]) -> float:
    """Return the AUC over rows that are labelled 0 or 1."""
    from sklearn.metrics import roc_auc_score

    judged = labels >= 0
    return float(roc_auc_score(labels[judged], scores[judged]))


def _others(report: Report, folder: Path, quick: bool) -> Iterator[tuple[str, float]]:
    """Train on each other set and yield how far the AUC of the two scores lie apart."""
    for name in () if quick else ("smd", "asd"):
        yield name, _fleet_difference(name, folder)
        report.progress(f"{name} compared")
    for case in data.cases(("backblaze2019", "adbench")):
        name = f"{case.data_set} {case.part}".strip()
        if quick and name not in ("adbench fault", "adbench letter"):
            continue
        yield name, _row_difference(case, folder)
        report.progress(f"{name} compared")


def _fleet_difference(name: str, folder: Path) -> float:
    """Train one model on the unlabelled part of a fleet and score its labelled part."""
    from benchmarks.models import settings, verdicts_of, windows_of
    from exporter.config import TrainSpec
    from exporter.dataset import read_fleet
    from exporter.model_build import build_models

    source = data.data_folder(name)
    frame = data.fleet(name)
    path = folder / f"{name}.parquet"
    frame[frame["label"] < 0].drop(columns="label").to_parquet(path, index=False)
    spec = settings(path, None, folder, name=name, context=())
    spec = replace(spec, train=TrainSpec("none"), release=replace(spec.release, cohorts=False))
    model = build_models(spec, progress=None).models[0]
    everything = read_fleet(replace(spec.data, readings=source / "readings.parquet", labels=source / "labels.parquet"))
    windows = windows_of(everything, model)
    anomaly, raw, _ = verdicts_of(windows, model)
    return abs(auc(windows.labels, anomaly) - auc(windows.labels, raw))


def _row_difference(case: data.Case, folder: Path) -> float:
    """Train on rows that are nobody's history, each a device of its own, and score them."""
    from benchmarks.models import tabular
    from edge_runtime.scoring import Scorer
    from exporter.model_build import build_models

    columns = [f"x{k:02d}" for k in range(case.train.shape[1])]
    frame = pd.DataFrame(case.train, columns=columns)
    spec = tabular(frame, folder, name=f"{case.data_set}-{case.part or 'all'}".lower(), days_per_row=1.0)
    model = build_models(spec, progress=None).models[0]
    order = [columns.index(name) for name in spec.data.columns]
    verdicts = Scorer(model.model_onnx).score(case.score[:, None, order].astype(np.float32))
    return abs(auc(case.labels, verdicts.anomaly_score) - auc(case.labels, verdicts.raw_score))

"""Does the fused forest say what scikit-learn says, on every real data set, with values missing too."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks import data
from benchmarks.data import Case
from benchmarks.forest import scorer
from benchmarks.harness import Cell, Report

QUESTION = (
    "Label differences and largest raw score difference between the fused forest and scikit-learn, 300 trees, on every"
    " data set, as it is and with 5 % of the values removed."
)
TREES = 300
REMOVED = 0.05
TOLERANCE = 1e-6
ML_OPSETS = (5, 3)
# AUC that the data sets' README gives for scikit-learn, 300 trees, seed 0; seed noise about 0.01.
REFERENCE_AUC = {
    "cmapss FD001": 0.999, "cmapss FD002": 0.935, "cmapss FD003": 0.996, "cmapss FD004": 0.938, "backblaze2019": 0.923,
    "smd mean": 0.800, "asd mean": 0.638, "adbench annthyroid": 0.820, "adbench cardio": 0.935, "adbench fault": 0.581,
    "adbench letter": 0.630, "adbench mammography": 0.864, "adbench PageBlocks": 0.902, "adbench satellite": 0.678,
    "adbench shuttle": 0.997,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was found for one forest.

    Attributes:
        name: Data set and part.
        variant: Which values were there in training and in scoring.
        rows: Rows scored.
        auc: AUC of scikit-learn's score, NaN without labels of both kinds.
        differences: Largest raw score difference, by ai.onnx.ml opset.
        flips: Rows whose label differs, by opset.
        auc_difference: AUC of the graph's score minus that of scikit-learn's, by opset.
    """

    name: str
    variant: str
    rows: int
    auc: float
    differences: dict[int, float]
    flips: dict[int, int]
    auc_difference: dict[int, float]


def run(report: Report, *, quick: bool) -> None:
    """Compare scores, labels and AUC on every data set."""
    if not data.available():
        report.note(data.MISSING)
        return
    outcomes: list[Outcome] = []
    for case in data.cases():
        if quick and case.data_set in ("smd", "asd") and any(o.name.startswith(case.data_set) for o in outcomes):
            continue
        for variant, changed in _variants(case):
            outcomes.append(_compare(changed, variant, trees=50 if quick else TREES))
        report.progress(f"{outcomes[-1].name}: {outcomes[-1].rows} rows")
    _figures(report, outcomes)
    _tables(report, outcomes)
    if quick:
        report.note("Quick: 50 trees, one device of smd and one of asd.")


def _variants(case: Case) -> Iterator[tuple[str, Case]]:
    """Yield the case whole, with values removed where it is scored, and with values removed in training too."""
    rng = np.random.default_rng(5)
    yield "as it is", case
    scored = replace(case, score=_with_holes(case.score, rng))
    yield "5 % removed when scored", scored
    yield "5 % removed in training too", replace(scored, train=_with_holes(case.train, rng))


def _with_holes(rows: npt.NDArray[Any], rng: np.random.Generator) -> npt.NDArray[Any]:
    return np.where(rng.random(rows.shape) < REMOVED, np.nan, rows)


def _compare(case: Case, variant: str, *, trees: int) -> Outcome:
    from sklearn.ensemble import IsolationForest

    from exporter import forest_to_onnx

    forest = IsolationForest(n_estimators=trees, random_state=0).fit(case.train)
    expected = -forest.score_samples(case.score)
    labels = forest.predict(case.score) == -1
    rows = case.score.astype(np.float32)
    auc = _auc(case.labels, expected)
    scores = {}
    for opset in ML_OPSETS:
        score = scorer(forest_to_onnx(forest, ml_opset=opset).SerializeToString())
        scores[opset] = np.concatenate([score(rows[k : k + 4096]) for k in range(0, len(rows), 4096)]).reshape(-1)
    threshold = np.float32(-forest.offset_)
    return Outcome(
        name=f"{case.data_set} {case.part}".strip(),
        variant=variant,
        rows=len(rows),
        auc=auc,
        differences={opset: float(np.abs(scores[opset] - expected).max()) for opset in ML_OPSETS},
        flips={opset: int(((scores[opset] > threshold) != labels).sum()) for opset in ML_OPSETS},
        auc_difference={opset: _auc(case.labels, scores[opset]) - auc for opset in ML_OPSETS},
    )


def _auc(labels: npt.NDArray[np.int64], scores: npt.NDArray[Any]) -> float:
    from sklearn.metrics import roc_auc_score

    judged = labels >= 0
    if len(np.unique(labels[judged])) < 2:
        return float("nan")
    return float(roc_auc_score(labels[judged], scores[judged]))


def _figures(report: Report, outcomes: list[Outcome]) -> None:
    report.figure("forests compared", len(outcomes) * len(ML_OPSETS), "")
    report.figure("rows compared", sum(outcome.rows for outcome in outcomes) * len(ML_OPSETS), "")
    for opset in ML_OPSETS:
        flips = sum(outcome.flips[opset] for outcome in outcomes)
        report.figure(f"labels that differ, ai.onnx.ml {opset}", flips, "", at_most=0)
        worst = max(outcome.differences[opset] for outcome in outcomes)
        report.figure(f"largest raw score difference, ai.onnx.ml {opset}", worst, "", at_most=TOLERANCE)


def _tables(report: Report, outcomes: list[Outcome]) -> None:
    for variant in dict.fromkeys(outcome.variant for outcome in outcomes):
        rows: list[list[Cell]] = []
        for o in (o for o in outcomes if o.variant == variant):
            worst_auc = max((abs(value) for value in o.auc_difference.values()), default=0.0)
            rows.append([o.name, o.rows, max(o.flips.values()), max(o.differences.values()), worst_auc])
        columns = ("forest", "rows", "labels that differ", "largest score difference", "AUC difference")
        report.table(f"Fused forest beside scikit-learn, {variant}", columns, rows)
    whole = {outcome.name: outcome.auc for outcome in outcomes if outcome.variant == "as it is"}
    for name in ("smd", "asd"):
        parts = [auc for key, auc in whole.items() if key.startswith(f"{name} ")]
        whole[f"{name} mean"] = float(np.mean(parts)) if parts else float("nan")
    rows_of_auc: list[list[Cell]] = [[name, whole.get(name), expected] for name, expected in REFERENCE_AUC.items()]
    report.table("AUC, as it is", ("data set", "measured", "reference"), rows_of_auc)

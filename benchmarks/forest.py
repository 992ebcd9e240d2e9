"""Is the fused forest worth having: against skl2onnx's own conversion and against scikit-learn itself."""

from __future__ import annotations

import logging
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from benchmarks.harness import Report, seconds_of
from benchmarks.timing import Side, Timing, take_turns

QUESTION = "A forest of 300 trees on 25 features: converting, loading and scoring it, beside skl2onnx and scikit-learn."
FEATURES = 25
TRAINING_ROWS = 10_000
BATCH = 10_000


def run(report: Report, *, quick: bool) -> None:
    """Measure conversion, load, one row, a batch and the size of the file."""
    from sklearn.ensemble import IsolationForest

    from exporter import forest_to_onnx

    trees = 30 if quick else 300
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(TRAINING_ROWS + 8 * BATCH, FEATURES)).astype(np.float32)
    forest = IsolationForest(n_estimators=trees, random_state=0).fit(rows[:TRAINING_ROWS])
    fresh = rows[TRAINING_ROWS:]
    ours = forest_to_onnx(forest).SerializeToString()
    theirs = _conversion(report, forest, quick)
    _loading(report, ours, theirs)
    sides = {"scikit-learn": forest.score_samples, "ours": scorer(ours), "skl2onnx": scorer(theirs, "score_samples")}
    _one_row(report, sides, fresh, quick)
    _batch(report, sides, fresh, quick)
    for name, data in (("ours", ours), ("skl2onnx", theirs)):
        report.figure(f"file, {name}", len(data) / 1000, "kB")
        report.figure(f"file deflated, {name}", len(zlib.compress(data, 9)) / 1000, "kB")
    if quick:
        report.note(f"Quick: {trees} trees instead of 300.")


def scorer(model: bytes, output: str | None = None, threads: int = 1) -> Any:
    """Return a function from rows to scores that runs a model."""
    session = session_of(model, threads)
    (source,) = session.get_inputs()
    name = output or session.get_outputs()[0].name

    def score(rows: npt.NDArray[np.float32]) -> Any:
        return session.run([name], {source.name: rows})[0]

    return score


def session_of(model: bytes, threads: int = 1) -> ort.InferenceSession:
    """Load a model on the CPU."""
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    # As devices have it: threads that spin between runs would also take time from the side whose turn comes next.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def skl2onnx_model(forest: Any) -> bytes:
    """Convert with skl2onnx's own converter, score_samples as an output of its own."""
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import FloatTensorType

    logging.getLogger("skl2onnx").setLevel(logging.ERROR)
    model = to_onnx(
        forest,
        initial_types=[("X", FloatTensorType([None, forest.n_features_in_]))],
        options={id(forest): {"score_samples": True}},
        target_opset={"": 18, "ai.onnx.ml": 3},
    )
    data: bytes = model.SerializeToString()
    return data


def _conversion(report: Report, forest: Any, quick: bool) -> bytes:
    from exporter import forest_to_onnx

    timings = take_turns([Side("convert, ours", lambda _: forest_to_onnx(forest).SerializeToString())], repeats=5)
    report.progress("converting with skl2onnx, most of a minute")
    taken, theirs = seconds_of(skl2onnx_model, forest)
    again = take_turns([Side("convert, ours", lambda _: forest_to_onnx(forest).SerializeToString())], repeats=5)
    both = timings["convert, ours"], again["convert, ours"]
    ours = Timing("convert, ours", 1, 1, both[0].seconds + both[1].seconds, both[0].cpu_seconds + both[1].cpu_seconds)
    report.timings([ours, Timing("convert, skl2onnx", 1, 1, (taken,))])
    report.figure("conversion, skl2onnx", taken, "s")
    report.figure("conversion, ours", ours.median * 1e3, "ms")
    report.figure("conversion, times faster than skl2onnx", taken / ours.median, "x", at_least=None if quick else 300)
    data: bytes = theirs
    return data


def _loading(report: Report, ours: bytes, theirs: bytes) -> None:
    sides = [Side("load, ours", lambda _: session_of(ours)), Side("load, skl2onnx", lambda _: session_of(theirs))]
    timings = take_turns(sides, repeats=7)
    report.timings(timings)
    report.figure("loading, skl2onnx", timings["load, skl2onnx"].median * 1e3, "ms")
    report.figure("loading, ours", timings["load, ours"].median * 1e3, "ms", at_most=50)


def _one_row(report: Report, sides: dict[str, Any], rows: npt.NDArray[np.float32], quick: bool) -> None:
    calls = {"scikit-learn": 3, "ours": 300, "skl2onnx": 5}

    def one(score: Any) -> Any:
        return lambda number: score(rows[(number := number % len(rows)) : number + 1])

    timings = take_turns(
        [Side(f"one row, {name}", one(score), calls[name]) for name, score in sides.items()],
        repeats=5 if quick else 40,
        warmups=2,
    )
    report.timings(timings)
    ours = timings["one row, ours"].median
    for name in sides:
        report.figure(f"one row, {name}", timings[f"one row, {name}"].median * 1e6, "us")
    ratio = timings["one row, scikit-learn"].median / ours
    report.figure("one row, times faster than scikit-learn", ratio, "x", at_least=None if quick else 300)
    report.figure("one row, times faster than skl2onnx's graph", timings["one row, skl2onnx"].median / ours, "x")


def _batch(report: Report, sides: dict[str, Any], rows: npt.NDArray[np.float32], quick: bool) -> None:
    def block(score: Any) -> Any:
        return lambda number: score(rows[(start := number * 997 % (len(rows) - BATCH)) : start + BATCH])

    timings = take_turns(
        [Side(f"{BATCH} rows, {name}", block(score), items=BATCH) for name, score in sides.items()],
        repeats=2 if quick else 7,
    )
    report.timings(timings)
    ours = timings[f"{BATCH} rows, ours"]
    for name in sides:
        report.figure(f"{BATCH:,} rows, {name}", timings[f"{BATCH} rows, {name}"].per_item * 1e6, "us a row")
    ratio = timings[f"{BATCH} rows, scikit-learn"].median / ours.median
    report.figure(f"{BATCH:,} rows, times as fast as scikit-learn", ratio, "x", at_least=None if quick else 1)
    report.figure(
        f"{BATCH:,} rows, times as fast as skl2onnx's graph",
        timings[f"{BATCH} rows, skl2onnx"].median / ours.median,
        "x",
    )

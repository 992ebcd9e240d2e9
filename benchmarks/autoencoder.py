"""Does an autoencoder in 8-bit integers pay: smaller and faster than float32, and does it say the same."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from benchmarks.forest import scorer, session_of
from benchmarks.harness import Cell, Report
from benchmarks.timing import Side, Timing, take_turns
from exporter.detectors.autoencoder import AutoencoderDetector, FittedAutoencoder
from exporter.detectors.protocol import AddDetector
from exporter.graph.network import network_model
from exporter.graph.nodes import GraphBuilder, tensor_info
from exporter.graph.running import block_slices
from exporter.quantization.network import calibration_rows, quantize_model
from exporter.spec import DetectorSpec

QUESTION = (
    "An autoencoder of 512-64-512 and one of 24-8-24, fp32 and every INT8 form on one thread: the network alone, and"
    " with scaling, missing values and error around it."
)
SHAPES = ((512, 64, 32), (24, 8, 4))  # features, bottleneck, hidden causes of the synthetic telemetry
MISSING = 0.01  # share of the scored values
BATCHES = (1, 100, 1_000, 10_000)
CALLS = {1: 300, 100: 30, 1_000: 4, 10_000: 1}
FP32 = "fp32"
# The form that keeps most of the scores; the goals are on the network 512-64-512, in batches.
BEST = "int8 static per channel minmax"
TIMES_SMALLER, TIMES_FASTER = 3.5, 2.0
FLAGGED = 0.02  # share of the windows that a threshold flags, for counting flips

Rows = npt.NDArray[np.float32]


def run(report: Report, *, quick: bool) -> None:
    """Measure both shapes, the network alone and the whole detector."""
    for features, hidden, causes in SHAPES:
        train, fresh = _telemetry(features, causes, 3_000 if quick else 12_000)
        spec = DetectorSpec(kind="autoencoder", hidden=(hidden,), epochs=2 if quick else 50)
        report.progress(f"training {features}-{hidden}-{features}")
        fitted = AutoencoderDetector(spec).fit(train)
        shape = f"{features}-{hidden}-{features}"
        networks, detectors = _networks(fitted, train), _detectors(fitted, train)
        bounded = fitted.around.bounded(fitted.around.scaled(fresh))
        _compare(report, f"network {shape}", networks, bounded, quick=quick)
        _compare(report, f"detector {shape}", detectors, fresh, quick=quick)
        _fidelity(report, f"detector {shape}", detectors, fresh)
    report.note("Goals are on the network alone: around it scaling and error cost fp32 and INT8 nearly the same.")
    report.note("Large batches run in blocks that a cache holds, as the exporter and devices run them.")
    report.note(
        "In blocks too large for a cache, most of the INT8 network's time goes into reading and writing floats."
    )
    report.note("int8 dynamic takes its ranges from the block: a window scores otherwise alone than among others.")


def _telemetry(features: int, causes: int, rows: int) -> tuple[Rows, Rows]:
    """Return healthy windows to train on and twice the largest batch of others to score, a third of them disturbed."""
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(causes, features)) / np.sqrt(causes)
    total = rows + 2 * BATCHES[-1]
    values = rng.normal(size=(total, causes)) @ mixing + 0.3 * rng.normal(size=(total, features))
    values[rows::3] += 0.5 * rng.normal(size=values[rows::3].shape)
    values[rows:][rng.random((total - rows, features)) < MISSING] = np.nan
    return values[:rows].astype(np.float32), values[rows:].astype(np.float32)


def _networks(fitted: FittedAutoencoder, train: Rows) -> dict[str, bytes]:
    model = network_model(fitted.network)
    rows = fitted.around.bounded(fitted.around.scaled(train))
    forms = quantize_model(model, calibration_rows(rows, fitted.network.largest_activations(rows)))
    return {FP32: model.SerializeToString()} | {form.name: form.model.SerializeToString() for form in forms}


def _detectors(fitted: FittedAutoencoder, train: Rows) -> dict[str, bytes]:
    features = train.shape[1]

    def content(add: AddDetector) -> bytes:
        graph = GraphBuilder()
        add(graph, "X", "score")
        infos = [tensor_info("X", np.float32, ("n", features))], [tensor_info("score", np.float32, ("n", 1))]
        model: onnx.ModelProto = graph.model("detector", *infos)
        return model.SerializeToString()

    return {FP32: content(fitted.add_to)} | {one.name: content(one.add) for one in fitted.candidates(train)}


def _compare(report: Report, what: str, forms: dict[str, bytes], rows: Rows, *, quick: bool) -> None:
    """Time loading and every batch size, and tell sizes; figures and goals for the truest form."""
    loads = take_turns([Side(f"{what}, load, {n}", _loader(c)) for n, c in forms.items()], repeats=3 if quick else 9)
    report.timings(loads)
    timings: dict[tuple[str, int], Timing] = {}
    for batch in BATCHES:
        sides = [
            Side(f"{what}, {batch} rows, {name}", _block(scorer(content), rows, batch), CALLS[batch], batch)
            for name, content in forms.items()
        ]
        taken = take_turns(sides, repeats=3 if quick else 15, warmups=2)
        report.timings(taken)
        timings |= {(name, batch): taken[f"{what}, {batch} rows, {name}"] for name in forms}
    lines = [_line(name, forms, loads[f"{what}, load, {name}"], timings) for name in forms]
    columns = ("form", "kB", "deflated kB", "times smaller", "load ms", *(f"us a row, {b:,}" for b in BATCHES))
    report.table(what, columns, lines)
    _goals(report, what, forms, timings, quick=quick)


def _loader(content: bytes) -> Any:
    return lambda _: session_of(content)


def _block(score: Any, rows: Rows, batch: int) -> Any:
    """Return a call that scores other rows each time, in blocks that a cache holds, as exporter and devices do."""
    parts = block_slices(batch, rows.shape[1])

    def call(number: int) -> None:
        chosen = rows[(start := number * 997 % (len(rows) - batch + 1)) : start + batch]
        for part in parts:
            score(chosen[part])

    return call


def _line(name: str, forms: dict[str, bytes], load: Timing, timings: dict[tuple[str, int], Timing]) -> list[Cell]:
    sizes = len(forms[name]), len(zlib.compress(forms[name], 9))
    smaller = len(forms[FP32]) / sizes[0]
    speeds = [timings[name, batch].per_item * 1e6 for batch in BATCHES]
    return [name, sizes[0] / 1000, sizes[1] / 1000, smaller, load.median * 1e3, *speeds]


def _goals(
    report: Report, what: str, forms: dict[str, bytes], timings: dict[tuple[str, int], Timing], *, quick: bool
) -> None:
    goal = what == "network 512-64-512" and not quick
    smaller = len(forms[FP32]) / len(forms[BEST])
    report.figure(f"{what}, times smaller on disk", smaller, "x", at_least=TIMES_SMALLER if goal else None)
    deflated = len(zlib.compress(forms[FP32], 9)) / len(zlib.compress(forms[BEST], 9))
    report.figure(f"{what}, times smaller deflated", deflated, "x", at_least=TIMES_SMALLER if goal else None)
    for batch in BATCHES:
        # Processor time: neighbours on the machine change it little.
        faster = _cpu_median(timings[FP32, batch]) / _cpu_median(timings[BEST, batch])
        least = TIMES_FASTER if goal and batch > 1 else None
        report.figure(f"{what}, times faster, {batch:,} rows", faster, "x", at_least=least)


def _cpu_median(timing: Timing) -> float:
    return float(np.median(timing.cpu_seconds))


def _fidelity(report: Report, what: str, forms: dict[str, bytes], rows: Rows) -> None:
    from scipy.stats import spearmanr

    exact = scorer(forms[FP32])(rows)[:, 0]
    threshold = np.quantile(exact, 1 - FLAGGED)
    lines: list[list[Cell]] = []
    for name, content in forms.items():
        score = scorer(content)
        scores = score(rows)[:, 0]
        alone = np.concatenate([score(rows[k : k + 1])[:, 0] for k in range(50)])
        flips = float(np.mean((scores >= threshold) != (exact >= threshold)))
        together = float(np.abs(alone - scores[:50]).max())
        lines.append([name, float(spearmanr(exact, scores).statistic), flips, together])
    columns = ("form", "rank correlation with fp32", "label flips", "largest difference alone and in a block")
    report.table(f"{what}, scores", columns, lines)

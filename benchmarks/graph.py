"""What the whole graph costs: from a window of raw readings to a verdict, and what travels to the device."""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path

from benchmarks.harness import Cell, Report
from benchmarks.timing import Side, take_turns

QUESTION = (
    "The whole graph on 24 readings x 25 signals, 3 of them context, default features, 300 trees: one window, blocks,"
    " loading, and the size of the bundle."
)
BLOCK = 10_000


def run(report: Report, *, quick: bool) -> None:
    """Build the model from a simulated fleet and measure scoring, loading and sizes."""
    import numpy as np

    from benchmarks.forest import session_of
    from benchmarks.models import build_phones, windows_of
    from edge_runtime.scoring import OUTPUTS, Scorer
    from exporter.latency import Subject, measure

    report.progress("building the model from a simulated fleet")
    with tempfile.TemporaryDirectory() as folder:
        phones = build_phones(Path(folder), **({"devices": 20, "days": 4} if quick else {}))
    built = phones.built
    windows = windows_of(phones.fleet, built)
    chosen = np.random.default_rng(0).permutation(len(windows))[: 2 * BLOCK]
    rows = windows.take(chosen).windows()
    report.note(
        f"Model of {len(phones.fleet.devices)} simulated phones, {len(windows):,} windows, {rows.shape[1]} x"
        f" {rows.shape[2]}, {len(built.context)} context signals, {len(built.features)} features,"
        f" {0 if built.regimes is None else len(built.regimes.means)} regimes."
    )
    scorer, session = Scorer(built.model_onnx), session_of(built.model_onnx)
    block = rows[:BLOCK] if len(rows) > BLOCK else rows
    shift = max(1, len(rows) - len(block))
    timings = take_turns(
        [
            Side("one window, Scorer", lambda n: scorer.score(rows[(k := n % len(rows)) : k + 1]), calls=200),
            Side(
                "one window, bare session",
                lambda n: session.run(list(OUTPUTS), {"window": rows[(k := n % len(rows)) : k + 1]}),
                calls=200,
            ),
        ],
        repeats=5 if quick else 40,
        warmups=2,
    )
    report.timings(timings)
    one = timings["one window, Scorer"].median
    report.figure("one window, one thread, Python included", one * 1e6, "us", at_most=250)
    report.figure(
        "one window, processor time", statistics.median(timings["one window, Scorer"].cpu_seconds) * 1e6, "us"
    )
    report.figure("one window, onnxruntime's session alone", timings["one window, bare session"].median * 1e6, "us")
    pinned = measure(Subject(built.model_onnx, rows[:64]), provider="cpu", batches=(1,), threads=1).one_core_ms
    if pinned is not None:
        report.figure("one window, one core and one thread", pinned, "ms", at_most=85)
    blocks = take_turns(
        [Side("block", lambda n: scorer.score(rows[(k := n * 997 % shift) : k + len(block)]), items=len(block))],
        repeats=2 if quick else 7,
    )
    report.timings(blocks)
    report.figure(f"block of {len(block):,} windows", blocks["block"].per_item * 1e6, "us a window")
    loading = take_turns([Side("load", lambda _: Scorer(built.model_onnx))], repeats=10)
    report.timings(loading)
    report.figure("loading", loading["load"].median * 1e3, "ms", at_most=50)
    report.figure("model.onnx", len(built.model_onnx) / 1000, "kB")
    report.figure("bundle, golden windows and card included", len(phones.packed.data) / 1000, "kB", at_most=300)
    report.figure("bundle unpacked", phones.packed.unpacked_bytes / 1000, "kB")
    report.figure("conversion of the forest", built.convert_seconds * 1e3, "ms")
    _entries(report, phones.packed.data)


def _entries(report: Report, data: bytes) -> None:
    import io
    import zipfile

    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        rows: list[list[Cell]] = [
            [entry.filename, entry.file_size, entry.compress_size] for entry in archive.infolist()
        ]
    report.table("What the bundle holds", ("file", "bytes", "bytes in the bundle"), rows)

"""Does a browser score as Python does, and how fast: golden windows, windows of cmapss, one window in a worker."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks import data, web_scoring
from benchmarks.harness import Report
from edge_runtime.contract.golden import GoldenSpec
from edge_runtime.scoring import Scorer
from exporter.built import BuiltModel

QUESTION = (
    "Raw scores and verdicts of headless Chromium beside Python's, on golden windows and 10,000 windows of cmapss;"
    " and what one window costs in the browser's worker."
)
LARGEST_DIFFERENCE, MOST_MS = 1e-6, 1.0
CONTEXT = ("op_setting_1", "op_setting_2", "op_setting_3")
WINDOWS = 10_000
TIMED = 2_000
Windows = npt.NDArray[np.float32]


def run(report: Report, *, quick: bool) -> None:
    """Score the engines' and the phones' models in both, and time the browser's worker."""
    if not web_scoring.is_built() or web_scoring.chromium() is None:
        report.note(
            "Chromium or the built harness (make build/web_harness/index.html) is missing: nothing was measured."
        )
        return
    from playwright.sync_api import sync_playwright

    with (
        tempfile.TemporaryDirectory() as folder,
        sync_playwright() as playwright,
        web_scoring.browser_scoring(playwright) as browser,
    ):
        for name, model, windows in _models(report, Path(folder), quick=quick):
            _golden(report, browser, name, model)
            _compare(report, browser, f"{len(windows):,} windows of {name}", model.model_onnx, windows)
            times = browser.times_us(200 if quick else TIMED) / 1000
            report.figure(
                f"one window of {name} in the worker, median", float(np.median(times)), "ms",
                at_most=None if quick else MOST_MS,
            )  # fmt: skip
            report.figure(f"one window of {name} in the worker, 99 %", float(np.quantile(times, 0.99)), "ms")


def _models(report: Report, folder: Path, *, quick: bool) -> list[tuple[str, BuiltModel, Windows]]:
    """Return (name, model, (m, W, S) windows): the demo's engines where they are, and the phones of the promises."""
    from benchmarks.models import build_phones, settings, windows_of
    from exporter.dataset import read_fleet
    from exporter.model_build import build_models

    count = 1_000 if quick else WINDOWS
    found = []
    if data.available():
        source = data.data_folder("cmapss")
        report.progress("building the engines' model")
        spec = settings(source / "readings.parquet", source / "labels.parquet", folder, name="cmapss", context=CONTEXT)
        spec = replace(spec, release=replace(spec.release, cohorts=False))
        if quick:
            spec = replace(spec, detector=replace(spec.detector, trees=40))
        model = build_models(spec, progress=None).models[0]
        found.append(("cmapss", model, _spread(windows_of(read_fleet(spec.data), model).blocks(), count)))
    else:
        report.note(data.MISSING)
    report.progress("building the phones' model")
    phones = build_phones(folder, devices=20 if quick else 40)
    found.append(("phones", phones.built, _spread(windows_of(phones.fleet, phones.built).blocks(), count)))
    return found


def _spread(blocks: object, count: int) -> Windows:
    """Return windows spread over all."""
    every = np.concatenate(list(blocks))  # type: ignore[call-overload]
    windows: Windows = every[np.linspace(0, len(every) - 1, min(count, len(every))).astype(int)]
    return windows


def _golden(report: Report, browser: web_scoring.BrowserScoring, name: str, model: BuiltModel) -> None:
    spec = GoldenSpec.from_bytes(model.golden_json)
    windows = golden_windows(spec, model.golden_f32)
    _compare(report, browser, f"{spec.windows} golden windows of {name}", model.model_onnx, windows)


def golden_windows(spec: GoldenSpec, blob: bytes) -> Windows:
    """Return the (n, W, S) golden windows of ``golden.f32``."""
    cells = spec.windows * spec.slots * spec.signals
    return np.frombuffer(blob, "<f4", cells).reshape(spec.windows, spec.slots, spec.signals)


def _compare(report: Report, browser: web_scoring.BrowserScoring, what: str, model: bytes, windows: Windows) -> None:
    browser.load(model, windows)
    raw, flags = browser.score()
    verdicts = Scorer(model).score(windows)
    difference = float(np.abs(raw - verdicts.raw_score.ravel()).max())
    report.figure(f"{what}: largest difference of raw scores", difference, "", at_most=LARGEST_DIFFERENCE)
    report.figure(f"{what}: other verdicts", int((flags != verdicts.is_anomaly.ravel()).sum()), "", at_most=0)

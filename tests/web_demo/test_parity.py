"""A real browser scores as Python does: the golden windows of a trained model, and the same windows alone and in blocks."""

from __future__ import annotations

import numpy as np
import pytest
from journey.stack import Stack
from playwright.sync_api import Playwright

from benchmarks import web_scoring
from benchmarks.web import golden_windows
from edge_runtime.contract.bundle import open_bundle
from edge_runtime.contract.golden import GoldenSpec
from edge_runtime.scoring import Scorer


def test_raw_scores_and_verdicts_are_pythons(stack: Stack, playwright_driver: Playwright) -> None:
    if not web_scoring.is_built():
        pytest.skip("what the browser runs is not built (make build/web_harness/index.html)")
    path = next((stack.folder / "browsers" / "build").rglob("*.bundle"))
    files = open_bundle(path.read_bytes()).files
    windows = golden_windows(GoldenSpec.from_bytes(files["golden.json"]), files["golden.f32"])
    expected = Scorer(files["model.onnx"]).score(windows)
    with web_scoring.browser_scoring(playwright_driver) as browser:
        browser.load(files["model.onnx"], windows)
        raw, flags = browser.score()
        alone = browser.times_us(len(windows))
    assert np.abs(raw - expected.raw_score.ravel()).max() <= 1e-6
    assert (flags == expected.is_anomaly.ravel()).all()
    assert len(alone) == len(windows)

"""A real browser scores as Python does: forests with context to 1e-6, networks to the tolerance of golden windows."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Playwright
from simulators.web_parity import write_small_cases

from benchmarks import web_scoring
from edge_runtime.contract.golden import RAW_TOLERANCE

# Multiplying matrices rounds otherwise with and without fused instructions, which wasm has not.
FOREST, NETWORK = 1e-6, RAW_TOLERANCE


def test_raw_scores_and_verdicts_are_pythons(playwright_driver: Playwright, tmp_path: Path) -> None:
    if not web_scoring.is_built():
        pytest.skip("what the browser runs is not built (make build/web_harness/index.html)")
    write_small_cases(tmp_path)
    cases = sorted(path.parent for path in tmp_path.rglob("windows.f32"))
    assert {case.name.split("-")[0] for case in cases} == {"isolation_forest", "autoencoder"}
    with web_scoring.browser_scoring(playwright_driver) as browser:
        for case in cases:
            manifest = json.loads((case / "manifest.json").read_text())
            shape = (-1, manifest["window"]["slots"], len(manifest["signals"]))
            browser.load((case / "model.onnx").read_bytes(), np.fromfile(case / "windows.f32", "<f4").reshape(shape))
            raw, flags = browser.score()
            tolerance = FOREST if case.name.startswith("isolation_forest") else NETWORK
            assert np.abs(raw - np.fromfile(case / "raw.f32", "<f4")).max() <= tolerance, case.name
            assert (flags == np.fromfile(case / "flags.u8", np.uint8)).all(), case.name
            assert len(browser.times_us(20)) == 20

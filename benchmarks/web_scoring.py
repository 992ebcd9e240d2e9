"""The device's scoring in a real browser, driven from Python: load a model, score windows, time them.

``make`` builds what the browser runs from the very modules of the page (``web_demo/harness``).
"""

from __future__ import annotations

import http.server
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from playwright.sync_api import Page, Playwright

HARNESS = Path(__file__).resolve().parent.parent / "build" / "web_harness"
ARGUMENTS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking")
# A page that no other origin can look into gets a clock of 5 microseconds instead of 100.
_ISOLATED = {"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp"}


class BrowserScoring:
    """One page with the device's scoring worker."""

    def __init__(self, page: Page, folder: Path) -> None:
        self._page = page
        self._folder = folder
        self._loaded = 0

    def load(self, model: bytes, windows: npt.NDArray[np.float32]) -> None:
        """Load a model and (m, W, S) windows."""
        self._loaded += 1  # a name of its own each time: browsers keep what they fetched
        names = f"{self._loaded}.onnx", f"{self._loaded}.f32"
        (self._folder / names[0]).write_bytes(model)
        (self._folder / names[1]).write_bytes(np.ascontiguousarray(windows, "<f4").tobytes())
        task = {"model": names[0], "windows": names[1], "slots": windows.shape[1], "signals": windows.shape[2]}
        self._page.evaluate("task => harness.load(task)", task)

    def score(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
        """Return raw scores and verdicts of all windows, (m,) each."""
        scores = self._page.evaluate("harness.score()")
        return np.array(scores["raw"]), np.array(scores["flags"], bool)

    def times_us(self, most: int) -> npt.NDArray[np.float64]:
        """Score at most so many windows, each alone, and return the microseconds that the worker took for each."""
        return np.array(self._page.evaluate("most => harness.times(most)", most))


def chromium() -> str | None:
    """Return where the system's chromium is, None when there is none."""
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def is_built() -> bool:
    """Whether the harness is there (``make build/web_harness/index.html``)."""
    return (HARNESS / "index.html").is_file()


@contextmanager
def browser_scoring(playwright: Playwright) -> Iterator[BrowserScoring]:
    """Serve the harness and open it in headless Chromium."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copytree(HARNESS, folder, dirs_exist_ok=True)
        with _serving(folder) as url:
            browser = playwright.chromium.launch(executable_path=chromium(), args=list(ARGUMENTS))
            page = browser.new_page()
            page.goto(url)
            yield BrowserScoring(page, folder)
            browser.close()


class _Handler(http.server.SimpleHTTPRequestHandler):
    def end_headers(self) -> None:
        for header, value in _ISOLATED.items():
            self.send_header(header, value)
        super().end_headers()

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@contextmanager
def _serving(folder: Path) -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()

"""A whole server as processes, a model of simulated browsers published on it, and Debian's chromium as the device."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from ctypes.util import find_library
from pathlib import Path

import pytest
from journey.stack import Stack, run
from playwright.sync_api import BrowserContext, Page, Playwright, sync_playwright

from sync_server.web_assets.built import FOLDER

MODEL = "browser"
ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
DESKTOP = {"width": 1280, "height": 900}


@pytest.fixture(scope="session")
def playwright_driver() -> Iterator[Playwright]:
    """Playwright; `make test` installs the browser and builds the page."""
    if not (FOLDER / "device" / "index.html").is_file():
        pytest.skip("the device's page is not built (make web)")
    if _chromium() is None:
        pytest.skip("no chromium on this machine (Debian and Ubuntu: apt install chromium)")
    if find_library("atomic") is None:
        pytest.skip("Playwright's driver needs libatomic (Debian and Ubuntu: apt install libatomic1)")
    with sync_playwright() as driver:
        yield driver


def _chromium() -> str | None:
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory, playwright_driver: Playwright) -> Iterator[Stack]:
    """A server with a trained model for browsers as release 1 of `browser`, rolled out on the channel `browsers`."""
    stack = Stack(tmp_path_factory.mktemp("stack"))
    try:
        stack.open_workshop()
        stack.start()
        stack.make_tokens()
        _train(stack)
        yield stack
    finally:
        stack.stop()


def _train(stack: Stack) -> None:
    """Train on a small fleet of simulated browsers, with the exporter's own commands, and publish."""
    folder = stack.folder / "browsers"
    run("exporter", "simulate-browsers", "--out", folder, "--browsers", "40", "--minutes", "8", "--seed", "5")
    config = folder / "model.toml"
    run("exporter", "init", folder / "readings.parquet", "--context", "", "--model", MODEL, "--out", config)
    text = config.read_text()
    for shown, wanted in (
        ('# kind = "isolation_forest"', 'kind = "autoencoder"'),
        ("# alarms_per_device_day = 0.02", "alarms_per_device_day = 48"),
        ('# channels = ["stable"]', 'channels = ["browsers"]'),
    ):
        assert shown in text
        text = text.replace(shown, wanted)
    config.write_text(text)
    run(
        "exporter", "build", "--config", config, "--out", folder / "build", "--repository", stack.repository,
        "--targets-key", stack.folder / "keys" / "targets.pem", "--publish", stack.url, "--token-file",
        stack.token_files["publisher"], "--channel", "browsers", "--share", "100%",
    )  # fmt: skip


def link_of(stack: Stack, model: str = MODEL, channel: str = "browsers", url: str | None = None) -> str:
    """Return a link that one browser joins by."""
    return run(
        "sync-server", "enrolment", "create", "--data-dir", stack.data_dir, "--model", model, "--channel", channel,
        "--url", url or stack.url, "--browser",
    ).strip()  # fmt: skip


@pytest.fixture
def profile(playwright_driver: Playwright, tmp_path: Path) -> Iterator[Callable[..., BrowserContext]]:
    """Open a browser on a profile that outlives it: `profile()` again is the same one, reopened."""
    opened: list[BrowserContext] = []

    def open_profile(name: str = "profile", *more: str, **options: object) -> BrowserContext:
        context = playwright_driver.chromium.launch_persistent_context(
            tmp_path / name, executable_path=_chromium(), args=[*ARGUMENTS, *more], viewport=DESKTOP, **options
        )  # type: ignore[arg-type]
        opened.append(context)
        return context

    yield open_profile
    for context in opened:
        context.close()


@pytest.fixture(scope="session")
def screenshots() -> Path:
    """Where people find what the page looked like: build/screenshots."""
    folder = Path(__file__).resolve().parents[2] / "build" / "screenshots"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def page_of(context: BrowserContext) -> Page:
    """Return the context's first page."""
    return context.pages[0] if context.pages else context.new_page()

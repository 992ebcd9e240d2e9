"""A whole server as processes, a model of simulated browsers published on it, and Debian's chromium as the device."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from journey.stack import Stack, run
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Playwright, expect
from simulators.chromium import ARGUMENTS, chromium, driver, skip_without_chromium

from sync_server.web_assets.built import FOLDER

MODEL = "browser"
PATIENCE_MS = 60_000  # for machines that do more than this; a test that passes waits for nothing
RECORDED = 10_500
PADDING = 400_000
DESKTOP = {"width": 1280, "height": 900}


@pytest.fixture(scope="module")
def playwright_driver() -> Iterator[Playwright]:
    """Playwright; a module's own, because it holds the event loop of this thread."""
    expect.set_options(timeout=PATIENCE_MS)
    with driver() as playwright:
        yield playwright
    expect.set_options(timeout=5_000)


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A server with a trained model `browser` on the channel `browsers`, and releases 1 to 3 of `pumps` on `stable`.

    Release 1 of `pumps` is rolled out, and the server has a recording of a pump for browsers to replay.
    """
    skip_without_chromium()
    if not (FOLDER / "device" / "index.html").is_file():
        pytest.skip("the device's page is not built (make web)")
    stack = Stack(tmp_path_factory.mktemp("stack"))
    try:
        stack.open_workshop()
        stack.start()
        stack.make_tokens()
        _train(stack)
        for release in (1, 2, 3):
            stack.publish(stack.small_bundle(release, padding=PADDING), channels=("stable",))
        stack.roll_out("stable", "pumps", 1)
        _record(stack)
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


def _record(stack: Stack) -> None:
    """Put a pump's telemetry, a reading a minute with a few hot minutes, where the server serves recordings."""
    folder = stack.data_dir / "recordings"
    folder.mkdir()
    rows = [f"{60 * i},{6.0 if i % 500 == 250 else 0.1},0.1" for i in range(RECORDED)]
    (folder / "pumps.csv").write_text("\n".join(("timestamp,heat,load", *rows)))


@pytest.fixture
def profile(playwright_driver: Playwright, tmp_path: Path) -> Iterator[Callable[..., BrowserContext]]:
    """Open a browser on a profile that outlives it: `profile()` again is the same one, reopened."""
    opened: list[BrowserContext] = []

    def open_profile(name: str = "profile", *more: str, **options: object) -> BrowserContext:
        context = playwright_driver.chromium.launch_persistent_context(
            tmp_path / name, executable_path=chromium(), args=[*ARGUMENTS, *more], viewport=DESKTOP, **options
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


class DevicePage:
    """The device's page in a browser, as a person reads and uses it."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.url = url
        self.complaints: list[str] = []
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("console", self._listen)

    def _listen(self, message: ConsoleMessage) -> None:
        # Requests that fail are what some tests are about, and Chromium reports each.
        expected = (
            "Failed to load resource",
            "Banner not shown",
            "The Cross-Origin-Opener-Policy header has been ignored",
            "Service Worker registration blocked by Playwright",
        )
        if message.type in ("error", "warning") and not message.text.startswith(expected):
            self.complaints.append(message.text)

    def open(self, link: str | None = None) -> DevicePage:
        self.page.goto(link or f"{self.url}/device/")
        return self

    def expect_sign(self, word: str, *, seconds: float = PATIENCE_MS / 1000) -> None:
        expect(self.page.locator("#sign-word")).to_have_text(word, timeout=1000 * seconds)

    def expect_score(self, state: str, *, seconds: float = PATIENCE_MS / 1000) -> None:
        """Wait for a verdict: `healthy` or `anomaly`."""
        expect(self.page.locator("#verdict")).to_have_attribute("data-state", state, timeout=1000 * seconds)

    def expect_release(self, release: int, model: str, *, seconds: float = PATIENCE_MS / 1000) -> None:
        expect(self.page.locator("#bundle-words")).to_have_text(f"Release {release} of {model}", timeout=1000 * seconds)

    def expect_message(self, text: str, *, seconds: float = PATIENCE_MS / 1000) -> None:
        expect(self.page.locator("#messages")).to_contain_text(text, timeout=1000 * seconds)

    def ask(self) -> None:
        self.page.get_by_role("button", name="Ask the server now").click()

    def deliver(self) -> None:
        """Ask the server, and wait until that is done and nothing waits here any more."""
        self.ask()
        button = self.page.get_by_role("button", name="Ask the server now")
        expect(button).not_to_have_attribute("aria-busy", "true", timeout=PATIENCE_MS)
        self.wait_for_figure("waiting", lambda n: n == 0)

    def speed(self, name: str) -> None:
        self.page.get_by_label("Speed").select_option(name)

    def figure(self, name: str) -> int:
        """Return a figure of the outbox, such as `waiting`."""
        box = self.page.locator("#outbox > div").filter(has=self.page.get_by_text(name, exact=True))
        return int(box.locator("dd").inner_text().replace(",", ""))

    def wait_for_figure(self, name: str, wanted: Callable[[int], bool], *, seconds: float = PATIENCE_MS / 1000) -> int:
        """Wait until a figure of the outbox is as wanted, and return it."""
        deadline = time.monotonic() + seconds
        while not wanted(found := self.figure(name)):
            assert time.monotonic() < deadline, f"{name} stays {found}"
            self.page.wait_for_timeout(100)
        return found

    @property
    def device_id(self) -> str:
        return self.page.locator("#identity code").first.inner_text()


@pytest.fixture(scope="session")
def pumps_link(stack: Stack) -> str:
    """A link to the model `pumps`, which replays a recording, for as many browsers as tests open."""
    return stack.link("pumps", "stable", uses=100)


@pytest.fixture
def pumps_release(stack: Stack) -> Iterator[Callable[[int], None]]:
    """Roll a release of `pumps` out; release 1 comes back when the test ends, since all tests share the server."""
    changed: list[int] = []

    def roll_out(release: int) -> None:
        changed.append(release)
        stack.roll_out("stable", "pumps", release)

    yield roll_out
    if changed:
        stack.roll_out("stable", "pumps", 1)


@pytest.fixture(scope="session")
def browser_link(stack: Stack) -> str:
    """A link to the model of the browser's own signals."""
    return stack.link(MODEL, "browsers", uses=100)


@pytest.fixture(scope="module")
def browser(playwright_driver: Playwright) -> Iterator[Browser]:
    """One browser for all tests of a module that need no profile of their own: each opens a private window in it."""
    running = playwright_driver.chromium.launch(executable_path=chromium(), args=ARGUMENTS)
    yield running
    running.close()


@pytest.fixture
def window(browser: Browser) -> Iterator[Callable[..., BrowserContext]]:
    """Open a private window, which shares nothing with others."""
    opened: list[BrowserContext] = []

    def open_window(**options: object) -> BrowserContext:
        opened.append(browser.new_context(viewport=DESKTOP, **options))  # type: ignore[arg-type]
        return opened[-1]

    yield open_window
    for context in opened:
        context.close()


@pytest.fixture
def device_page(stack: Stack, window: Callable[..., BrowserContext]) -> Iterator[Callable[..., DevicePage]]:
    """Open the page, in a private window of its own unless told; what its console complains of fails the test."""
    pages: list[DevicePage] = []

    def open_page(context: BrowserContext | None = None, *, url: str | None = None) -> DevicePage:
        pages.append(DevicePage((context or window()).new_page(), url or stack.url))
        return pages[-1]

    yield open_page
    assert [complaint for page in pages for complaint in page.complaints] == []

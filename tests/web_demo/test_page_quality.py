"""What Lighthouse would look at, checked here: installable, names, contrast, nothing that jumps, what is transferred."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from journey.stack import Stack
from playwright.sync_api import BrowserContext, Page, Request, expect
from web_demo.conftest import DevicePage

AXE = Path(__file__).resolve().parents[2] / "web_demo" / "node_modules" / "axe-core" / "axe.min.js"
FIRST_VISIT_BYTES = 3_000_000
GOOD_LAYOUT_SHIFT = 0.1  # https://web.dev/articles/cls
SHIFTS = """
window.shifted = 0;
new PerformanceObserver((list) => {
  for (const entry of list.getEntries()) if (!entry.hadRecentInput) window.shifted += entry.value;
}).observe({ type: "layout-shift", buffered: true });
"""
SIZES = ({"width": 1280, "height": 900}, {"width": 375, "height": 740})


def transfers(context: BrowserContext) -> list[Request]:
    """Return a list that fills with every request that went over the network."""
    sent: list[Request] = []

    def note(request: Request) -> None:
        answer = request.response()
        if answer is not None and not answer.from_service_worker:
            sent.append(request)

    context.on("requestfinished", note)
    return sent


def transferred(sent: list[Request]) -> int:
    sizes = [request.sizes() for request in sent]
    return sum(size["responseBodySize"] + size["responseHeadersSize"] for size in sizes)


def test_the_first_visit_fits_and_the_second_is_the_poll(
    stack: Stack, browser_link: str, device_page: Callable[..., DevicePage], window: Callable[..., BrowserContext]
) -> None:
    context = window()
    sent = transfers(context)
    page = device_page(context).open(browser_link)
    page.expect_score("healthy")
    page.page.evaluate("navigator.serviceWorker.ready")
    first = transferred(sent)
    print(f"first visit: {first} bytes in {len(sent)} requests")
    assert 2_000_000 < first <= FIRST_VISIT_BYTES
    assert any(request.url.endswith(".wasm") for request in sent)

    sent.clear()
    page.open()
    page.expect_score("healthy")
    asked = {request.url.removeprefix(stack.url).split("?")[0] for request in sent}
    print(f"second visit: {transferred(sent)} bytes, {sorted(asked)}")
    page_files = {url for url in asked if url.startswith("/device/")}
    assert page_files <= {"/device/service-worker.js"}
    assert not [url for url in asked if url.startswith("/repository/targets/")]
    assert transferred(sent) < 20_000


def test_the_page_can_be_installed(
    device_page: Callable[..., DevicePage], profile: Callable[..., BrowserContext]
) -> None:
    page = device_page(profile()).open()  # nothing can be installed from a private window
    page.page.evaluate("navigator.serviceWorker.ready")
    session = page.page.context.new_cdp_session(page.page)
    assert session.send("Page.getAppManifest")["errors"] == []
    assert session.send("Page.getInstallabilityErrors")["installabilityErrors"] == []


def violations(page: Page) -> list[Any]:
    """Return what axe finds: names, roles, contrast, landmarks, headings, labels."""
    if not page.evaluate("typeof window.axe === 'object'"):
        page.evaluate(AXE.read_text() + "; 0")
    found = page.evaluate("axe.run(document, { resultTypes: ['violations'] })")
    return [(item["id"], [node["html"][:200] for node in item["nodes"]]) for item in found["violations"]]


@pytest.mark.skipif(not AXE.is_file(), reason="axe-core is not installed (make web)")
def test_names_roles_and_contrast(
    stack: Stack, browser_link: str, device_page: Callable[..., DevicePage], screenshots: Path
) -> None:
    page = device_page().open()
    expect(page.page.get_by_label("Link or enrolment line")).to_be_visible()
    assert violations(page.page) == []
    page.open(browser_link)
    page.expect_score("healthy")
    page.page.get_by_role("button", name="Make a fault happen").click()
    page.expect_score("anomaly")
    page.page.get_by_text("Proof against the trained model").click()
    for scheme in ("light", "dark"):
        page.page.emulate_media(color_scheme=scheme, reduced_motion="reduce")  # type: ignore[arg-type]
        for size in SIZES:
            page.page.set_viewport_size(size)  # type: ignore[arg-type]
            page.page.wait_for_timeout(200)
            assert violations(page.page) == [], (scheme, size)
            overflow = "document.documentElement.scrollWidth > document.documentElement.clientWidth"
            assert not page.page.evaluate(overflow), (scheme, size)
            page.page.screenshot(path=screenshots / f"device-{scheme}-{size['width']}.png", full_page=True)


def test_nothing_jumps_while_the_page_comes_up(
    stack: Stack, browser_link: str, device_page: Callable[..., DevicePage], window: Callable[..., BrowserContext]
) -> None:
    context = window()
    page = device_page(context).open(browser_link)
    page.expect_release(1, "browser")
    page.page.add_init_script(SHIFTS)
    for size in SIZES:
        page.page.set_viewport_size(size)  # type: ignore[arg-type]
        page.open()
        page.expect_score("healthy")
        assert page.page.evaluate("window.shifted") < GOOD_LAYOUT_SHIFT, size


def test_the_keyboard_reaches_everything(
    stack: Stack, browser_link: str, device_page: Callable[..., DevicePage]
) -> None:
    page = device_page().open(browser_link)
    page.expect_score("healthy")
    page.page.keyboard.press("Tab")
    expect(page.page.get_by_role("link", name="Skip to content")).to_be_focused()
    reached = set()
    for _ in range(14):
        page.page.keyboard.press("Tab")
        reached.add(page.page.evaluate("document.activeElement.id"))
    assert {"source", "run", "fault", "sync", "anomalies"} <= reached
    page.page.locator("#fault").focus()
    page.page.keyboard.press("Enter")
    expect(page.page.locator("#source-words")).to_contain_text("A fault is happening")

"""The dashboard as a person uses it: log in, look, filter, decide, with a keyboard and on a phone, light and dark."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

PASSWORD = "correct horse battery"
DESKTOP = {"width": 1280, "height": 900}
PHONE = {"width": 375, "height": 740}
PAGES = {
    "fleet": "/",
    "incidents": "/incidents",
    "incident": "/incidents/1",
    "devices": "/devices",
    "rollouts": "/rollouts",
    "rollout": "/rollouts/stable",
    "audit": "/audit",
}


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A fresh window; anything the console complains about (a broken policy, a missing file) fails the test."""
    context = browser.new_context(viewport=DESKTOP)
    opened = context.new_page()
    complaints: list[str] = []
    opened.on(
        "console", lambda message: complaints.append(message.text) if message.type in ("error", "warning") else None
    )
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    yield opened
    context.close()
    assert not complaints


def log_in(page: Page, address: str, name: str = "olga", path: str = "/") -> None:
    page.goto(address + path)
    page.get_by_label("User name").fill(name)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("button", name="Log out")).to_be_visible()
    # Visible is not yet whole: the rest of the page may still be on its way.
    page.wait_for_load_state("load")


def overflows(page: Page) -> bool:
    """Whether the page scrolls sideways and stays so: one moment of a page that still settles says nothing."""
    page.wait_for_load_state("load")
    # Not wait_for_function: it evaluates in the page, where the content security policy forbids that.
    for _ in range(50):
        if page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth"):
            return False
        page.wait_for_timeout(100)
    return True


def test_log_in_look_around_and_log_out(page: Page, address: str, screenshots: Path) -> None:
    page.goto(address + "/incidents")
    expect(page.get_by_label("User name")).to_be_focused()
    page.screenshot(path=screenshots / "login.png")
    log_in(page, address, path="/incidents")
    expect(page).to_have_url(f"{address}/incidents")
    page.get_by_role("link", name="Fleet").click()
    expect(page.get_by_role("heading", name="Fleet")).to_be_visible()
    expect(page.get_by_role("img", name="Anomalous windows")).to_be_visible()
    page.get_by_text("The same as a table").click()
    expect(page.get_by_role("columnheader", name="Anomalous")).to_be_visible()
    page.get_by_label("Range").select_option("30 days")
    page.get_by_role("button", name="Show").click()
    expect(page.get_by_text("One bar is a day")).to_be_visible()
    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_role("heading", name="Log in")).to_be_visible()
    page.goto(address + "/")
    expect(page.get_by_role("heading", name="Log in")).to_be_visible()


def test_filter_incidents_and_acknowledge_one_with_a_note(page: Page, address: str, screenshots: Path) -> None:
    log_in(page, address, path="/incidents")
    rows = page.locator("tbody tr")
    expect(rows).to_have_count(9)
    page.get_by_label("Cohort").select_option("south")
    page.get_by_label("Status").first.select_option("open")
    page.get_by_role("button", name="Filter").click()
    expect(rows).to_have_count(3)
    first = rows.first
    number = first.get_by_role("link").first.inner_text()
    first.get_by_text("Change").click()
    first.get_by_label("Why").fill("crew sent to look at the pump")
    page.screenshot(path=screenshots / "incidents-deciding.png", full_page=True)
    first.get_by_role("button", name="Save").click()
    expect(rows).to_have_count(2)
    page.get_by_label("Status").first.select_option("acknowledged")
    page.get_by_role("button", name="Filter").click()
    expect(rows).to_have_count(1)
    page.get_by_role("link", name=number, exact=True).click()
    expect(page.get_by_text("crew sent to look at the pump")).to_be_visible()
    expect(page.get_by_text("operator olga,")).to_be_visible()


def test_one_device(page: Page, address: str, screenshots: Path) -> None:
    log_in(page, address, path="/devices")
    page.get_by_role("link", name="pump-01").click()
    expect(page.get_by_role("heading", name="pump-01")).to_contain_text("cloned")
    expect(page.get_by_role("img", name="Highest score of stored anomalies")).to_be_visible()


def test_a_rollout_is_watched_and_rolled_back(page: Page, address: str, screenshots: Path) -> None:
    log_in(page, address, path="/rollouts")
    page.get_by_role("link", name="beta").click()
    expect(page.get_by_role("alert")).to_contain_text("The gate anomalies tripped")
    expect(page.get_by_role("img", name="Share of anomalous windows").locator("canvas")).to_be_visible()
    page.get_by_text("Roll back", exact=True).first.click()
    page.get_by_label("Why").last.fill("three times the anomalies")
    page.get_by_role("button", name="Roll back").click()
    expect(page.get_by_role("heading", name="beta")).not_to_contain_text("rolled back")  # the box is not ticked
    page.get_by_label("Yes, take release 4 back from beta").check()
    page.screenshot(path=screenshots / "rollout-deciding.png", full_page=True)
    page.get_by_role("button", name="Roll back").click()
    expect(page.get_by_role("heading", name="beta")).to_contain_text("rolled back")
    expect(page.get_by_text("three times the anomalies")).to_be_visible()


def test_the_audit_trail_is_followed_by_its_links(page: Page, address: str, screenshots: Path) -> None:
    log_in(page, address, path="/audit")
    page.get_by_role("link", name="rollout.start", exact=True).first.click()
    expect(page.get_by_label("What", exact=True)).to_have_value("rollout.start")
    expect(page.locator("tbody tr")).to_have_count(4)


def test_plots_speak_to_the_keyboard(page: Page, address: str) -> None:
    log_in(page, address)
    page.get_by_role("img", name="Anomalous windows").focus()
    page.keyboard.press("End")
    expect(page.locator("figure .sr").first).to_contain_text("anomalous windows")
    said = page.locator("figure .sr").first.inner_text()
    page.keyboard.press("ArrowLeft")
    expect(page.locator("figure .sr").first).not_to_have_text(said)


def test_a_viewer_sees_and_cannot_decide(page: Page, address: str) -> None:
    log_in(page, address, "vera", "/incidents")
    expect(page.locator("tbody tr")).to_have_count(9)
    expect(page.get_by_text("Change")).to_have_count(0)


def test_everything_works_from_the_keyboard(page: Page, address: str) -> None:
    log_in(page, address)
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
    expect(page.get_by_role("link", name="Skip to content")).to_be_in_viewport()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    assert page.evaluate("document.querySelector('main').contains(document.activeElement)")
    page.goto(address + "/incidents?status=open")
    page.locator("summary").first.focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.type("decided with the keyboard")
    with page.expect_navigation():
        page.keyboard.press("Enter")
    page.goto(address + "/incidents?status=acknowledged")
    expect(page.get_by_text("decided with the keyboard")).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_page_fits_a_phone_and_a_desk_in_light_and_dark(
    page: Page, address: str, screenshots: Path, scheme: str
) -> None:
    page.emulate_media(color_scheme=scheme)
    log_in(page, address, path="/devices")
    device = page.get_by_role("link", name="pump-01").get_attribute("href")
    pages = {**PAGES, "device": device}
    for name, path in pages.items():
        page.goto(address + path)
        for size in (DESKTOP, PHONE):
            page.set_viewport_size(size)
            assert not overflows(page), f"{path} scrolls sideways at {size['width']}"
            page.screenshot(path=screenshots / f"dashboard-{name}-{scheme}-{size['width']}.png", full_page=True)


def test_text_can_be_read(page: Page, address: str) -> None:
    """Every piece of text has a contrast of at least 4.5 to 1 (WCAG 2.2, 1.4.3) in both schemes."""
    log_in(page, address)
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        for path in PAGES.values():
            page.goto(address + path)
            weak = page.evaluate(CONTRAST)
            assert weak == [], (scheme, path)


CONTRAST = """() => {
  const light = c => { const [r, g, b] = c.map(v => { v /= 255; return v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4 });
    return .2126 * r + .7152 * g + .0722 * b };
  const parse = text => text.match(/[0-9.]+/g).map(Number);
  const ground = node => { for (; node; node = node.parentElement) { const c = parse(getComputedStyle(node).backgroundColor);
    if (c.length < 4 || c[3] === 1) return c.slice(0, 3) } return [255, 255, 255] };
  const weak = [];
  for (const node of document.querySelectorAll('body *')) {
    if (![...node.childNodes].some(n => n.nodeType === 3 && n.textContent.trim()) || !node.checkVisibility()) continue;
    if (node.closest('svg') || node.tagName === 'OPTION') continue;
    const [a, b] = [light(parse(getComputedStyle(node).color).slice(0, 3)), light(ground(node))].sort((x, y) => y - x);
    if ((a + .05) / (b + .05) < 4.5) weak.push(node.tagName + '.' + node.className + ': ' + node.textContent.trim().slice(0, 40));
  }
  return weak;
}"""

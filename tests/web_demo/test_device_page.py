"""The device's page as a person uses it: join, watch, break something, go offline, come back, get an update."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from journey.stack import Stack, run
from playwright.sync_api import BrowserContext, expect
from web_demo.conftest import MODEL, DevicePage

PHONE = {"width": 375, "height": 740}
PASSWORD = "correct horse battery"


def stored(stack: Stack, device_id: str) -> list[tuple[int, int]]:
    """Return (stream id, sequence) of every anomaly record that the server holds of a device, in order."""
    rows = stack.sql(
        "SELECT stream_id, sequence FROM anomalies WHERE device_id = %s ORDER BY stream_id, sequence", device_id
    )
    return [(row["stream_id"], row["sequence"]) for row in rows]


def held(stack: Stack, device_id: str) -> int:
    """Return how many records the server holds of a device, whatever they are, and check that none is missing."""
    rows = stack.sql("SELECT held::text AS held FROM streams WHERE device_id = %s", device_id)
    total = 0
    for row in rows:
        first, after = row["held"].strip("{[)}").split(",")
        assert first == "1", row
        total += int(after) - 1
    return total


def test_a_browser_joins_by_a_link_of_the_dashboard_and_reports_a_fault(
    stack: Stack, device_page: Callable[..., DevicePage], window: Callable[..., BrowserContext], screenshots: Path
) -> None:
    password = stack.folder / "olga.password"
    password.write_text(PASSWORD)
    run("sync-server", "operator", "create", "olga", "--data-dir", stack.data_dir, "--password-file", password)
    operator = window().new_page()
    operator.goto(f"{stack.url}/devices/add-browser")
    operator.get_by_label("User name").fill("olga")
    operator.get_by_label("Password").fill(PASSWORD)
    operator.get_by_role("button", name="Log in").click()
    operator.get_by_label("Channel").select_option("browsers")
    operator.get_by_role("button", name="Make a link").click()
    link = operator.locator("a[href*='#enrol=']").inner_text()
    operator.screenshot(path=screenshots / "add-browser.png", full_page=True)

    page = device_page().open(link)
    expect(page.page).to_have_url(f"{stack.url}/device/")  # the line is a secret: it leaves the address
    page.expect_sign("Online")
    page.expect_release(1, MODEL)
    page.expect_score("healthy")
    page.page.screenshot(path=screenshots / "device-online.png", full_page=True)
    page.page.get_by_role("button", name="Make a fault happen").click()
    page.expect_score("anomaly")
    expect(page.page.locator("#anomalies li").first).to_contain_text("event loop")
    page.page.screenshot(path=screenshots / "device-anomaly.png", full_page=True)
    page.page.get_by_role("button", name="Pause").click()
    page.deliver()
    assert page.figure("dead letters") == 0

    device_id = page.device_id
    (row,) = stack.sql("SELECT kind, model, channel, active_release FROM devices WHERE id = %s", device_id)
    assert tuple(row.values()) == ("demo", MODEL, "browsers", 1)
    records = stored(stack, device_id)
    assert len(records) == len(set(records)) == page.page.locator("#anomalies li").count()


def test_offline_closed_reopened_and_back(
    stack: Stack,
    pumps_link: str,
    device_page: Callable[..., DevicePage],
    profile: Callable[..., BrowserContext],
    screenshots: Path,
) -> None:
    context = profile()
    page = device_page(context).open(pumps_link)
    page.expect_release(1, "pumps")
    page.page.evaluate("navigator.serviceWorker.ready")
    page.expect_score("healthy")
    device_id = page.device_id
    context.close()
    stack.stop()
    try:
        context = profile()
        page = device_page(context).open()
        page.expect_sign("Offline")
        expect(page.page.locator("#sign-why")).to_contain_text("Scoring goes on, results wait here.")
        page.speed("as fast as it goes")
        page.expect_score("healthy")
        waiting = page.wait_for_figure("waiting", lambda n: n > 20)
        page.page.get_by_role("button", name="Pause").click()
        page.page.screenshot(path=screenshots / "device-offline.png", full_page=True)
        page.page.set_viewport_size(PHONE)
        page.page.emulate_media(color_scheme="dark")
        page.page.screenshot(path=screenshots / "device-offline-phone-dark.png", full_page=True)
        # Closed once more while results wait: they are stored, not held in the page.
        context.close()
        context = profile()
        page = device_page(context).open()
        page.expect_sign("Offline")
        page.page.get_by_role("button", name="Pause").click()
        waiting = page.wait_for_figure("waiting", lambda n: n >= waiting)
    finally:
        stack.start()
    page.expect_sign("Online")
    page.deliver()
    assert held(stack, device_id) == page.figure("held by the server")
    records = stored(stack, device_id)
    assert len(records) == len(set(records)) > 0


def test_updates_arrive_while_the_page_is_open_and_bad_ones_are_refused(
    stack: Stack,
    pumps_link: str,
    pumps_release: Callable[[int], None],
    device_page: Callable[..., DevicePage],
    screenshots: Path,
) -> None:
    page = device_page().open(pumps_link)
    page.expect_release(1, "pumps")
    page.expect_score("healthy")
    digest = stack.digests["pumps", 2]
    (blob,) = [path for path in (stack.data_dir / "blobs").rglob("*") if path.name.startswith(digest)]
    whole = blob.read_bytes()
    blob.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    pumps_release(2)
    try:
        page.ask()
        page.expect_message("An update is refused")
        page.expect_message("Release 1 stays active")
        page.expect_sign("Online")
        page.expect_score("healthy")
        page.page.screenshot(path=screenshots / "device-refused.png", full_page=True)
        page.page.set_viewport_size(PHONE)
        page.page.screenshot(path=screenshots / "device-refused-phone.png", full_page=True)
        page.deliver()
        query = "SELECT update_outcome, update_reason, active_release FROM devices WHERE id = %s"
        (row,) = stack.sql(query, page.device_id)
        assert tuple(row.values()) == ("refused", "bad_digest", 1)
    finally:
        blob.write_bytes(whole)
    before = page.figure("held by the server")
    page.ask()
    page.expect_release(2, "pumps")
    page.expect_message("Release 2 was verified")
    page.expect_score("healthy")
    # Nothing was lost on the way: what is held is without holes.
    page.page.get_by_role("button", name="Pause").click()
    page.deliver()
    assert held(stack, page.device_id) == page.figure("held by the server") > before


def test_an_update_that_came_while_the_page_was_closed(
    pumps_link: str,
    pumps_release: Callable[[int], None],
    device_page: Callable[..., DevicePage],
    profile: Callable[..., BrowserContext],
) -> None:
    context = profile()
    page = device_page(context).open(pumps_link)
    page.expect_release(1, "pumps")
    page.page.evaluate("navigator.serviceWorker.ready")
    context.close()
    pumps_release(3)
    page = device_page(profile()).open()
    page.expect_release(3, "pumps")
    page.expect_score("healthy")


def test_ten_thousand_windows_are_replayed_while_the_page_answers(
    stack: Stack, pumps_link: str, device_page: Callable[..., DevicePage]
) -> None:
    page = device_page().open(pumps_link)
    page.expect_sign("Online")
    page.speed("as fast as it goes")
    words = page.page.locator("#source-words")
    page.page.get_by_role("button", name="Pause").click(timeout=2000)
    expect(words).to_have_text("Paused: nothing is measured.")
    page.page.get_by_role("button", name="Go on").click()
    page.page.get_by_text("Proof against the trained model").click(timeout=2000)
    expect(words).to_contain_text("The recording has come to its end.", timeout=60_000)
    page.deliver()
    (row,) = stack.sql("SELECT sum(windows) AS windows FROM summaries WHERE device_id = %s", page.device_id)
    assert row["windows"] >= 10_000

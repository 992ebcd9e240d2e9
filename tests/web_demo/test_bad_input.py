"""What goes wrong for a device in the browser: each time a sentence for a person, and the state before it works on."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from journey.stack import Stack
from playwright.sync_api import BrowserContext, Route, expect
from web_demo.conftest import DevicePage

AHEAD = "const now = Date.now; Date.now = () => now() + 366 * 86400000;"


def join(device_page: Callable[..., DevicePage], link: str, context: BrowserContext | None = None) -> DevicePage:
    """A browser that scores with some release of the pumps."""
    page = device_page(context).open(link)
    page.expect_sign("Online")
    page.expect_score("healthy")
    return page


def with_another_root(link: str) -> str:
    line, _, version = link.rpartition(":")
    return f"{line.rpartition(':')[0]}:{'0' * 64}:{version}"


def test_a_link_with_another_root_of_trust(
    stack: Stack, pumps_link: str, device_page: Callable[..., DevicePage]
) -> None:
    before = stack.sql("SELECT count(*) AS n FROM devices")
    page = device_page().open(with_another_root(pumps_link))
    page.expect_message("This browser could not join.")
    assert stack.sql("SELECT count(*) AS n FROM devices") == before
    page.page.get_by_label("Link or enrolment line").fill(pumps_link)
    page.page.get_by_role("button", name="Join").click()
    page.expect_sign("Online")


@pytest.mark.parametrize(
    "text", ["hello", "stella-enroll:2:https://x:t:0:1", "https://example.org/device/#enrol=%E0%A4%A"]
)
def test_text_that_is_no_link(device_page: Callable[..., DevicePage], text: str) -> None:
    page = device_page().open()
    page.page.get_by_label("Link or enrolment line").fill(text)
    page.page.get_by_role("button", name="Join").click()
    page.expect_message("This browser could not join.")
    expect(page.page.get_by_label("Link or enrolment line")).to_be_visible()


def test_a_link_lets_in_one_browser(stack: Stack, device_page: Callable[..., DevicePage]) -> None:
    link = stack.link("pumps", "stable")
    device_page().open(link).expect_sign("Online")
    second = device_page().open(link)
    second.expect_message("has let in all the devices it was made for")


def test_two_tabs_are_one_device(
    pumps_link: str, device_page: Callable[..., DevicePage], window: Callable[..., BrowserContext]
) -> None:
    context = window()
    first = join(device_page, pumps_link, context)
    second = device_page(context).open()
    second.expect_sign("Standing by")
    first.page.close()
    second.expect_sign("Online")
    second.expect_score("healthy")


def test_a_tab_killed_while_an_update_arrives(
    pumps_link: str,
    pumps_release: Callable[[int], None],
    device_page: Callable[..., DevicePage],
    window: Callable[..., BrowserContext],
) -> None:
    context = window()
    page = join(device_page, pumps_link, context)
    page.expect_release(1, "pumps")
    device = page.device_id
    page.page.route("**/repository/targets/**", lambda route: page.page.close())
    pumps_release(2)
    with page.page.expect_event("close"):
        page.ask()
    again = device_page(context).open()
    again.expect_sign("Online")
    again.expect_release(2, "pumps")
    again.expect_score("healthy")
    assert again.device_id == device


def test_a_link_that_fails_leaves_a_device_what_it_is(
    pumps_link: str, device_page: Callable[..., DevicePage], window: Callable[..., BrowserContext]
) -> None:
    context = window()
    page = join(device_page, pumps_link, context)
    device = page.device_id
    page.page.close()
    again = device_page(context).open(with_another_root(pumps_link))
    again.expect_message("This browser is a device already: pumps on the channel stable")
    again.expect_sign("Online")
    again.page.get_by_role("button", name="Join again").click()
    again.expect_message("This browser could not join.")
    again.expect_sign("Online")
    again.expect_score("healthy")
    assert again.device_id == device


def test_a_server_that_refuses_the_device(
    stack: Stack, pumps_link: str, device_page: Callable[..., DevicePage], window: Callable[..., BrowserContext]
) -> None:
    page = join(device_page, pumps_link, window(service_workers="block"))
    problem = json.dumps({"status": 401, "code": "bad_token", "title": "No", "detail": "This token was revoked."})
    doors = re.compile(r"/api/(results|device-status)$")
    page.page.route(
        doors, lambda route: route.fulfill(status=401, body=problem, content_type="application/problem+json")
    )
    page.ask()
    page.expect_sign("Refused")
    page.expect_message("This token was revoked.")
    page.page.unroute(doors)
    page.ask()
    page.expect_sign("Online")
    expect(page.page.locator("#messages")).not_to_contain_text("This token was revoked.")


def test_a_download_that_fails_once(
    pumps_link: str, device_page: Callable[..., DevicePage], window: Callable[..., BrowserContext]
) -> None:
    failures: list[str] = []

    def fail_once(route: Route) -> None:
        if failures:
            return route.fallback()
        failures.append(route.request.url)
        return route.abort()

    context = window(service_workers="block")
    page = device_page(context)
    page.page.route("**/repository/targets/**", fail_once)
    page.open(pumps_link)
    page.page.wait_for_event("requestfailed", lambda request: "/targets/" in request.url)
    page.ask()
    page.expect_score("healthy")
    assert len(failures) == 1


def test_a_clock_that_is_a_year_ahead(pumps_link: str, device_page: Callable[..., DevicePage]) -> None:
    page = join(device_page, pumps_link)
    page.page.add_init_script(AHEAD)
    page.open()
    page.expect_message("clock")
    page.expect_score("healthy")


def test_a_browser_whose_user_has_yet_to_say_whether_to_keep_storage(
    pumps_link: str, device_page: Callable[..., DevicePage]
) -> None:
    """Firefox asks, and people let such questions stand."""
    page = device_page()
    page.page.add_init_script("StorageManager.prototype.persist = () => new Promise(() => {});")
    page.open(pumps_link)
    page.expect_sign("Online")
    page.expect_score("healthy")
    expect(page.page.locator("#identity")).to_contain_text("this browser may clear it")


def test_a_page_whose_program_is_gone_from_the_server(
    device_page: Callable[..., DevicePage], window: Callable[..., BrowserContext]
) -> None:
    """As between two versions behind a proxy: the page is the new one's, its files come from the old one."""
    page = device_page(window(service_workers="block"))
    page.page.route("**/device/assets/main-*.js", lambda route: route.fulfill(status=404, body="not here"))
    page.open()
    page.expect_sign("Cannot start")
    expect(page.page.locator("#sign-why")).to_contain_text("Load it again in a minute.")


def test_a_private_window_is_a_device_that_may_be_forgotten(
    pumps_link: str, device_page: Callable[..., DevicePage]
) -> None:
    page = join(device_page, pumps_link)
    expect(page.page.locator("#identity")).to_contain_text("may clear it")


def test_storage_that_is_denied(
    device_page: Callable[..., DevicePage], profile: Callable[..., BrowserContext], tmp_path: Path
) -> None:
    preferences = tmp_path / "denied" / "Default" / "Preferences"
    preferences.parent.mkdir(parents=True)
    preferences.write_text(json.dumps({"profile": {"default_content_setting_values": {"cookies": 2}}}))
    page = device_page(profile("denied")).open()
    page.expect_sign("Cannot run here")
    expect(page.page.locator("#sign-why")).to_contain_text("storage")


def test_storage_that_is_full(stack: Stack, pumps_link: str, device_page: Callable[..., DevicePage]) -> None:
    page = device_page().open()
    expect(page.page.get_by_label("Link or enrolment line")).to_be_visible()
    session = page.page.context.new_cdp_session(page.page)
    session.send("Storage.overrideQuotaForOrigin", {"origin": stack.url, "quotaSize": 1})
    page.page.get_by_label("Link or enrolment line").fill(pumps_link)
    page.page.get_by_role("button", name="Join").click()
    page.expect_message("The browser has no room left for this device.")
    page.expect_sign("Not a device yet")
    session.send("Storage.overrideQuotaForOrigin", {"origin": stack.url})
    page.page.get_by_role("button", name="Join").click()
    page.expect_sign("Online")
    page.expect_score("healthy")


@pytest.mark.parametrize(
    ("flag", "words"),
    [("--js-flags=--jitless", "WebAssembly"), ("--js-flags=--no-enable-sse4-1", "SIMD")],
)
def test_a_browser_without_what_scoring_needs(
    pumps_link: str,
    device_page: Callable[..., DevicePage],
    profile: Callable[..., BrowserContext],
    flag: str,
    words: str,
) -> None:
    page = device_page(profile("old", flag)).open(pumps_link)
    expect(page.page.locator("main")).to_contain_text(words)
    assert "Use a current version" in page.page.locator("main").inner_text()


def test_a_plain_http_address_without_cryptography(
    stack: Stack, device_page: Callable[..., DevicePage], profile: Callable[..., BrowserContext]
) -> None:
    context = profile("lan", "--host-resolver-rules=MAP fleet.example 127.0.0.1")
    page = device_page(context, url=stack.url.replace("127.0.0.1", "fleet.example")).open()
    page.expect_sign("Cannot run here")
    expect(page.page.locator("#sign-why")).to_contain_text("https")

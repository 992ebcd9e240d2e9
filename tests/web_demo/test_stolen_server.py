"""A server or a network that holds updates up, sends old ones again or never ends: the browser says so and scores on."""

from __future__ import annotations

import urllib.request
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from cryptography.hazmat.primitives.serialization import load_pem_private_key
from journey.stack import Stack, run
from playwright.sync_api import BrowserContext, Route
from securesystemslib.signer import CryptoSigner
from simulators.endless_door import endless_door
from tuf.api.metadata import Metadata, Timestamp
from web_demo.conftest import DevicePage

Open = Callable[..., DevicePage]
Window = Callable[..., BrowserContext]
TIMESTAMP = "**/repository/metadata/timestamp.json"
DAYS = 8  # a timestamp lives for seven


def joined(device_page: Open, link: str, window: Window) -> DevicePage:
    """A device whose requests a test can answer itself: a service worker's own would pass it by."""
    page = device_page(window(service_workers="block")).open(link)
    page.expect_sign("Online")
    page.expect_score("healthy")
    return page


def timestamp_of(stack: Stack) -> bytes:
    with urllib.request.urlopen(f"{stack.url}/repository/metadata/timestamp.json", timeout=10) as answer:
        return bytes(answer.read())


def test_a_timestamp_that_has_expired(stack: Stack, pumps_link: str, device_page: Open, window: Window) -> None:
    """Newer than the known one and signed by the online key: a stolen server cannot make it valid any longer."""
    page = joined(device_page, pumps_link, window)
    metadata = Metadata[Timestamp].from_bytes(timestamp_of(stack))
    metadata.signed.version += 1
    metadata.signed.expires = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=1)
    key = load_pem_private_key((stack.data_dir / "keys" / "online.pem").read_bytes(), None)
    metadata.sign(CryptoSigner(key))  # type: ignore[arg-type]
    body = metadata.to_bytes()
    page.page.route(TIMESTAMP, lambda route: route.fulfill(body=body, content_type="application/json"))
    page.ask()
    page.expect_message("has expired")
    page.expect_score("healthy")
    page.expect_release(1, "pumps")
    page.page.unroute(TIMESTAMP)
    page.ask()
    page.expect_sign("Online")


def test_the_same_timestamp_after_it_has_expired(pumps_link: str, device_page: Open, window: Window) -> None:
    """Eight days later, by the browser's clock and by the server's, the network still sends what was known before."""
    page = joined(device_page, pumps_link, window)
    later = f"{datetime.now(UTC) + timedelta(days=DAYS):%a, %d %b %Y %H:%M:%S GMT}"

    def a_week_later(route: Route) -> None:
        answer = route.fetch()
        route.fulfill(response=answer, headers={**answer.headers, "date": later})

    page.page.route("**/repository/metadata/**", a_week_later)
    page.page.add_init_script(f"const now = Date.now; Date.now = () => now() + {DAYS} * 86400000;")
    page.open()
    page.expect_sign("Stale")
    page.expect_message("has expired")
    page.expect_score("healthy")


def test_an_older_timestamp(stack: Stack, pumps_link: str, device_page: Open, window: Window) -> None:
    older = timestamp_of(stack)
    for change in ("--pause", "--resume"):  # each is signed anew
        run(
            "exporter",
            "rollout",
            "stable",
            change,
            "--server",
            stack.url,
            "--token-file",
            stack.token_files["publisher"],
        )
    page = joined(device_page, pumps_link, window)
    assert timestamp_of(stack) != older
    page.page.route(TIMESTAMP, lambda route: route.fulfill(body=older, content_type="application/json"))
    page.ask()
    page.expect_message("is older than what this device has seen")
    page.expect_score("healthy")
    page.expect_release(1, "pumps")


def test_an_answer_that_never_ends(stack: Stack, device_page: Open, window: Window) -> None:
    with endless_door(stack.url) as door:
        page = device_page(window(service_workers="block"), url=door.url)
        page.open(stack.link("pumps", "stable", url=door.url))
        page.expect_sign("Online")
        page.expect_score("healthy")
        door.endless = "timestamp.json"
        page.ask()
        page.expect_message("is longer than it may be")
        assert door.left.wait(30), "the browser goes on reading"
        page.expect_score("healthy")
        page.expect_release(1, "pumps")
        page.page.close()

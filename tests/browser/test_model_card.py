"""The model card in a real browser: light and dark, desk and phone, and nothing in it ever runs."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Browser
from simulators.bundles import SmallBundle
from simulators.tiny_build import tiny_card_data, tiny_model, tiny_provenance

from edge_runtime.contract.bundle import CARD_PAGE_NAME, open_bundle
from edge_runtime.contract.manifest import Signal
from exporter.card import make_card
from exporter.card_page import page as card_page
from exporter.cli.card import show_card

LONG = "a_signal_with_a_very_long_name_" * 4


@pytest.fixture(scope="module")
def card(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A card with everything that makes pages too wide."""
    data = tiny_card_data(points=200)
    data["contributions"]["signals"] = [LONG]
    forms = {f"int8 static {number}": {"auc": 0.9, "label_flips": number} for number in range(9)}
    model = tiny_model(
        signals=tuple(Signal(f"{LONG}{number}", "W" * 60, "signal") for number in range(20)),
        parity={"chosen": "fp32", "candidates": forms},
        below_goals=("x" * 300,),
        card_data=data,
    )
    made = make_card(model, tiny_provenance(), name="fleet", version="1", release_number=1)
    path = tmp_path_factory.mktemp("card") / "card.html"
    path.write_bytes(card_page(made, model))
    return path


@pytest.mark.parametrize("width", [1280, 375])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_card_fits_and_fetches_nothing(
    browser: Browser, card: Path, screenshots: Path, width: int, scheme: str
) -> None:
    context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)  # type: ignore[arg-type]
    page = context.new_page()
    said: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(card.as_uri())
    page.screenshot(path=screenshots / f"card-{scheme}-{width}.png", full_page=True)
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    assert (said, asked) == ([], [card.as_uri()])
    ink = page.evaluate("getComputedStyle(document.querySelector('svg text')).fill")
    assert ink == page.evaluate("getComputedStyle(document.querySelector('.summary')).color")
    context.close()


def test_nothing_in_a_hostile_card_runs(browser: Browser, tmp_path: Path) -> None:
    evil = b"""<!doctype html><meta http-equiv="Content-Security-Policy" content="script-src 'unsafe-inline'">
        <title>no</title><script>document.title = 'ran'</script><img src=x onerror="document.title = 'ran'">
        <p>shown</p>"""
    bundle = open_bundle(SmallBundle(extra=((CARD_PAGE_NAME, evil),)).build().data)
    show_card(bundle, tmp_path / "evil.html")
    context = browser.new_context()
    page = context.new_page()
    page.goto((tmp_path / "evil.html").as_uri())
    assert page.text_content("p") == "shown"
    assert page.title() == "no"
    context.close()

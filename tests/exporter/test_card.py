"""The card: true, readable, escaped, small, the same every time; and shown by inspect."""

from __future__ import annotations

import html.parser
import json
import re
import sys
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from simulators.bundles import SmallBundle
from simulators.tiny_build import tiny_card_data, tiny_model, tiny_provenance

from edge_runtime.contract.bundle import CARD_PAGE_NAME
from edge_runtime.contract.manifest import Signal
from exporter.built import BuiltModel
from exporter.card import make_card, markdown
from exporter.card_figures import flatten, sheets
from exporter.card_page import POLICY, page
from exporter.cli import run_command
from exporter.keys import ReleaseKey, create_key
from exporter.packing import pack_model
from exporter.work_folder import SavedBuild, load_build, save_build

HOSTILE = '<script>alert("x")</script>'
# What a bundle may spend on the page, deflated.
MOST_BYTES = 20_000


def written(model: BuiltModel, name: str = "fleet", version: str = "1.0") -> tuple[str, str]:
    card = make_card(model, tiny_provenance(), name=name, version=version, release_number=1)
    return page(card, model).decode(), markdown(card).decode()


class Tags(html.parser.HTMLParser):
    """Collects the elements and attributes of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.attributes: list[tuple[str, str]] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in ("meta", "wbr", "br", "path", "use", "rect"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in self.open:
            assert self.open.pop() == tag


def test_the_page_tells_a_person_what_the_model_is() -> None:
    text, _ = written(tiny_model())
    for part in ("fleet 1.0", "Release 1", "heat", "degC", "1,234 readings", "0.9900", "single readings", "threshold"):
        assert part in text
    assert "within every goal" in text
    assert text.count("<svg") == 2
    assert Tags(text).open == []


def test_missed_goals_come_first() -> None:
    for text in written(tiny_model(below_goals=("Single readings do better.",))):
        assert "misses 1 of the goals" in text
        assert text.index("Single readings do better.") < text.index("What it is for")


def test_the_page_needs_nothing_from_anywhere_and_runs_nothing() -> None:
    text, _ = written(tiny_model())
    tags = Tags(text)
    assert not tags.names & {"script", "link", "img", "iframe", "object", "embed", "form", "a", "base"}
    for name, value in tags.attributes:
        assert not name.startswith("on")
        assert name not in ("src", "action", "data")
        if name.endswith("href"):
            assert value.startswith("#")
    assert not re.search(r"url\((?!#)", text)
    assert "@import" not in text


def hostile_model() -> BuiltModel:
    data = tiny_card_data()
    data["contributions"]["signals"] = [HOSTILE]
    return tiny_model(
        f"cohort {HOSTILE}",
        signals=(Signal(HOSTILE, f'"{HOSTILE}', "signal"), Signal("charging", "0/1", "context")),
        notes=(f"Signal {HOSTILE} is constant.",),
        below_goals=(f"{HOSTILE} | missed",),
        evaluation={"auc": 0.9, "auc_by_cohort": {HOSTILE: 0.9, "b": 0.8}, HOSTILE: {"deep": HOSTILE}},
        parity={HOSTILE: {"label_flips": 1}},
        card_data=data,
    )


def test_names_of_people_are_text_and_nothing_else() -> None:
    text, plain = written(hostile_model())
    assert "script" not in Tags(text).names
    assert "&lt;script&gt;" in text
    assert "<script" not in plain
    assert "\\| missed" in plain


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(min_size=1, max_size=40))
def test_no_name_changes_the_page(name: str) -> None:
    data = tiny_card_data()
    data["contributions"]["signals"] = [name]
    model = tiny_model(
        signals=(Signal(name, name, "signal"),), notes=(name,), evaluation={name: {"x": name}}, card_data=data
    )
    text, _ = written(model)
    usual, _ = written(tiny_model())
    assert Tags(text).names - {"wbr"} <= Tags(usual).names
    assert Tags(text).open == []


@pytest.mark.parametrize("name", ["温度", "🔥", "$x^2$", "a\nb", "x" * 128])
def test_names_that_matplotlib_could_not_draw(name: str) -> None:
    data = tiny_card_data()
    data["contributions"]["signals"] = [name]
    assert name.replace("_", "_<wbr>") in written(tiny_model(card_data=data))[0]


def test_a_model_without_plots_or_figures_still_has_a_card() -> None:
    text, plain = written(tiny_model(card_data={}, evaluation={}, parity={}))
    assert "<svg" not in text
    assert "nothing was measured" in plain
    assert "Not measured." in plain


def test_plots_without_labels_anomalies_or_spread() -> None:
    data = tiny_card_data()
    data["scores"] = {"edges": [0.5, 0.6], "groups": {"healthy, in training": [0]}}
    data["fidelity"] = {"trained": [0.5], "graphs": {"fp32": [0.5], "codebook8": [0.5]}}
    data["contributions"] = {"signals": [], "groups": {}}
    assert written(tiny_model(card_data=data))[0].count("<svg") == 2


def test_the_same_model_gives_the_same_page_from_a_work_folder_too(tmp_path: Path) -> None:
    from simulators.tiny_build import tiny_build

    build = tiny_build()
    first = written(build.models[0])
    assert written(build.models[0]) == first
    save_build(SavedBuild(build, {}), tmp_path)
    assert written(load_build(tmp_path).build.models[0]) == first


def test_the_page_is_small_with_fifty_signals() -> None:
    signals = tuple(Signal(f"signal_{number}", "unit", "signal") for number in range(50))
    data = tiny_card_data(points=250)
    data["contributions"] = {
        "signals": [signal.name for signal in signals],
        "groups": {
            name: {"windows": 60, "mean": [1 / (k + 1) for k in range(50)]} for name in ("anomalies", "healthy")
        },
    }
    text, _ = written(tiny_model(signals=signals, card_data=data))
    assert len(zlib.compress(text.encode(), 9)) < MOST_BYTES


def test_groups_that_are_alike_become_columns() -> None:
    one = {"auc": 0.9, "label_flips": 3, "deep": {"a": 1, "b": 2}}
    found = sheets({"windows": 5, "candidates": {"fp32": one, "int8": {**one, "auc": None}}}, "this")
    assert [sheet.title for sheet in found] == ["", "forms that were tried", "forms that were tried: deep"]
    assert found[0].rows == (("windows", "5"),)
    assert found[1].head == ("figure", "fp32", "int8")
    assert found[1].rows == (("AUC", "0.9000", "–"), ("other verdicts", "3", "3"))
    assert found[2].rows == (("a", "1", "1"), ("b", "2", "2"))


def test_a_group_with_the_figures_of_its_surroundings_stands_beside_them() -> None:
    (sheet,) = sheets({"auc": 0.9, "windows": 10, "baseline": {"auc": 0.8, "windows": 10, "slots": 1}}, "this model")
    assert sheet.head == ("figure", "this model", "single readings")
    assert ("AUC", "0.9000", "0.8000") in sheet.rows
    assert ("readings in a window", "–", "1") in sheet.rows


def test_no_figure_is_lost() -> None:
    figures = {"a": {"b": {"c": {"d": 12.5, "e": 7}}, "f": True}, "g": [1, 2], "h": list(range(100)), "i": None}
    shown = " ".join(cell for sheet in sheets(figures) for row in sheet.rows for cell in row)
    for text in ("12.5", "7", "yes", "1, 2", "100 values"):
        assert text in shown
    assert sheets({}) == []


def test_flatten_names_nested_figures_and_counts_long_lists() -> None:
    rows = dict(flatten({"auc": 0.5, "baseline": {"auc": 0.25}, "histogram": list(range(9)), "none": None}))
    assert rows == {"AUC": "0.5000", "single readings: AUC": "0.2500", "histogram": "9 values"}


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> ReleaseKey:
    return create_key(tmp_path_factory.mktemp("keys") / "targets.key", "targets", None)


@pytest.fixture(autouse=True)
def pages_in_the_tests_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What inspect leaves for a browser to show must not stay behind a test."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


@pytest.fixture
def bundle(key: ReleaseKey, tmp_path: Path) -> Path:
    path = tmp_path / "fleet.bundle"
    path.write_bytes(
        pack_model(tiny_model(), tiny_provenance(), key, name="fleet", version="1.0", release_number=1).data
    )
    return path


def inspected(capsys: pytest.CaptureFixture[str], *arguments: object, code: int = 0) -> dict[str, Any]:
    assert run_command(["inspect", *map(str, arguments), "--json"]) == code
    value: dict[str, Any] = json.loads(capsys.readouterr().out)
    return value


def test_inspect_writes_the_page_where_there_is_no_screen(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown = inspected(capsys, bundle, "--card")
    assert shown["opened"] is False
    text = Path(shown["card"]).read_text("utf-8")
    assert text.startswith("<!doctype html><meta http-equiv=")  # before anything of the bundle's
    assert "fleet 1.0" in text


def test_inspect_opens_the_page_where_there_is_one(
    bundle: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    monkeypatch.setattr("webbrowser.open", lambda address: seen.append(address) is None)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("DISPLAY", ":0")
    shown = inspected(capsys, bundle, "--card")
    assert shown["opened"] is True
    assert seen == [Path(shown["card"]).as_uri()]
    monkeypatch.delenv("DISPLAY")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    assert inspected(capsys, bundle, "--card")["opened"] is False
    assert len(seen) == 1


def test_inspect_writes_the_page_to_a_file_or_prints_the_text(
    bundle: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = tmp_path / "pages" / "card.html"
    assert inspected(capsys, bundle, "--card-out", out)["card"] == str(out)
    assert out.is_file()
    assert inspected(capsys, bundle, "--card", "--text")["card"].startswith("# fleet 1.0")
    assert run_command(["inspect", str(bundle), "--card", "--text"]) == 0
    assert "| heat | degC | signal |" in capsys.readouterr().out


def test_inspect_says_what_it_cannot_show(bundle: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    old = tmp_path / "old.bundle"
    old.write_bytes(SmallBundle().build().data)
    assert "--card --text" in inspected(capsys, old, "--card", code=3)["advice"]
    assert "is a folder" in inspected(capsys, tmp_path, "--card", code=3)["message"]
    (tmp_path / "file").write_text("")
    inspected(capsys, bundle, "--card-out", tmp_path / "file" / "card.html", code=6)
    assert run_command(["inspect", str(bundle), "--text"]) == 2


def test_a_hostile_page_is_kept_from_running_by_what_stands_before_it(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    evil = b'<!doctype html><meta http-equiv="Content-Security-Policy" content="script-src *"><script>1</script>'
    path = tmp_path / "evil.bundle"
    path.write_bytes(SmallBundle(extra=((CARD_PAGE_NAME, evil),)).build().data)
    text = Path(inspected(capsys, path, "--card")["card"]).read_text("utf-8")
    policies = re.findall(r'content="([^"]*)"', text)
    assert policies[0].replace("&#x27;", "'") == POLICY  # a later one can only take more away

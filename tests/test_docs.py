"""The docs stay true to the code: every test they name exists, every link leads somewhere."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("edge_runtime/**/*.md")])
TESTS = re.findall(
    r"`([\w/]+(?:\.py|\.test\.ts)(?:::[^`]+)?)`", (ROOT / "docs" / "bad-input.md").read_text(encoding="utf-8")
)


@pytest.mark.parametrize("name", sorted(set(TESTS)))
def test_every_row_of_bad_input_has_its_test(name: str) -> None:
    file, _, function = name.partition("::")
    path = ROOT / "tests" / file
    path = path if path.is_file() else ROOT / file
    assert path.is_file(), f"docs/bad-input.md names {name}"
    if path.suffix == ".ts":
        assert function in path.read_text(encoding="utf-8"), name
    elif function:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        assert function in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}, name


def test_no_row_of_bad_input_is_without_a_test() -> None:
    rows = [
        line
        for line in (ROOT / "docs" / "bad-input.md").read_text(encoding="utf-8").splitlines()
        if line.count("|") > 5
    ]
    assert len(rows) > 20
    bare = [
        row
        for row in rows
        if "test_" not in row and ".test.ts" not in row and "| tests |" not in row and not set(row) <= set("|-")
    ]
    assert bare == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_readme_lists_every_setting() -> None:
    from dataclasses import fields

    from edge_runtime.config import Config
    from sync_server.config import ServerConfig

    text = (ROOT / "README.md").read_text(encoding="utf-8")
    missing = [
        setting.name for kind in (Config, ServerConfig) for setting in fields(kind) if f"`{setting.name}`" not in text
    ]
    assert missing == []

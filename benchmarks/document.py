"""Writes docs/benchmarks.md from the result files: ``python -m benchmarks.document``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness import FIGURE_COLUMNS, Cell, circumstances, figure_rows, number, read_results
from benchmarks.machine import REPOSITORY

PAGE = REPOSITORY / "docs" / "benchmarks.md"
_HEAD = """# Benchmarks

<!-- Made by `python -m benchmarks.document` from benchmarks/results/*.json; do not edit. -->

All figures come from `make bench`, which runs `python -m benchmarks`; one of them alone: `python -m benchmarks forest`;
small and fast, to see that it works: `--quick`. Both sides of a comparison take turns in one run, on one thread, with
other rows in every call, after a warm-up; figures are medians, and every repeat is in
[benchmarks/results](../benchmarks/results). The real data sets are looked for in `../shared/data`; without them the
benchmarks say what they left out. No test asserts a time.
"""


def page(results: Iterable[Mapping[str, Any]]) -> str:
    """Return the page in Markdown.

    Args:
        results: What ``read_results`` returns.
    """
    parts = [_HEAD]
    results = list(results)
    if results:
        parts += [_machine(results[0]), "## Goals", _table(FIGURE_COLUMNS, _goals(results))]
    for result in results:
        parts.append(f"## {result['benchmark']}\n\n{result['question']}\n\n`{result['command']}`")
        if result["figures"]:
            parts.append(_table(FIGURE_COLUMNS, figure_rows(result)))
        parts.extend(f"{table['title']}:\n\n{_table(table['columns'], table['rows'])}" for table in result["tables"])
        parts.extend(result["notes"])
        parts.append(f"_{circumstances(result)}_")
    return "\n\n".join(part.strip() for part in parts) + "\n"


def write_page(results: Iterable[Mapping[str, Any]], path: Path = PAGE) -> None:
    """Write the page."""
    path.write_text(page(results), "utf-8")


def _machine(result: Mapping[str, Any]) -> str:
    machine = result["machine"]
    libraries = ", ".join(f"{name} {version}" for name, version in machine["libraries"].items() if version)
    return (
        f"Machine: {machine['processor']}, {machine['cores']} cores, {machine['memory_gib']} GiB, {machine['system']}. "
        f"Python {machine['python']}, {libraries}."
    )


def _goals(results: Iterable[Mapping[str, Any]]) -> list[list[Cell]]:
    """Return a row per figure that has a goal."""
    return [
        [f"{result['benchmark']}: {row[0]}", *row[1:]] for result in results for row in figure_rows(result) if row[3]
    ]


def _table(columns: Sequence[str], rows: Iterable[Sequence[Cell]]) -> str:
    lines = ["| " + " | ".join(columns) + " |", "|---" + "|---:" * (len(columns) - 1) + "|"]
    lines.extend("| " + " | ".join(number(cell).replace("|", "\\|") for cell in row) + " |" for row in rows)
    return "\n".join(lines)


if __name__ == "__main__":
    write_page(read_results())

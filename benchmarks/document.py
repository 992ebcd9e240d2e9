"""Writes benchmarks.md, performance.md and capacity.md in docs from the results: ``python -m benchmarks.document``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from benchmarks import capacity, performance
from benchmarks.harness import (
    ELSEWHERE,
    FIGURE_COLUMNS,
    Cell,
    circumstances,
    figure_rows,
    markdown_table,
    read_results,
)
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
        parts += [_machine(results[0]), "## Goals", markdown_table(FIGURE_COLUMNS, _goals(results))]
    for result in results:
        parts.append(f"## {result['benchmark']}\n\n{result['question']}\n\n`{result['command']}`")
        if result["figures"]:
            parts.append(markdown_table(FIGURE_COLUMNS, figure_rows(result)))
        parts.extend(
            f"{table['title']}:\n\n{markdown_table(table['columns'], table['rows'])}" for table in result["tables"]
        )
        parts.extend(result["notes"])
        parts.append(f"_{circumstances(result)}_")
    return "\n\n".join(part.strip() for part in parts) + "\n"


def write_pages(results: Iterable[Mapping[str, Any]]) -> None:
    """Write the pages."""
    results = list(results)
    PAGE.write_text(page(results), "utf-8")
    performance.PAGE.write_text(performance.page(results, read_results(ELSEWHERE)), "utf-8")
    capacity.PAGE.write_text(capacity.page(results), "utf-8")


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


if __name__ == "__main__":
    write_pages(read_results())

"""The results at hand, asked for single figures; what is missing is "not measured"."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.harness import Cell, circumstances, goal, number

NOT_MEASURED = "not measured"


class Known:
    """The results at hand, asked for single figures; what is missing is "not measured".

    Args:
        results: By benchmark.
    """

    def __init__(self, results: Mapping[str, Mapping[str, Any]]) -> None:
        self._results = results

    def figure(self, benchmark: str, name: str) -> str:
        """Return the figure whose name matches this expression, with its unit."""
        for figure in self._figures(benchmark):
            if re.search(name, figure["name"]):
                return with_unit(figure["value"], figure["unit"])
        return NOT_MEASURED

    def value(self, benchmark: str, name: str) -> float | None:
        """Return the bare figure whose name matches this expression, None where there is none."""
        for figure in self._figures(benchmark):
            if re.search(name, figure["name"]):
                return None if figure["value"] is None else float(figure["value"])
        return None

    def promises(self, benchmark: str) -> list[tuple[str, str, str]]:
        """Return names, goals and figures of those that have a goal."""
        wanted = (one for one in self._figures(benchmark) if one["met"] is not None)
        return [(one["name"], goal(one), with_unit(one["value"], one["unit"])) for one in wanted]

    def goals(self, benchmark: str) -> list[tuple[str, str]]:
        """Return the names and figures that have a goal."""
        wanted = (one for one in self._figures(benchmark) if one["met"] is not None)
        return [(one["name"], with_unit(one["value"], one["unit"])) for one in wanted]

    def cell(self, benchmark: str, title: str, row: str, column: str, unit: str) -> str:
        """Return a cell of the table whose title matches, in the row of this label and the column of this name."""
        for table in self._results.get(benchmark, {}).get("tables", ()):
            if re.search(title, table["title"]) and column in table["columns"]:
                place = table["columns"].index(column)
                for cells in table["rows"]:
                    if cells[0] == row and cells[place] is not None:
                        return with_unit(cells[place], unit)
        return NOT_MEASURED

    def rows(self, benchmark: str, title: str) -> list[Sequence[Cell]]:
        """Return the rows of the table whose title matches, none where there is none."""
        for table in self._results.get(benchmark, {}).get("tables", ()):
            if re.search(title, table["title"]):
                return list(table["rows"])
        return []

    def source(self, benchmark: str, command: str) -> str:
        """Return the line under a table: the command, and on what machine and when it ran."""
        ran = f" _{circumstances(self._results[benchmark])}_" if benchmark in self._results else ""
        return f"`{command}`{ran}"

    def _figures(self, benchmark: str) -> Sequence[Mapping[str, Any]]:
        figures: Sequence[Mapping[str, Any]] = self._results.get(benchmark, {}).get("figures", ())
        return figures


def with_unit(value: Cell, unit: str) -> str:
    """Write a number with its unit."""
    return f"{number(value)} {unit}".strip()

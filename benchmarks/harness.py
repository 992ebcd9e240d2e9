"""What a benchmark script fills in, and how its result is kept and shown.

A script has a ``QUESTION`` and a ``run(report, quick=...)`` that hands over figures, tables and timings::

    timings = take_turns(sides, repeats=20)
    report.timings(timings)
    report.figure("one row, times faster", ratio, "x", at_least=300)

Results are JSON, one file per script, with every repeat, the machine, the commit and the share of the machine that
other processes used meanwhile.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.machine import NOISY_SHARE, REPOSITORY, Watch, describe_code, describe_machine
from benchmarks.timing import Timing

RESULTS = REPOSITORY / "benchmarks" / "results"
ELSEWHERE = RESULTS / "elsewhere"  # moved there by hand, from runs on another machine
QUICK_RESULTS = REPOSITORY / "build" / "benchmarks"  # small runs never replace the committed figures
FORMAT = 1
# The scripts, in the order in which they are run and shown.
NAMES = (
    "forest", "scoring", "autoencoder", "fidelity", "graph", "cmapss", "quality", "attribution", "device", "web",
    "training", "gpu", "ingest", "server_scoring", "reads", "rollouts", "polls", "soak",
)  # fmt: skip
APART = ("aarch64", "ingest_soak")  # scripts that are run by themselves, with results of the same form
Cell = str | int | float | None


@dataclass(slots=True)
class Report:
    """Collects what one script measures.

    Attributes:
        name: The script.
        question: What it answers, one sentence.
        quick: Whether this is the small run, whose figures say little.
    """

    name: str
    question: str
    quick: bool = False
    _figures: list[dict[str, Any]] = field(default_factory=list)
    _timings: list[dict[str, Any]] = field(default_factory=list)
    _tables: list[dict[str, Any]] = field(default_factory=list)
    _notes: list[str] = field(default_factory=list)
    _watch: Watch = field(default_factory=Watch)

    def figure(
        self,
        name: str,
        value: float,
        unit: str,
        *,
        at_most: float | None = None,
        at_least: float | None = None,
        repeats: Sequence[float] = (),
    ) -> None:
        """Add one figure, with the goal that it has to reach, if any.

        Args:
            name: What it is.
            value: The figure, the median where there are repeats.
            unit: ``x`` for ratios, which ``benchmarks.compare`` compares.
            at_most: Goal.
            at_least: Goal.
            repeats: What the figure is the median of; they tell ``benchmarks.compare`` what is noise.
        """
        met = None
        if at_most is not None or at_least is not None:  # a NaN meets nothing
            met = (at_most is None or value <= at_most) and (at_least is None or value >= at_least)
        entry = {"name": name, "value": _finite(value), "unit": unit}
        entry |= {"at_most": at_most, "at_least": at_least, "met": met}
        self._figures.append(entry | ({"repeats": list(repeats)} if repeats else {}))
        self.progress(f"{name}: {number(value)} {unit}{' MISSED' if met is False else ''}")

    def timings(self, timings: Mapping[str, Timing] | Iterable[Timing]) -> None:
        """Add timings, every repeat of them."""
        values = timings.values() if isinstance(timings, Mapping) else timings
        self._timings.extend(timing.to_dict() for timing in values)

    def table(self, title: str, columns: Sequence[str], rows: Iterable[Sequence[Cell]]) -> None:
        """Add a table: rows of texts and numbers."""
        self._tables.append(
            {"title": title, "columns": list(columns), "rows": [[_finite(cell) for cell in row] for row in rows]}
        )

    def note(self, text: str) -> None:
        """Add a sentence that the reader of the figures must know."""
        self._notes.append(text)

    def progress(self, text: str) -> None:
        """Say on standard error what is going on."""
        sys.stderr.write(f"  {self.name} {self._watch.seconds():5.1f} s  {text}\n")
        sys.stderr.flush()

    def to_dict(self) -> dict[str, Any]:
        """Return the whole result, JSON-ready, with the machine as it was until now."""
        share = self._watch.others_share()
        return {
            "format": FORMAT,
            "benchmark": self.name,
            "question": self.question,
            "command": f"python -m benchmarks {self.name}{' --quick' if self.quick else ''}",
            "quick": self.quick,
            "finished_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": round(self._watch.seconds(), 1),
            "others_cpu_share": round(share, 3),
            "noisy": share > NOISY_SHARE,
            "machine": describe_machine(),
            "code": describe_code(),
            "figures": self._figures,
            "tables": self._tables,
            "notes": self._notes,
            "timings": self._timings,
        }


def write_result(result: Mapping[str, Any], folder: Path | None = None) -> Path:
    """Write a result to its file.

    Args:
        result: ``Report.to_dict()``.
        folder: Where; the committed results, or the build folder for a quick run, when None.

    Returns:
        The file.
    """
    target = folder or (QUICK_RESULTS if result["quick"] else RESULTS)
    target.mkdir(parents=True, exist_ok=True)
    path = target / f"{result['benchmark']}.json"
    path.write_text(json.dumps(result, indent=1, ensure_ascii=False, allow_nan=False) + "\n", "utf-8")
    return path


def read_results(folder: Path = RESULTS) -> list[dict[str, Any]]:
    """Return the results of a folder, in the order of ``NAMES``, then those of ``APART``.

    Raises:
        ValueError: A file is no result of this format.
    """
    results, names = [], (*NAMES, *APART)
    for path in folder.glob("*.json"):
        result = json.loads(path.read_text("utf-8"))
        if result.get("format") != FORMAT or result.get("benchmark") != path.stem or path.stem not in names:
            raise ValueError(f"{path} is no benchmark result of format {FORMAT}")
        results.append(result)
    return sorted(results, key=lambda result: names.index(result["benchmark"]))


def _finite(value: Cell) -> Cell:
    """Return the value, or None for what JSON has no number for."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def number(value: Cell) -> str:
    """Write a number as a person reads it: four significant digits, integers whole."""
    if value is None:
        return "-"
    if isinstance(value, str):
        return value
    if not math.isfinite(value):
        return str(value)
    if isinstance(value, int) or (value == round(value) and 1000 <= abs(value) < 1e15):
        return f"{int(value):,}"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}"


def goal(figure: Mapping[str, Any]) -> str:
    """Write the goal of a figure, empty when it has none."""
    low, high = figure["at_least"], figure["at_most"]
    if low is None and high is None:
        return ""
    return f"at least {number(low)}" if low is not None else f"at most {number(high)}"


def verdict(figure: Mapping[str, Any]) -> str:
    """Write whether a figure reaches its goal."""
    return {True: "met", False: "MISSED", None: ""}[figure["met"]]


def grid(columns: Sequence[str], rows: Iterable[Sequence[Cell]]) -> str:
    """Lay a table out for a terminal: first column to the left, the others to the right."""
    cells = [list(columns), *([number(cell) for cell in row] for row in rows)]
    widths = [max(len(row[k]) for row in cells) for k in range(len(columns))]
    lines = []
    for row in cells:
        padded = [
            cell.ljust(width) if k == 0 else cell.rjust(width)
            for k, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(padded).rstrip())
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)


def markdown_table(columns: Sequence[str], rows: Iterable[Sequence[Cell]]) -> str:
    """Lay a table out in Markdown: first column to the left, the others to the right."""
    lines = ["| " + " | ".join(columns) + " |", "|---" + "|---:" * (len(columns) - 1) + "|"]
    lines.extend("| " + " | ".join(number(cell).replace("|", "\\|") for cell in row) + " |" for row in rows)
    return "\n".join(lines)


def figure_rows(result: Mapping[str, Any]) -> list[list[Cell]]:
    """Return a row per figure: name, value, unit, goal, whether it is met."""
    return [[f["name"], f["value"], f["unit"], goal(f), verdict(f)] for f in result["figures"]]


FIGURE_COLUMNS = ("figure", "measured", "unit", "goal", "reached")


def readable(result: Mapping[str, Any]) -> str:
    """Write a result as text for a terminal."""
    parts = [f"{result['benchmark']}: {result['question']}"]
    if result["figures"]:
        parts.append(grid(FIGURE_COLUMNS, figure_rows(result)))
    parts.extend(f"{table['title']}\n{grid(table['columns'], table['rows'])}" for table in result["tables"])
    parts.extend(f"Note: {note}" for note in result["notes"])
    parts.append(circumstances(result))
    return "\n\n".join(parts) + "\n"


def circumstances(result: Mapping[str, Any]) -> str:
    """Write one line on how a result came about."""
    code, machine = result["code"], result["machine"]
    commit = (
        "no commit"
        if code["commit"] is None
        else f"commit {code['commit'][:12]}{' + changes' if code['dirty'] else ''}"
    )
    noise = f"; NOISY, others used {result['others_cpu_share']:.0%} of the machine" if result["noisy"] else ""
    size = "; quick run, figures say little" if result["quick"] else ""
    return (
        f"{result['finished_at']}, {result['seconds']:g} s, {machine['processor']}, {machine['cores']} cores, {commit}"
        f"{noise}{size}"
    )


def seconds_of(call: Any, *arguments: object) -> tuple[float, Any]:
    """Time one call that is too slow to repeat; returns its seconds and its result."""
    start = time.perf_counter()
    result = call(*arguments)
    return time.perf_counter() - start, result

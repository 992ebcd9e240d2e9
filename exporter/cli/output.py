"""How commands speak: results on stdout, progress on stderr and only on a terminal."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.console import Console


def emit(value: dict[str, Any], lines: Iterable[str], as_json: bool) -> None:
    """Print a result: one JSON object, or sentences for a person."""
    if as_json:
        click.echo(json.dumps(value, ensure_ascii=False, default=str))
    else:
        for line in lines:
            click.echo(line)


@contextmanager
def progress_display() -> Iterator[Callable[[str, float], None] | None]:
    """Show steps and their progress on stderr while the block runs; nothing when stderr is no terminal.

    Yields:
        What takes a step's name and the share of it that is done, or None.
    """
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=False) as display:
        tasks: dict[str, Any] = {}

        def show(step: str, done: float) -> None:
            if step not in tasks:  # until some of it is known to be done, the bar only moves
                tasks[step] = display.add_task(step, total=None)
            if done:
                display.update(tasks[step], completed=done, total=1.0)

        yield show


def report_console() -> Console:
    """Return what draws tables on stdout; wide enough for them where nobody knows the width."""
    from rich.console import Console

    return Console() if sys.stdout.isatty() else Console(width=120)

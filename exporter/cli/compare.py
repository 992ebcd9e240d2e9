"""``exporter compare``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edge_runtime.errors import InputError
from exporter.cli.options import (
    config_option,
    json_option,
    max_bad_rows_option,
    with_bad_rows,
    workers_of,
    workers_options,
)
from exporter.cli.output import emit, progress_display, report_console

if TYPE_CHECKING:
    from rich.table import Table

    from exporter.config import ModelSpec
    from exporter.evidence.gathering import Each
    from exporter.evidence.ranking import Comparison
    from exporter.evidence.trial import By
    from exporter.parallel import Workers

PLOTS = ("png", "svg")


@click.command()
@config_option
@click.option(
    "--spec",
    "others",
    type=click.Path(path_type=Path, dir_okay=False),
    multiple=True,
    help="Another model.toml to compare it with, instead of the grid; may be repeated.",
)
@click.option(
    "--each",
    type=click.Choice(["fleet", "cohort", "device"]),
    default="fleet",
    show_default=True,
    help="What gets a model of its own; figures are means over them.",
)
@click.option(
    "--by",
    type=click.Choice(["labels", "faults"]),
    help="What to judge by.  [default: labels where there are faulty ones, else injected faults]",
)
@click.option(
    "--out", type=click.Path(path_type=Path, file_okay=False),
    help="Folder for compare.json, the plot and the winning model.toml.  [default: nothing is written]",
)  # fmt: skip
@click.option("--plot", type=click.Choice(PLOTS), default=PLOTS[0], show_default=True, help="Kind of the plot.")
@max_bad_rows_option
@workers_options
@json_option
def compare(
    config: Path,
    others: tuple[Path, ...],
    each: Each,
    by: By | None,
    out: Path | None,
    plot: str,
    max_bad_rows: float | None,
    jobs: int | None,
    dask: str | None,
    as_json: bool,
) -> None:
    """Train several specifications on the same telemetry and rank them, cost on the device beside.

    The grid is around model.toml: its table [compare] names detectors, windows, statistics and context. Ranked by AUC,
    then average precision, on held-out readings; without labels, by how well injected faults are found. Nothing is
    packed. Exit code 3 when no specification can be trained; one that cannot be is shown with the reason.
    """
    from exporter.config import load_spec
    from exporter.evidence.grid import grid
    from exporter.files import check_folder

    if out is not None:
        check_folder(out)
        if (out / "model.toml").resolve() in {path.resolve() for path in (config, *others)}:
            raise InputError("--out would replace a model.toml that is compared.", advice="Name another folder.")
    files = {path: with_bad_rows(load_spec(path), max_bad_rows) for path in (config, *others)}
    tried = [(spec, path) for path, spec in files.items()] if others else [(one, config) for one in grid(files[config])]
    comparison = run_comparison([spec for spec, _ in tried], each, by, workers_of(jobs, dask))
    if out is not None:
        source = next(path for spec, path in tried if spec is comparison.winner.spec)
        write_outcome(comparison, source, out, plot)
    if as_json:
        return emit({**comparison.to_dict(), "out": None if out is None else str(out)}, [], as_json)
    return print_comparison(comparison, out)


def run_comparison(specs: list[ModelSpec], each: Each, by: By | None, workers: Workers | None) -> Comparison:
    """Read the telemetry once and compare, with progress on stderr."""
    from exporter.dataset import read_fleet
    from exporter.evidence.ranking import compare_specs, read_columns

    with progress_display() as show:
        if show is not None:
            show("read", 0.0)
        fleet = read_fleet(read_columns(specs).data)
        if show is not None:
            show("read", 1.0)
        return compare_specs(specs, fleet, each=each, by=by, progress=show, workers=workers)


def write_outcome(comparison: Comparison, source: Path, out: Path, plot: str) -> None:
    """Write compare.json, the plot and the winning model.toml."""
    from exporter.evidence.plot import write_plot
    from exporter.evidence.winner import write_winner
    from exporter.files import write_bytes
    from exporter.provenance import readable_json

    write_winner(comparison.winner.spec, source, out / "model.toml")
    write_plot(comparison, out / f"compare.{plot}")
    write_bytes(out / "compare.json", readable_json(comparison.to_dict()))


def print_comparison(comparison: Comparison, out: Path | None) -> None:
    """Print the ranking, faults by kind where they were judged by, reasons of refusal and notes."""
    console = report_console()
    console.print(_ranking_table(comparison))
    if comparison.by == "faults":
        console.print(_fault_table(comparison))
    for trial in comparison.trials:
        if trial.refused:
            console.print(f"- {trial.name}: {trial.refused}", markup=False, highlight=False)
    for note in comparison.notes:
        console.print(f"- {note}", markup=False, highlight=False)
    if out is not None:
        console.print(
            f"Next: exporter build --config {out / 'model.toml'}", markup=False, highlight=False, soft_wrap=True
        )


def _ranking_table(comparison: Comparison) -> Table:
    from rich.table import Table

    by = "labels" if comparison.by == "labels" else "injected faults"
    models = {"fleet": "one model", "cohort": "a model per cohort", "device": "a model per device"}[comparison.each]
    table = Table(title=f"Judged by {by}, {models}", title_justify="left")
    for head in ("#", "specification", "AUC", "precision", "features", "kB", "µs a window", "trained s"):
        table.add_column(head, justify="left" if head == "specification" else "right")
    for number, (trial, cost) in enumerate(zip(comparison.trials, comparison.costs, strict=True)):
        name = f"{trial.name}{' (present)' if number == comparison.present else ''}"
        if cost is None:
            table.add_row("-", name, *["-"] * 6)
            continue
        table.add_row(
            str(number + 1),
            name,
            f"{trial.quality:.3f}",
            f"{trial.average_precision:.3f}",
            f"{trial.features:,}",
            f"{cost.bytes_deflated / 1000:,.1f}",
            f"{cost.window_us[1]:,.1f}",
            f"{trial.seconds:.1f}",
        )
    return table


def _fault_table(comparison: Comparison) -> Table:
    from rich.table import Table

    from exporter.evidence.faults import KINDS

    table = Table(title="AUC by kind of fault, mean of its severities", title_justify="left")
    for head in ("#", *KINDS):
        table.add_column(head, justify="right")
    for number, trial in enumerate(comparison.trials):
        if not trial.refused:
            means = (sum(sizes.values()) / len(sizes) for sizes in trial.faults.values())
            table.add_row(str(number + 1), *(f"{auc:.3f}" for auc in means))
    return table

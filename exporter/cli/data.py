"""``exporter simulate``, ``exporter simulate-browsers`` and ``exporter init``."""

from __future__ import annotations

from pathlib import Path

import click

from edge_runtime.errors import InputError
from exporter.cli.options import json_option, out_option
from exporter.cli.output import emit, progress_display


@click.command()
@out_option
@click.option("--devices", type=click.IntRange(min=1), default=120, show_default=True, help="Devices of the fleet.")
@click.option("--days", type=click.IntRange(min=1), default=14, show_default=True, help="Length of the record.")
@click.option(
    "--interval-minutes", type=click.IntRange(1, 1440), default=30, show_default=True, help="Between readings."
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Equal seeds, equal fleets.")
@click.option("--fault-share", type=click.FloatRange(0, 1), default=0.3, show_default=True, help="Devices that fail.")
@click.option("--overwrite", is_flag=True, help="Replace a fleet that is in the folder.")
@json_option
def simulate(
    out: Path,
    devices: int,
    days: int,
    interval_minutes: int,
    seed: int,
    fault_share: float,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Write a fleet of mobile devices: readings.parquet, labels.parquet, failures.csv.

    Three hardware types, 25 signals, daily rhythm, gaps, and six kinds of fault that build up.
    """
    from exporter.simulator import FleetOptions, simulate_fleet

    options = FleetOptions(devices, days, interval_minutes, seed, fault_share)
    with progress_display() as show:
        fleet = simulate_fleet(
            options,
            out,
            overwrite=overwrite,
            progress=None if show is None else lambda done, of: show("simulate", done / of),
        )
    lines = [
        f"{fleet.readings:,} readings of {fleet.devices} devices in {out}, {fleet.faulty_devices} of them faulty.",
        f"Next: exporter init {out / 'readings.parquet'}",
    ]
    emit(fleet.to_dict(), lines, as_json)


@click.command("simulate-browsers")
@out_option
@click.option("--browsers", type=click.IntRange(min=1), default=80, show_default=True, help="Browsers of the fleet.")
@click.option("--minutes", type=click.IntRange(min=1), default=20, show_default=True, help="Length of the record.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Equal seeds, equal fleets.")
@click.option("--fault-share", type=click.FloatRange(0, 1), default=0.25, show_default=True, help="Browsers that fail.")
@click.option("--overwrite", is_flag=True, help="Replace a fleet that is in the folder.")
@json_option
def simulate_browsers(
    out: Path, browsers: int, minutes: int, seed: int, fault_share: float, overwrite: bool, as_json: bool
) -> None:
    """Write what browsers measure of themselves each second: readings.parquet, labels.parquet, failures.csv.

    Ten signals, most browsers lacking some, and four kinds of fault. The device in the browser runs a model of it.
    """
    from exporter import simulator

    options = simulator.BrowserOptions(browsers, minutes, seed, fault_share)
    with progress_display() as show:
        fleet = simulator.simulate_browsers(
            options,
            out,
            overwrite=overwrite,
            progress=None if show is None else lambda done, of: show("simulate", done / of),
        )
    lines = [
        f"{fleet.readings:,} readings of {fleet.devices} browsers in {out}, {fleet.faulty_devices} of them faulty.",
        f"Next: exporter init {out / 'readings.parquet'} --context ''",
    ]
    emit(fleet.to_dict(), lines, as_json)


@click.command()
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--labels", type=click.Path(path_type=Path), help="Labels file.  [default: one beside the data]")
@click.option("--model", "name", help="Name of the model.  [default: of the data]")
@click.option("--device", help="Column of the device id.  [default: guessed]")
@click.option("--time", help="Column of the time.  [default: guessed]")
@click.option("--cohort", help="Column of the cohort.  [default: guessed]")
@click.option("--context", help="Context signals, with commas between; '' for none.  [default: guessed]")
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), default=Path("model.toml"), show_default=True,
    help="File to write.",
)  # fmt: skip
@click.option("--overwrite", is_flag=True, help="Replace a file that is there.")
@json_option
def init(
    data: Path,
    labels: Path | None,
    name: str | None,
    device: str | None,
    time: str | None,
    cohort: str | None,
    context: str | None,
    out: Path,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Write a commented model.toml for DATA (Parquet, CSV, or a folder of them).

    Columns and context signals are guessed, and marked so: look at the file before you build.
    """
    from exporter.columns import guess_columns
    from exporter.files import write_bytes
    from exporter.init import find_labels, propose_name, write_settings

    if out.exists() and not overwrite:
        raise InputError(f"{out} exists already.", advice="Name another file with --out, or give --overwrite.")
    given = None if context is None else [part.strip() for part in context.split(",") if part.strip()]
    columns = guess_columns(data, device=device, time=time, cohort=cohort, context=given)
    labels = labels or find_labels(data, columns)
    model = name or propose_name(data.resolve())
    text = write_settings(columns, data, labels, name=model, folder=out.resolve().parent)
    write_bytes(out, text.encode())
    value = {
        "file": str(out),
        "model": model,
        "device": columns.device,
        "time": columns.time,
        "cohort": columns.cohort,
        "labels": None if labels is None else str(labels),
        "signals": list(columns.signals),
        "context": list(columns.context),
        "left_out": columns.left_out,
        "interval_seconds": columns.interval_seconds,
    }
    lines = [
        f"{out} written: model {model}, {len(columns.signals)} signals, "
        f"device {columns.device}, time {columns.time}, cohort {columns.cohort or '-'}, labels {labels or '-'}.",
        f"Context: {', '.join(columns.context) or 'none'} (guessed; you decide)."
        if given is None
        else f"Context: {', '.join(columns.context) or 'none'}.",
        *(f"Left out: {column} ({reason})." for column, reason in columns.left_out.items()),
        f"Look at it, then: exporter build --config {out} --out build --targets-key targets.key",
    ]
    emit(value, lines, as_json)

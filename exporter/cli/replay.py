"""``exporter replay``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from exporter.cli.options import json_option, max_bad_rows_option, public_keys_option, repository_option
from exporter.cli.output import emit, progress_display, report_console

if TYPE_CHECKING:
    from rich.table import Table

    from exporter.replay.outcome import Counts, Outcome
    from exporter.replay.sides import Side

_PATH = click.Path(path_type=Path)
_SHOWN_DEVICES = 20


@click.command()
@click.argument("candidate", type=_PATH)
@click.argument("data", type=_PATH)
@click.option("--against", type=_PATH, required=True, help="The release in use: a bundle, or the folder of a release.")
@click.option("--labels", type=_PATH, help="Table of device, time and label (0 healthy, 1 faulty).")
@click.option("--device", help="Column of the device id.  [default: as the candidate was trained]")
@click.option("--time", help="Column of the time.  [default: as the candidate was trained]")
@click.option("--cohort", help="Column of the cohort.  [default: as the candidate was trained]")
@max_bad_rows_option
@click.option(
    "--most-newly-flagged", type=click.FloatRange(0, 1),
    help="Leave with exit code 8 when the candidate alone flags a larger share of the windows.",
)  # fmt: skip
@public_keys_option
@repository_option
@json_option
def replay(
    candidate: Path,
    data: Path,
    against: Path,
    labels: Path | None,
    device: str | None,
    time: str | None,
    cohort: str | None,
    max_bad_rows: float | None,
    most_newly_flagged: float | None,
    public_keys: tuple[Path, ...],
    repository: Path | None,
    as_json: bool,
) -> None:
    """Show what CANDIDATE would have flagged in DATA, beside the release in use, before it is published.

    CANDIDATE is a bundle or a folder with the bundles of a release. DATA is recorded telemetry (Parquet, CSV or a
    folder of them) or the windows that a server kept (GET /api/channels/CHANNEL/windows). Exit code 0 when both were
    compared, 3 for data that cannot be used, 4 for a bundle that is not trusted, 7 for a model that fails, 8 above
    --most-newly-flagged.
    """
    from exporter.cli.audit import open_or_verify
    from exporter.replay.sides import check_same_model, load_side
    from exporter.replay.source import Source, replay_source

    def opened(path: Path) -> Any:
        return open_or_verify(path, public_keys, repository)[0]

    new, current = load_side(candidate, opened), load_side(against, opened)
    check_same_model(new, current)
    source = Source(data, labels, device, time, cohort, max_bad_rows)
    with progress_display() as show:
        outcome = replay_source(source, new, current, *([] if show is None else [show]))
    value = {"candidate": new.to_dict(), "against": current.to_dict(), **outcome.to_dict()}
    if as_json:
        emit(value, [], as_json)
    else:
        print_outcome(outcome, new, current)
    _check_goal(outcome.total, most_newly_flagged)


def _check_goal(total: Counts, most: float | None) -> None:
    from exporter.errors import GoalsMissedError

    share = total.newly_flagged / max(1, total.windows)
    if most is not None and share > most:
        raise GoalsMissedError(
            f"The candidate alone flags {share:.3%} of the windows, with at most {most:.3%} wanted.",
            advice="Look at the devices that change most before it is published.", share=share,
        )  # fmt: skip


def print_outcome(outcome: Outcome, new: Side, current: Side) -> None:
    """Print the tables: cohorts, labels where there are any, the devices that change most, notes."""
    console = report_console()
    console.print(f"{new.name} against {current.name}", markup=False, highlight=False)
    console.print(_cohort_table(outcome))
    if outcome.total.faulty + outcome.total.healthy:
        console.print(_label_table(outcome))
    if outcome.most_changed(1):
        console.print(_device_table(outcome))
    for line in _sentences(outcome):
        console.print(f"- {line}", markup=False, highlight=False, soft_wrap=True)


def _table(title: str, *heads: str) -> Table:
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for place, head in enumerate(heads):
        table.add_column(head, justify="left" if place == 0 else "right")
    return table


def _cohort_table(outcome: Outcome) -> Table:
    table = _table(
        "By cohort", "cohort", "devices", "days", "windows", "flagged now", "by candidate", "newly", "no longer",
        "incidents now", "by candidate", "new", "gone",
    )  # fmt: skip
    rows = [(cohort or "-", *found) for cohort, found in outcome.by_cohort().items()]
    if len(rows) > 1:
        rows.append(("all", len(outcome.devices), outcome.total))
    for name, devices, one in rows:
        figures = (
            devices, round(one.days), one.windows, one.flagged_current, one.flagged_candidate, one.newly_flagged,
            one.no_longer_flagged, one.incidents_current, one.incidents_candidate, one.incidents_new,
            one.incidents_gone,
        )  # fmt: skip
        table.add_row(name, *(f"{figure:,}" for figure in figures))
    return table


def _label_table(outcome: Outcome) -> Table:
    total, areas = outcome.total, outcome.areas()
    table = _table("By labels", "", "windows", "flagged now", "by candidate")
    for name, number, now, then in (
        ("faulty", total.faulty, total.faulty_current, total.faulty_candidate),
        ("healthy", total.healthy, total.healthy_current, total.healthy_candidate),
    ):
        table.add_row(
            name, f"{number:,}", *(f"{flagged:,} ({flagged / max(1, number):.1%})" for flagged in (now, then))
        )
    table.add_row("AUC", "", *("-" if area is None else f"{area:.4f}" for area in areas.values()))
    return table


def _device_table(outcome: Outcome) -> Table:
    table = _table(
        "Devices that change most", "device", "cohort", "newly", "no longer", "first alarm now", "by candidate"
    )
    for one in outcome.most_changed(_SHOWN_DEVICES):
        counts = one.counts
        table.add_row(
            one.device or "-", one.cohort or "-", f"{counts.newly_flagged:,}", f"{counts.no_longer_flagged:,}",
            _moment(one.first_alarm_current_ms), _moment(one.first_alarm_candidate_ms),
        )  # fmt: skip
    return table


def _moment(at_ms: int | None) -> str:
    from datetime import UTC, datetime, timedelta

    if at_ms is None:
        return "-"
    return f"{datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=at_ms):%Y-%m-%d %H:%M}"


def _sentences(outcome: Outcome) -> list[str]:
    first, correlation = outcome.first_alarms(), outcome.rank_correlation()
    lines = [
        f"First alarms: {first['both']} devices by both, {first['only_candidate']} by the candidate alone,"
        f" {first['only_current']} by the release in use alone; earlier by the candidate on {first['earlier']}, later"
        f" on {first['later']}."
    ]
    if correlation is not None:
        lines.append(f"Rank correlation of the raw scores: {correlation:.4f}.")
    if outcome.left_out:
        lines.append(f"{outcome.left_out} {outcome.unit} were left out: one of the releases has no bundle for them.")
    return [*lines, *outcome.notes]

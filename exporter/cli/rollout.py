"""``exporter rollout``: start a rollout, by a plan or by hand, steer it, and see how it goes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge_runtime.errors import InputError
from exporter.cli.options import Share, connect, json_option, required_url, server_option, token_options
from exporter.cli.output import emit

if TYPE_CHECKING:
    from collections.abc import Callable

    from edge_runtime.contract.rollout import Rollout
    from exporter.server import Server


@dataclass(frozen=True, slots=True)
class _Asked:
    """What the options ask for."""

    model: str | None
    number: int | None
    cohorts: tuple[str, ...]
    all_cohorts: bool
    share: int | None
    plan_file: Path | None
    staged: bool
    action: str | None
    note: str

    @property
    def starts(self) -> bool:
        return self.model is not None or self.number is not None

    @property
    def widens(self) -> bool:
        return self.all_cohorts or (bool(self.cohorts) and not self.starts)

    @property
    def planned(self) -> bool:
        return self.staged or self.plan_file is not None


@click.command()
@click.argument("channel")
@server_option
@token_options
@click.option("--model", help="Start a rollout: of this model,")
@click.option("--release", "number", type=click.IntRange(min=1), help="this release,")
@click.option("--staged", is_flag=True, help="in stages that the server's default plan names,")
@click.option(
    "--plan", "plan_file", type=click.Path(path_type=Path, dir_okay=False), help="or in those of this TOML file,"
)
@click.option("--cohort", "cohorts", multiple=True, help="only for these cohorts. Alone: also for these. Repeatable.")
@click.option("--all-cohorts", is_flag=True, help="Let all cohorts into the running rollout.")
@click.option("--share", type=Share(), help="Devices that get it, such as 25% or 2500. Alone: widen the running one.")
@click.option("--pause", "action", flag_value="pause", help="Let nobody else in.")
@click.option("--resume", "action", flag_value="resume", help="Go on after a pause.")
@click.option(
    "--advance",
    "action",
    flag_value="advance",
    help="Go to the plan's next stage without waiting; in the last one, end the watch.",
)
@click.option("--roll-back", "action", flag_value="roll_back", help="Send everybody back to the release before.")
@click.option("--progress", "action", flag_value="progress", help="Show stages, gates and overdue devices.")
@click.option("--note", default="", help="Why; goes into the audit trail.")
@json_option
def rollout(
    channel: str,
    url: str | None,
    token_file: Path | None,
    token: str | None,
    allow_insecure_http: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Show the rollout of CHANNEL, or start, widen, pause, resume, advance or roll it back."""
    asked = _Asked(**options)
    _check(asked)
    server = connect(required_url(url), token_file, token, allow_insecure_http)
    if asked.action == "progress":
        from exporter.channels import show_progress
        from exporter.cli.rollout_report import describe_progress

        value = show_progress(server, channel)
        emit(value, describe_progress(value), as_json)
        return
    running = _change(asked)(server, channel)
    emit({"channel": channel, **running.to_dict()}, [describe_rollout(channel, running)], as_json)


def _check(asked: _Asked) -> None:
    """Refuse options that contradict each other, before anything is sent."""
    alone = (asked.share is not None or asked.planned) and not asked.starts
    if sum((asked.starts, asked.widens, asked.action is not None, alone)) > 1:
        raise InputError(
            "Only one change at a time.", advice="Start, widen, pause, resume, advance, roll back or show the progress."
        )
    if (asked.starts or asked.planned) and (asked.model is None or asked.number is None):
        raise InputError("A rollout needs --model and --release.", advice="Give both.")
    if asked.planned and (asked.share is not None or asked.cohorts or (asked.staged and asked.plan_file)):
        raise InputError(
            "A rollout in stages takes share and cohorts from its plan.",
            advice="Give --staged or --plan alone, and write cohorts into the plan's stages.",
        )


def _change(asked: _Asked) -> Callable[[Server, str], Rollout]:
    """Return what does what is asked for; nothing asked for shows the rollout."""
    from exporter import channels
    from exporter.rollout_plan import read_plan

    if asked.starts:
        plan = {} if asked.staged else None if asked.plan_file is None else read_plan(asked.plan_file)
        return lambda server, channel: channels.start_rollout(
            server, channel, asked.model or "", asked.number or 0, asked.share or 0, asked.cohorts or None, plan=plan,
            note=asked.note,
        )  # fmt: skip
    if asked.action == "advance":
        return lambda server, channel: channels.advance(server, channel, note=asked.note)
    if asked.cohorts and not asked.all_cohorts:
        return lambda server, channel: channels.add_cohorts(server, channel, asked.cohorts, note=asked.note)
    change: dict[str, Any] | None = None
    if asked.all_cohorts:
        change = {"action": "widen", "cohorts": None}
    elif asked.action is not None:
        change = {"action": asked.action}
    elif asked.share is not None:
        change = {"action": "share", "share": asked.share}
    if change is None:
        return channels.show_channel
    return lambda server, channel: channels.change_channel(server, channel, {**change, "note": asked.note})


def describe_rollout(channel: str, running: Rollout) -> str:
    """Return one sentence on a rollout."""
    before = "nothing before" if running.previous is None else f"release {running.previous} before"
    only = "" if running.cohorts is None else f", cohorts {', '.join(running.cohorts)} only"
    return (
        f"Channel {channel}: {running.model} release {running.release}, {running.share / 100:g} % of devices, "
        f"{running.state.replace('_', ' ')}, {before}{only}."
    )

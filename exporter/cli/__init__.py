"""``exporter``: the workshop's command line. Commands load when they run, so that ``--help`` is instant.

Exit codes: 0 done, 1 a bug, 2 usage, 3 bad input, 4 trust refused, 5 network or server, 6 storage, 7 model, 8 goals
missed, 130 interrupted. Results go to stdout, everything else to stderr.
"""

from __future__ import annotations

import importlib
import json
import sys
from importlib import metadata
from typing import cast

import click

from edge_runtime.errors import InputError, StellaError

INTERRUPTED = 130
# Name: where the click command is, and its line in the help; in the order of the journey.
COMMANDS: dict[str, tuple[str, str]] = {
    "simulate": ("exporter.cli.data:simulate", "Write the telemetry of a fleet that never existed."),
    "simulate-browsers": ("exporter.cli.data:simulate_browsers", "Write the telemetry of browsers that never existed."),
    "init": ("exporter.cli.data:init", "Write a commented model.toml from a data file."),
    "build": ("exporter.cli.build:build", "Train, convert, quantize, prove, pack, sign and publish in one go."),
    "import": ("exporter.cli.import_model:import_model", "Pack a model trained elsewhere, with the same proof."),
    "compare": ("exporter.cli.compare:compare", "Rank detectors, windows and context by evidence from the data."),
    "train": ("exporter.cli.steps:train", "Train and prove models, into a work folder."),
    "convert": ("exporter.cli.steps:convert", "Ship the exact form of each model of a work folder."),
    "quantize": ("exporter.cli.steps:quantize", "Ship a smaller form of each model of a work folder."),
    "pack": ("exporter.cli.steps:pack", "Pack a work folder into signed bundles."),
    "keys": ("exporter.cli.keys:keys", "Make release keys."),
    "repository": ("exporter.cli.repository:repository", "Make and keep the TUF repository folder."),
    "release": ("exporter.cli.release:release", "Prepare a release folder for its signers."),
    "sign": ("exporter.cli.release:sign", "Add a signature to a release folder."),
    "publish": ("exporter.cli.release:publish", "Send a signed release folder to the server."),
    "rollout": ("exporter.cli.rollout:rollout", "Steer which devices get which release."),
    "verify": ("exporter.cli.audit:verify", "Check a bundle as an auditor would."),
    "replay": ("exporter.cli.replay:replay", "Show what a release would have flagged, before it is published."),
    "export": ("exporter.cli.export:export", "Write a bundle's graph as files for an app of your own."),
    "bench": ("exporter.cli.bench:bench", "Measure a bundle's model on this machine."),
    "inspect": ("exporter.cli.audit:inspect", "Show what a bundle, release or repository holds."),
}


class LazyGroup(click.Group):
    """A group whose commands are imported when they are needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click fixes the signature
        """Return the commands in the order of the journey."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import a command."""
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name][0].partition(":")
        return cast("click.Command", getattr(importlib.import_module(module), name))

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write the list of commands without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(metadata.version("stella-edge"), prog_name="exporter")
def group() -> None:
    """Stella Edge's workshop: fleet telemetry in, one signed bundle per cohort out.

    Begin with 'exporter init DATA.parquet', then 'exporter build'.
    """


def main() -> None:
    """Run the command line and leave with its exit code."""
    sys.exit(run_command(sys.argv[1:]))


def run_command(arguments: list[str]) -> int:
    """Run one command; the one place where errors become exit codes.

    Args:
        arguments: Without the program's name.

    Returns:
        The exit code.
    """
    try:
        result = group.main(arguments, prog_name="exporter", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except StellaError as error:
        if "--json" in arguments:
            click.echo(json.dumps(error.to_dict(), ensure_ascii=False, default=str))
        click.echo(f"exporter: {error}", err=True)
        return error.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in ("edge_runtime", "exporter", "sync_server"):
            raise
        # The base install is the device alone.
        click.echo(
            f"exporter: {error.name} is not installed. Install it with: pip install 'stella-edge[exporter]'", err=True
        )
        return InputError.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("exporter: interrupted", err=True)
        return INTERRUPTED

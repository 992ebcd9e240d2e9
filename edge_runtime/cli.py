"""``edge-runtime``: the device's command line. Commands load when they run, so that ``--help`` is instant.

Exit codes: 0 done, 1 a bug, 2 usage, 3 bad input, 4 trust refused, 5 network or server, 6 storage, 7 model.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Mapping
from typing import cast

import click

from edge_runtime import __version__
from edge_runtime.errors import INTERRUPTED, StellaError

# Name: where the click command is, and its line in the help.
COMMANDS: dict[str, tuple[str, str]] = {
    "enroll": ("edge_runtime.commands.enroll:enroll", "Join a server with the line its operator gave."),
    "sync": ("edge_runtime.commands.sync:sync", "Fetch, verify and activate the release this device should run."),
    "score": ("edge_runtime.commands.score:score", "Score readings, offline."),
    "upload": ("edge_runtime.commands.upload:upload", "Send results that the server does not hold yet."),
    "run": ("edge_runtime.commands.run:run", "Sync, score and upload in a loop until stopped."),
    "status": ("edge_runtime.commands.status:status", "Show what this device is, runs and holds."),
}


class LazyGroup(click.Group):
    """A group whose commands are imported when they are needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click fixes the signature
        """Return the commands in the order a person meets them."""
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
@click.version_option(__version__, prog_name="edge-runtime")
def group() -> None:
    """Stella Edge on a device: verified models, scored offline, results that are never lost.

    Settings come from defaults, edge-runtime.toml in the home folder, EDGE_RUNTIME_* and flags, in that order.
    """


def main() -> None:
    """Run the command line and leave with its exit code."""
    sys.exit(run_command(sys.argv[1:]))


def run_command(arguments: list[str]) -> int:
    """Run one command.

    Args:
        arguments: Without the program's name.

    Returns:
        The exit code.
    """
    try:
        result = group.main(arguments, prog_name="edge-runtime", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except StellaError as error:
        _print_json(arguments, error.to_dict())
        click.echo(f"edge-runtime: {error}", err=True)
        return error.exit_code
    except click.ClickException as error:
        _print_json(arguments, {"error": "usage", "message": error.format_message()})
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        _print_json(arguments, {"error": "interrupted", "message": "The command was interrupted."})
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of our output left (`| head`): not an error, and nothing more can be printed.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _print_json(arguments: list[str], fields: Mapping[str, object]) -> None:
    if "--json" in arguments:
        click.echo(json.dumps(fields, ensure_ascii=False, default=str))

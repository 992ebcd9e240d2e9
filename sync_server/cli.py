"""``sync-server``: the server's command line. Commands load when they run, so that ``--help`` is instant.

Exit codes: 0 done, 1 a bug, 2 usage, 3 bad input, 4 trust refused, 5 network, 6 storage or database, 130 interrupted.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from typing import cast

import click

from edge_runtime.errors import InputError, StellaError

INTERRUPTED = 130
# Name: where the click command is, and its line in the help.
COMMANDS: dict[str, tuple[str, str]] = {
    "run": ("sync_server.commands.run:run", "Serve devices, release engineers and the dashboard."),
    "migrate": ("sync_server.commands.database:migrate", "Bring the database to the newest schema."),
    "backup": ("sync_server.commands.backup:backup", "Copy database, keys and bundles while the server runs."),
    "restore": ("sync_server.commands.backup:restore", "Bring a backup back into an empty data folder."),
    "sign": ("sync_server.commands.backup:sign", "Sign snapshot and timestamp anew."),
    "online-key": ("sync_server.commands.online_key:online_key", "Print the public key that root must name."),
    "enrolment": ("sync_server.commands.enrolment:enrolment", "Make and revoke the lines that let devices in."),
    "device": ("sync_server.commands.device:device", "Shut devices out, or clear their mark as cloned."),
    "token": ("sync_server.commands.token:token", "Make and revoke tokens of people and programs."),
    "webhook": ("sync_server.commands.webhook:webhook", "Tell other systems what happens here."),
    "operator": ("sync_server.commands.operator:operator", "Make log-ins for the dashboard."),
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
@click.version_option(package_name="stella-edge", prog_name="sync-server")
def group() -> None:
    """Stella Edge's server: signed releases out to devices, their results back, and a dashboard over both.

    Settings come from defaults, DATA_DIR/server.toml, SYNC_SERVER_* and DATABASE_URL, and flags, in that order.
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
        result = group.main(arguments, prog_name="sync-server", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except StellaError as error:
        if "--json" in arguments:
            click.echo(json.dumps(error.to_dict(), ensure_ascii=False, default=str))
        click.echo(f"sync-server: {error}", err=True)
        return error.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in ("edge_runtime", "exporter", "sync_server"):
            raise
        # The base install is the device alone.
        click.echo(
            f"sync-server: {error.name} is not installed. Install it with: pip install 'stella-edge[server]'", err=True
        )
        return InputError.exit_code
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of our output left (`| head`): not an error, and nothing more can be printed.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0

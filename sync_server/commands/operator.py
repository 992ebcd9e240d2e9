"""``operator create``, ``operator disable``: log-ins for the dashboard."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edge_runtime.errors import InputError
from sync_server.options import server_options, show

if TYPE_CHECKING:
    from sync_server.config import ServerConfig


@click.group()
def operator() -> None:
    """Make log-ins for the dashboard."""


def _password(file: Path | None) -> str:
    """The password: the file's first line, or asked for twice; never an argument, which other users can see."""
    if file is None:
        return str(click.prompt("Password", hide_input=True, confirmation_prompt=True))
    try:
        lines = file.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"The password file {file} cannot be read.", advice="Check the path and its mode.") from error
    return lines[0] if lines else ""


@operator.command()
@server_options
@click.argument("username")
@click.option("--role", type=click.Choice(["operator", "viewer"]), default="operator", help="Viewers change nothing.")
@click.option("--password-file", type=click.Path(path_type=Path), help="Its first line; without it, you are asked.")
def create(config: ServerConfig, as_json: bool, username: str, role: str, password_file: Path | None) -> None:
    """Make a log-in, or give the one of that name a new password and role, ending its sessions."""
    from sync_server.access.audit import audit
    from sync_server.access.sessions import create_operator
    from sync_server.commands.database import open_database

    password = _password(password_file)
    with open_database(config) as database, database.session() as session:
        create_operator(session, username, password, role=role)
        audit(session, "command line", "operator.create", f"operator:{username}", {"role": role})
    show({"username": username, "role": role}, f"{username} can log in as {role}.", as_json=as_json)


@operator.command()
@server_options
@click.argument("username")
def disable(config: ServerConfig, as_json: bool, username: str) -> None:
    """End a log-in and its sessions at once."""
    from sync_server.access.audit import audit
    from sync_server.access.sessions import disable_operator
    from sync_server.commands.database import open_database

    with open_database(config) as database, database.session() as session:
        disable_operator(session, username)
        audit(session, "command line", "operator.disable", f"operator:{username}")
    show({"disabled": username}, f"{username} can no longer log in.", as_json=as_json)

"""``enrolment create``, ``enrolment list``, ``enrolment revoke``: the lines that let devices in."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from edge_runtime.errors import InputError
from sync_server.options import server_options, show

if TYPE_CHECKING:
    from sync_server.config import ServerConfig

ACTOR = "command line"


@click.group()
def enrolment() -> None:
    """Make and revoke the lines that let devices in."""


@enrolment.command()
@server_options
@click.option("--model", required=True, help="What the devices run.")
@click.option("--channel", required=True, help="The channel they follow.")
@click.option("--uses", default=1, show_default=True, help="How many devices it lets in.")
@click.option("--expires-days", default=30, show_default=True, help="Days until it lets nobody in.")
@click.option("--url", help="The server as devices reach it. [default: public_url, else http://host:port]")
@click.option("--browser", is_flag=True, help="Print a link that a browser joins by, for devices of kind demo.")
def create(
    config: ServerConfig, as_json: bool, model: str, channel: str, uses: int, expires_days: int, url: str | None,
    browser: bool,
) -> None:  # fmt: skip
    """Print one line for `edge-runtime enroll`; it pins the root of trust and carries a secret."""
    from sync_server.commands.database import open_database
    from sync_server.devices.enrolment import browser_link, create_enrolment
    from sync_server.errors import RequestError
    from sync_server.repository.metadata import enrolment_facts

    with open_database(config) as database, database.session() as session:
        try:
            root_digest, targets_version = enrolment_facts(session)
        except RequestError as error:
            raise InputError(
                "Devices cannot be enrolled before a release is published: there is no root that they could pin.",
                advice="Run: exporter publish",
            ) from error
        line = create_enrolment(
            session, model=model, channel=channel, uses=uses, expires_days=expires_days,
            url=url or (config.device_address if browser else config.address), root_digest=root_digest,
            targets_version=targets_version, actor=ACTOR, kind="demo" if browser else "edge",
        )  # fmt: skip
    shown = browser_link(line) if browser else str(line)
    result = {"link" if browser else "line": shown, "uses": uses, "expires_days": expires_days}
    show(result, shown, as_json=as_json)


@enrolment.command("list")
@server_options
def list_them(config: ServerConfig, as_json: bool) -> None:
    """List the latest enrolment tokens; their secrets are stored nowhere."""
    from sync_server.commands.database import open_database
    from sync_server.devices.enrolment import list_enrolments

    with open_database(config) as database, database.session() as session:
        rows = list_enrolments(session)
    lines = [
        f"{row['id']:>6}  {row['model']} on {row['channel']} ({row['kind']})"
        f"  {row['uses_left']} of {row['uses_allowed']} left{'  revoked' if row['revoked'] else ''}"
        for row in rows
    ]
    show({"enrolments": rows}, "\n".join(lines) or "There are no enrolment tokens.", as_json=as_json)


@enrolment.command()
@server_options
@click.argument("token_id", type=int)
def revoke(config: ServerConfig, as_json: bool, token_id: int) -> None:
    """Take an enrolment token back; devices that it let in stay."""
    from sync_server.commands.database import open_database
    from sync_server.devices.enrolment import revoke_enrolment

    with open_database(config) as database, database.session() as session:
        revoke_enrolment(session, token_id, actor=ACTOR)
    show({"revoked": token_id}, f"Enrolment token {token_id} is revoked.", as_json=as_json)

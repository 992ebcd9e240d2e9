"""``device revoke``, ``device forget-clone``: what operators decide about single devices."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from sync_server.options import server_options, show

if TYPE_CHECKING:
    from sync_server.config import ServerConfig

ACTOR = "command line"


@click.group()
def device() -> None:
    """Shut devices out, or clear what was noted of them."""


@device.command()
@server_options
@click.argument("device_id")
def revoke(config: ServerConfig, as_json: bool, device_id: str) -> None:
    """End a device's token, and refuse its installation from now on; its results stay."""
    from sync_server.commands.database import open_database
    from sync_server.devices.service import revoke_device

    with open_database(config) as database, database.session() as session:
        revoke_device(session, device_id, actor=ACTOR)
    show({"revoked": device_id}, f"Device {device_id} is revoked.", as_json=as_json)


@device.command("forget-clone")
@server_options
@click.argument("device_id")
def forget_clone_of(config: ServerConfig, as_json: bool, device_id: str) -> None:
    """Take the mark `cloned` off a device; it comes back when two of its streams grow in turn again."""
    from sync_server.commands.database import open_database
    from sync_server.devices.service import forget_clone

    with open_database(config) as database, database.session() as session:
        forget_clone(session, device_id, actor=ACTOR)
    show({"forgotten": device_id}, f"Device {device_id} is no longer marked as cloned.", as_json=as_json)

"""``online-key``: the public half of the key that signs snapshot and timestamp."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from sync_server.options import server_options, show

if TYPE_CHECKING:
    from sync_server.config import ServerConfig


@click.command("online-key")
@server_options
def online_key(config: ServerConfig, as_json: bool) -> None:
    """Print the online public key as PEM, for `exporter repository create --online-key`; made on first use."""
    from sync_server.repository.online_key import load_or_create, public_pem

    pem = public_pem(load_or_create(config.online_key_path))
    show({"online_key": pem, "path": str(config.online_key_path)}, pem.rstrip("\n"), as_json=as_json)

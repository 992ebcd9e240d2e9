"""``run``: the server itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from sync_server.options import server_options

if TYPE_CHECKING:
    from sync_server.config import ServerConfig


@click.command()
@server_options
@click.option("--host", help="Address to listen on. [default: 127.0.0.1]")
@click.option("--port", type=click.IntRange(0, 65535), help="TCP port, 0 for any free one. [default: 8080]")
@click.option("--workers", type=int, help="Worker processes. [default: 1]")
@click.option("--threads", type=int, help="Threads of each worker. [default: 16]")
@click.option("--public-url", help="Address that devices and browsers use, when a proxy is in front.")
def run(config: ServerConfig, as_json: bool) -> None:
    """Serve until SIGTERM or Ctrl-C. Without DATABASE_URL it runs its own Postgres in the data folder."""
    from sync_server.metrics_folder import prepared

    with prepared():  # before anything below imports the metrics
        from sync_server.serving import serve

        serve(config, as_json=as_json)

"""``edge-runtime upload``."""

from __future__ import annotations

import contextlib
from dataclasses import asdict

import click

from edge_runtime.config import Config
from edge_runtime.options import device_options, show


@click.command(short_help="Send results that the server does not hold yet.")
@device_options("allow_insecure_http", "ca_file", "batch_records")
def upload(config: Config, as_json: bool) -> None:
    """Send results that the server does not hold yet; only what it says it holds leaves this device."""
    from edge_runtime.device import open_device
    from edge_runtime.device_status import report_status
    from edge_runtime.edge_db import EdgeDatabase
    from edge_runtime.errors import TransportError
    from edge_runtime.home import Home
    from edge_runtime.outbox import Outbox
    from edge_runtime.upload import upload_all

    home = Home(config.home)
    with open_device(config) as device, home.lock("upload"), EdgeDatabase(home.database) as database:
        report = upload_all(device, database, batch_records=config.batch_records)
        left = Outbox(database).state().records
        with contextlib.suppress(TransportError):  # operators see it later, nothing else depends on it
            report_status(device, database)
    refused = f", {report.refused} were refused (see `edge-runtime status`)" if report.refused else ""
    forked = " This home is an older copy of itself: its results continue in a new stream." if report.forks else ""
    text = f"{report.acknowledged} records are on the server{refused}; {left} wait.{forked}"
    show({**asdict(report), "waiting": left}, text, as_json=as_json)

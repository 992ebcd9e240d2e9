"""``edge-runtime sync``."""

from __future__ import annotations

import contextlib
from dataclasses import asdict

import click

from edge_runtime.config import Config
from edge_runtime.options import device_options, download_progress, show


@click.command(short_help="Fetch, verify and activate the release this device should run.")
@device_options("refuse_below_goals", "allow_insecure_http", "ca_file")
def sync(config: Config, as_json: bool) -> None:
    """Refresh trust, and fetch, verify, try out and activate the release that this device should run.

    Whatever fails, the active bundle stays as it was; an interrupted download continues next time.
    """
    from edge_runtime.device import open_device
    from edge_runtime.device_status import report_status
    from edge_runtime.edge_db import EdgeDatabase
    from edge_runtime.errors import TransportError
    from edge_runtime.home import Home
    from edge_runtime.outbox import Outbox
    from edge_runtime.sync import synchronise

    home = Home(config.home)
    with open_device(config) as device, home.lock("sync"), EdgeDatabase(home.database) as database:
        report = synchronise(device, Outbox(database), progress=download_progress())
        if not isinstance(report.error, TransportError):  # a server that is away would be waited for twice
            with contextlib.suppress(TransportError):  # operators see it later, nothing else depends on it
                report_status(device, database)
    if report.error is not None:
        raise report.error
    size = f" {report.downloaded_bytes:,} bytes were downloaded." if report.downloaded_bytes else ""
    fields = {**asdict(report.outcome), "downloaded_bytes": report.downloaded_bytes}
    show(fields, report.outcome.message + size, as_json=as_json)

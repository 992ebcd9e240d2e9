"""``edge-runtime run``."""

from __future__ import annotations

from dataclasses import asdict

import click

from edge_runtime.config import Config
from edge_runtime.options import device_options, show


@click.command(short_help="Sync, score and upload in a loop until stopped.")
@device_options(
    "readings", "sync_interval_seconds", "upload_interval_seconds", "batch_records", "refuse_below_goals",
    "allow_insecure_http", "ca_file",
)  # fmt: skip
def run(config: Config, as_json: bool) -> None:
    """Sync, score and upload in a loop until SIGTERM or Ctrl-C, or until standard input ends.

    Readings come from --readings (a file that is followed as it grows) or standard input. No answer of the server,
    and no server at all, stops the scoring.
    """
    from edge_runtime.agent import Agent
    from edge_runtime.device import open_device

    with open_device(config) as device, device.home.lock("run"):
        report = Agent(device, config).run()
    counts = ", ".join(f"{amount:,} {name.replace('_', ' ')}" for name, amount in sorted(report.outcomes.items()))
    text = f"Stopped. Readings: {counts or 'none'}; {report.anomalies:,} anomalous."
    show(asdict(report), text, as_json=as_json)

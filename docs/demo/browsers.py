"""The demo's browsers: a model of simulated ones on a channel of its own, a recording to replay, links to join by."""

from __future__ import annotations

import shutil
from pathlib import Path

from .fleet import Fleet, readings_file
from .processes import run, run_json

MODEL, CHANNEL = "browser", "browsers"
# A fleet of simulated browsers that is watched for 27 hours in all supports no rarer alarms than about one a day.
ALARMS_PER_DEVICE_DAY = 12


def build(work: Path, url: str) -> None:
    """Simulate browsers, train their model, publish it and roll it out to the channel ``browsers``."""
    data, config = work / "browsers", work / "browsers.toml"
    run("exporter", "simulate-browsers", "--out", data, "--seed", "7")
    run("exporter", "init", data / "readings.parquet", "--context", "", "--model", MODEL, "--out", config)
    text = config.read_text()
    # Most browsers lack some signals for good, which an autoencoder takes better than a forest; see ADR 21.
    for shown, wanted in (
        ('# kind = "isolation_forest"', 'kind = "autoencoder"'),
        ("# alarms_per_device_day = 0.02", f"alarms_per_device_day = {ALARMS_PER_DEVICE_DAY}"),
        ('# channels = ["stable"]', f'channels = ["{CHANNEL}"]'),
    ):
        text = text.replace(shown, wanted)
    config.write_text(text)
    run_json(
        "exporter", "build", "--config", config, "--out", work / "browser-bundles", "--repository", work / "repository",
        "--targets-key", work / "keys" / "targets.pem", "--publish", url, "--token-file", work / "publisher.token",
        "--channel", CHANNEL, "--share", "100%",
    )  # fmt: skip


def offer_recording(work: Path, data_dir: Path, fleet: Fleet, model: str) -> None:
    """Put the readings of a device that did not train where browsers find them."""
    folder = data_dir / "recordings"
    folder.mkdir(parents=True, exist_ok=True)
    longest = max((device for device, _ in fleet.chosen), key=lambda device: readings_file(work, device).stat().st_size)
    shutil.copyfile(readings_file(work, longest), folder / f"{model}.csv")


def link(data_dir: Path, model: str, channel: str, url: str) -> str:
    """Return a link by which one browser joins."""
    return run(
        "sync-server", "enrolment", "create", "--data-dir", data_dir, "--model", model, "--channel", channel,
        "--url", url, "--browser",
    ).strip()  # fmt: skip

"""``python -m benchmarks.load``: a simulated fleet against a server on this machine."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click

from benchmarks.load.device import Habits
from benchmarks.load.fleet import MOST_DEVICES, Fleet, enrol_in_bulk, new_secret
from benchmarks.load.run import MOST_SECONDS, MOST_VISITS_A_SECOND, Plan, Run
from benchmarks.load.stored import compare
from edge_runtime.errors import InputError, StellaError, StorageError
from edge_runtime.http_transport import is_loopback

FAILED = 1
_SHARE = click.FloatRange(0, 1)


@click.command(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.option("--url", required=True, help="The server; loopback only.")
@click.option("--data-dir", type=click.Path(path_type=Path), help="Its data folder, when it runs its own Postgres.")
@click.option("--database-url", envvar="DATABASE_URL", help="Its database, when that is another one.")
@click.option("--devices", type=click.IntRange(1, MOST_DEVICES), default=10_000, help="Devices, enrolled in bulk.")
@click.option("--seconds", type=click.FloatRange(1, MOST_SECONDS), default=60.0, help="How long visits begin.")
@click.option("--poll-every", type=click.FloatRange(1), default=3600.0, help="Seconds between a device's visits.")
@click.option("--model", default="phones", help="What the devices run.")
@click.option("--channel", default="stable", help="What they follow.")
@click.option("--batch-records", type=click.IntRange(1, 5000), default=2000, help="Most records in an upload.")
@click.option("--incident-share", type=_SHARE, default=0.02, help="Chance of an incident in a device's hour.")
@click.option("--backlog-share", type=_SHARE, default=0.02, help="Devices that were offline for up to three days.")
@click.option("--offline-share", type=_SHARE, default=0.05, help="Devices that are offline for the middle third.")
@click.option("--lost-answers", type=_SHARE, default=0.005, help="Uploads that are sent again.")
@click.option("--etag", is_flag=True, help="Poll with If-None-Match, as browsers do.")
@click.option("--poll-only", is_flag=True, help="No uploads, no status.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def main(
    url: str, data_dir: Path | None, database_url: str | None, devices: int, seconds: float, poll_every: float,
    offline_share: float, as_json: bool, **habits: Any,
) -> None:  # fmt: skip
    """Visit a server as a fleet of devices does: poll, activate, upload, tell how they are.

    Exit codes: 0 every answer as it should be and every record stored once; 1 not so; 2 wrong options; 3 and more as
    for the other programs (3 input, 5 network, 6 storage).
    """
    try:
        result = load(
            url, database_of(data_dir, database_url), devices=devices, habits=Habits(**habits),
            plan=Plan(seconds, poll_every, offline_share), tell=lambda text: click.echo(text, err=True),
        )  # fmt: skip
    except StellaError as error:
        click.echo(str(error), err=True)
        sys.exit(error.exit_code)
    click.echo(json.dumps(result) if as_json else _readable(result))
    sys.exit(0 if result["as_it_should_be"] else FAILED)


def load(url: str, database: str, *, devices: int, habits: Habits, plan: Plan, tell: Any) -> dict[str, Any]:
    """Enrol a fleet, run it, and compare what is stored.

    Args:
        url: The server.
        database: Address of its database, the app's role.
        devices: How many.
        habits: How they behave.
        plan: How often they come.
        tell: Gets lines of progress.

    Returns:
        The tally, the comparison, and ``as_it_should_be``.

    Raises:
        InputError: The address is not loopback, or the plan too fast.
        TransportError: The server does not answer before the run.
        StorageError: The database refuses.
        RequestError: Nothing was published yet.
    """
    place = place_of(url)
    if devices / plan.poll_every_seconds > MOST_VISITS_A_SECOND:
        raise InputError(
            f"{devices:,} devices each {plan.poll_every_seconds:g} s are more than {MOST_VISITS_A_SECOND:,.0f} visits "
            "a second.", advice="Fewer devices, or a longer --poll-every.",
        )  # fmt: skip
    fleet, began = Fleet(new_secret(), devices), time.monotonic()
    with _translated():
        enrolled = enrol_in_bulk(database, fleet, url=url, model=habits.model, channel=habits.channel)
    tell(f"{devices:,} devices enrolled in {time.monotonic() - began:.1f} s")
    run = Run(place, fleet, habits, plan, tell)
    asyncio.run(_go(run))
    tally = run.tally
    with _translated():
        acknowledged = tally.acknowledged.total()
        stored = compare(database, enrolled.enrolment_id, acknowledged=acknowledged, unsettled=run.unsettled)
    right = stored.is_right and not tally.server_errors and not tally.errors and not tally.refused
    return {
        "devices": devices, "seconds": plan.seconds, "poll_every_seconds": plan.poll_every_seconds,
        "visits_a_second": devices / plan.poll_every_seconds, **tally.to_dict(), "stored": stored.to_dict(),
        "as_it_should_be": right,
    }  # fmt: skip


async def _go(run: Run) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, run.stop)
    await run.go()


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    import psycopg
    from sqlalchemy.exc import DBAPIError

    try:
        yield
    except (psycopg.Error, DBAPIError) as error:
        raise StorageError(
            f"The server's database refuses: {str(error).strip().splitlines()[0]}",
            advice="Check --database-url, or --data-dir, and that the server has migrated it.",
        ) from error


def place_of(url: str) -> tuple[str, int]:
    """Return host and port of a server on this machine.

    Raises:
        InputError: It is another machine, or not plain http.
    """
    parts = urlsplit(url)
    if parts.scheme != "http" or not parts.hostname or not is_loopback(parts.hostname):
        raise InputError(
            f"{url!r} is no plain http address of this machine.",
            advice="The load generator visits loopback only: http://127.0.0.1:PORT.",
        )
    return parts.hostname, parts.port or 80


def database_of(data_dir: Path | None, database_url: str | None) -> str:
    """Return the address of the server's database.

    Raises:
        InputError: Neither a running data folder nor an address is given.
    """
    from sync_server.postgres_folder import running_urls

    if database_url:
        return database_url
    running = running_urls(data_dir / "postgres") if data_dir is not None else None
    if running is None:
        raise InputError(
            "The server's database is not known.",
            advice="Give --data-dir of a server that runs, or --database-url (DATABASE_URL).",
        )
    return running[0]


def _readable(result: dict[str, Any]) -> str:
    lines = [f"{result['devices']:,} devices, {result['visits_a_second']:.1f} visits a second"]
    for what, statuses in result["answers"].items():
        times = result["latency_ms"][what]
        counts = ", ".join(f"{count:,} x {status}" for status, count in statuses.items())
        lines.append(f"  {what:10s} {counts}; p50 {times['p50']} ms, p95 {times['p95']} ms, p99 {times['p99']} ms")
    for name in ("events", "acknowledged", "refused", "errors", "lag_ms", "stored"):
        lines.append(f"  {name}: {json.dumps(result[name])}")
    lines.append("all as it should be" if result["as_it_should_be"] else "NOT as it should be")
    return "\n".join(lines)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()

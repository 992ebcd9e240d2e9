"""``edge-runtime status``."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import click

from edge_runtime.config import Config
from edge_runtime.options import device_options, show


@click.command(short_help="Show what this device is, runs and holds.")
@device_options()
def status(config: Config, as_json: bool) -> None:
    """Show what this device is, runs and holds. Works offline, and while another command is working."""
    from edge_runtime.device_status import shown_fields
    from edge_runtime.edge_db import EdgeDatabase
    from edge_runtime.home import Home
    from edge_runtime.identity import load_identity

    home = Home(config.home)
    identity = load_identity(home)
    if home.database.exists():
        with EdgeDatabase(home.database, create=False) as database:
            fields = shown_fields(home, identity, database)
    else:
        fields = shown_fields(home, identity, None)
    show(fields, "\n".join(_lines(fields)), as_json=as_json)


def _lines(fields: dict[str, Any]) -> list[str]:
    rows = [
        ("device", f"{fields['device_id']}{' (' + fields['name'] + ')' if fields['name'] else ''}"),
        ("server", fields["server"] + (" (plain http was allowed)" if fields["insecure_http"] else "")),
        ("follows", f"model {fields['model']}, channel {fields['channel']}, cohort {fields['cohort'] or 'none'}"),
        ("active", _slot(fields["active"])),
        ("previous", _slot(fields["previous"])),
        ("trust", _trust(fields)),
        ("scoring", _scoring(fields["scoring"])),
        ("outbox", _outbox(fields["outbox"])),
    ]
    rows += [("refused", f"{letter['kind']}: {letter['detail']} ({letter['reason']})") for letter in fields["refused"]]
    last = fields["last_update"]
    if last is not None:
        reason = f" ({last['reason']})" if last["reason"] else ""
        rows.append(("last sync", f"{last['outcome']}{reason} {_day(last['at_ms'])}: {fields['last_update_message']}"))
    rows += [(name.replace("_", " "), f"{value:,}") for name, value in fields["counters"].items()]
    if fields["damage"]:
        rows.append(("DAMAGED", fields["damage"]))
    width = max(len(name) for name, _ in rows)
    return [f"{name:<{width}}  {text}" for name, text in rows]


def _slot(slot: dict[str, Any] | None) -> str:
    return "none" if slot is None else f"release {slot['release']} ({slot['version']}), bundle {slot['bundle'][:12]}"


def _trust(fields: dict[str, Any]) -> str:
    if fields["metadata_expires_ms"] is None:
        return "nothing verified yet: run `edge-runtime sync`"
    moment = _day(fields["metadata_expires_ms"])
    return f"expired {moment}, results are marked stale" if fields["stale"] else f"verified, expires {moment}"


def _scoring(scoring: dict[str, Any] | None) -> str:
    if scoring is None or scoring["newest_reading_ms"] is None:
        return "no readings yet"
    incident = scoring["incident"]
    newest = f"newest reading from {_day(scoring['newest_reading_ms'])}"
    if incident is None:
        return f"{newest}, no open incident"
    score = incident["highest_anomaly_score"]
    return f"{newest}, in an incident since {_day(incident['started_at_ms'])} (highest anomaly score {score:.4f})"


def _outbox(outbox: dict[str, Any]) -> str:
    oldest = f", the oldest from {_day(outbox['oldest_ms'])}" if outbox["oldest_ms"] else ""
    dead = f"; {outbox['dead_letters']:,} refused by the server" if outbox["dead_letters"] else ""
    return f"{outbox['records']:,} records wait{oldest}{dead}"


def _day(moment_ms: int) -> str:
    return datetime.fromtimestamp(moment_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M UTC")

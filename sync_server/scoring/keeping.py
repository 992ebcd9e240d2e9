"""The windows that were kept: how long, how many, and as a file that ``exporter replay`` reads.

The file is NDJSON: a line with the format, before the first window of a bundle a line with that bundle's columns, a
line for each window, and a last line with their number, without which the file is not whole. Only windows that clients
sent here to be scored are in it; devices never upload theirs.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import text
from sqlalchemy.orm import Session

from sync_server.db import Database

FORMAT = 1
KIND = "stella-edge-windows"
MAX_EXPORTED = 100_000
# A window has at most 64 KiB.
_PAGE = 100
_ROWS = text("""
    SELECT id, device_id, cohort, observed_at_ms, (extract(epoch FROM scored_at) * 1000)::bigint AS scored_at_ms,
           champion, champion_score, champion_anomaly, cells
    FROM scored_windows WHERE channel = :channel AND id > :after AND scored_at >= :since AND cells IS NOT NULL
    ORDER BY id LIMIT :most
""")
_BUNDLE = text("SELECT manifest FROM bundles WHERE digest = :digest")
_SWEEP = text("""
    DELETE FROM scored_windows WHERE scored_at < :oldest
    OR id <= (SELECT id FROM scored_windows ORDER BY id DESC OFFSET :most LIMIT 1)
""")


def sweep(session: Session, *, now: datetime, days: int, most: int) -> None:
    """Delete windows older than so many days, and the oldest beyond so many."""
    session.execute(_SWEEP, {"oldest": now - timedelta(days=days), "most": most})


def export(database: Database, channel: str, since: datetime, most: int) -> Iterator[bytes]:
    """Yield the file, a page at a time; a slow reader holds no connection to the database.

    Args:
        database: The database.
        channel: The channel.
        since: Windows scored before are left out.
        most: Windows at most, the oldest ones first.
    """
    yield _line({"format": FORMAT, "kind": KIND, "channel": channel})
    after, sent = 0, 0
    told: set[str] = set()
    while sent < most:
        values = {"channel": channel, "after": after, "since": since, "most": min(_PAGE, most - sent)}
        with database.session() as session:
            rows = [dict(row) for row in session.execute(_ROWS, values).mappings()]
            lines = list(_lines(session, rows, told))
        if not rows:
            break
        after, sent = rows[-1]["id"], sent + len(rows)
        yield b"".join(lines)
    yield _line({"end": sent})


def _lines(session: Session, rows: list[dict[str, Any]], told: set[str]) -> Iterator[bytes]:
    for row in rows:
        if row["champion"] not in told:
            told.add(row["champion"])
            manifest = session.execute(_BUNDLE, {"digest": row["champion"]}).scalar_one()
            names = [signal["name"] for signal in manifest["signals"]]
            release = {"model": manifest["model"], "release_number": manifest["release_number"]}
            yield _line({"bundle": row["champion"], **release, "signals": names, "window": manifest["window"]})
        yield _line(
            {
                "in": row["champion"],
                "device": row["device_id"],
                "cohort": row["cohort"],
                "observed_at_ms": row["observed_at_ms"],
                "scored_at_ms": row["scored_at_ms"],
                "anomaly_score": row["champion_score"],
                "is_anomaly": row["champion_anomaly"],
                "cells": base64.b64encode(row["cells"]).decode("ascii"),
            }
        )


def _line(value: dict[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"

"""``GET /api/incidents.csv``: filtered incidents for spreadsheets, newest first, streamed a page at a time.

A file holds at most :data:`MAX_ROWS` incidents and looks at a bounded number of pages. If the list goes on behind them,
the last line says so, with the cursor that goes on: a file that ended there without a word would be taken for the
whole. Each page is a transaction of its own that begins behind the last row, so what arrives meanwhile shifts nothing.

Text that a spreadsheet would run as a formula gets an apostrophe in front (OWASP, CSV Injection).
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from sync_server.anomalies.filters import Filters
from sync_server.anomalies.reading import Page, list_page
from sync_server.db import Database
from sync_server.paging import MAX_LIMIT, Key, decode_cursor

MAX_ROWS = 50_000
# Pages may be short where matches are rare; this many of them are looked at for one file.
MAX_PAGES = 500
COLUMNS = (
    "id", "device_id", "device_name", "cohort", "model", "version", "release_number", "bundle", "started_at",
    "last_seen_at", "ended_at", "windows", "records", "peak_score", "signals", "status", "status_by", "status_at",
    "status_note",
)  # fmt: skip
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def export(database: Database, filters: Filters, after: Key | None) -> Iterator[str]:
    """Yield a CSV file (RFC 4180, UTF-8, times in UTC) in pieces; the first page is read before the first piece.

    Args:
        database: Where from; no connection is held between pieces.
        filters: Which incidents.
        after: Key of the last row of the file before, None for the first.
    """
    first = _read(database, filters, after, MAX_LIMIT)
    return _pieces(database, filters, first)


def _pieces(database: Database, filters: Filters, page: Page) -> Iterator[str]:
    yield _lines([COLUMNS])
    rows = 0
    for _ in range(MAX_PAGES):
        rows += len(page.items)
        if page.items:
            yield _lines(_row(item) for item in page.items)
        if page.next is None or rows >= MAX_ROWS:
            break
        page = _read(database, filters, decode_cursor(filters, page.next), min(MAX_LIMIT, MAX_ROWS - rows))
    if page.next is not None:
        yield _lines([[f"The list goes on: ask again with cursor={page.next}"]])


def _read(database: Database, filters: Filters, after: Key | None, limit: int) -> Page:
    with database.session() as session:
        return list_page(session, filters, limit=limit, after=after)


def _lines(rows: Any) -> str:
    sink = io.StringIO()
    csv.writer(sink).writerows(rows)
    return sink.getvalue()


def _row(item: dict[str, Any]) -> list[str | int | float | None]:
    """Return an incident's cells, in the order of ``COLUMNS``."""
    signals = "; ".join(f"{name} {value:+.4g}" for name, value in item["contributions"])
    told = {
        **item,
        "started_at": _moment(item["started_at_ms"]),
        "last_seen_at": _moment(item["listed_at_ms"]),
        "ended_at": _moment(item["ended_at_ms"]),
        "status_at": item["status_at"] and item["status_at"].isoformat(timespec="seconds"),
        "signals": signals,
    }
    return [_harmless(told[name]) for name in COLUMNS]


def _moment(moment_ms: int | None) -> str | None:
    """Write a device's time; none is later than year 9999, see the contract."""
    return None if moment_ms is None else (_EPOCH + timedelta(milliseconds=moment_ms)).isoformat(timespec="seconds")


def _harmless(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value

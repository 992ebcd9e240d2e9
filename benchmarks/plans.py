"""The plans of the statements behind the read endpoints, as Postgres ran them: ``docs/query-plans.md``."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from sqlalchemy import event
from sqlalchemy.orm import Session

from benchmarks.read_requests import choices, device_id
from benchmarks.seeding import DAY_MS, Fleet
from sync_server.anomalies.filters import Filters
from sync_server.anomalies.reading import list_page
from sync_server.dashboard.figures import TrendQuery, stats, trends
from sync_server.db import Database, utc_now
from sync_server.devices.reading import device_detail

_HEAD = """# Query plans of the read endpoints

<!-- Made by `python -m benchmarks reads`; do not edit. -->

`EXPLAIN (ANALYZE, BUFFERS)` of every statement that each request below ran, with {anomalies:,} anomalous windows of
{devices:,} devices stored. Buffers are blocks of 8 kB; `read` came from the system's page cache or the disk.
"""
_SETTINGS = "set_config("  # settings of the transaction, which stay in force for the plans


def page(database: Database, fleet: Fleet, to_ms: int) -> str:
    """Return the page in Markdown.

    Args:
        database: The server's database, with a seeded past.
        fleet: How large that is.
        to_ms: Its end.
    """
    parts = [_HEAD.format(anomalies=fleet.anomalies, devices=fleet.devices)]
    for title, work in _requests(fleet, to_ms):
        parts.append(f"## {title}")
        for statement, plan in explained(database, work):
            parts.append(f"```sql\n{statement}\n```\n\n```text\n{plan}\n```")
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _requests(fleet: Fleet, to_ms: int) -> list[tuple[str, Callable[[Session], object]]]:
    values = choices(fleet, to_ms, random.Random(7))
    picks: list[tuple[str, dict[str, object]]] = [
        ("incidents", {}),
        ("incidents of a cohort that are open", {**values["cohort"]["common"], **values["status"]["some"]}),
        ("incidents with a rare signal", values["signal"]["rare"]),
        ("incidents with a signal that was last seen long ago", values["signal"]["long ago"]),
        ("incidents with the highest scores", values["minimum_score"]["rare"]),
        ("windows", {"view": "windows"}),
        ("windows of a device", {"view": "windows", **values["device"]["busy"]}),
        ("windows of a cohort that does not exist", {"view": "windows", **values["cohort"]["absent"]}),
    ]

    def listing(query: dict[str, object]) -> Callable[[Session], object]:
        filters = Filters.from_query({name: str(value) for name, value in query.items()})
        deep = (to_ms - fleet.days * DAY_MS // 3, 2**40)
        return lambda session: list_page(session, filters, limit=50, after=deep)

    return [
        *((f"GET /api/anomalies: {title}, a page in the middle", listing(query)) for title, query in picks),
        ("GET /api/devices/ID", lambda session: device_detail(session, device_id(1))),
        ("GET /api/dashboard/stats", lambda session: stats(session, now=utc_now())),
        ("GET /api/dashboard/trends?hours=720", lambda session: trends(session, TrendQuery(720), now=utc_now())),
    ]


def explained(database: Database, work: Callable[[Session], object]) -> list[tuple[str, str]]:
    """Run something in a transaction and return each of its queries with its plan."""
    seen: list[tuple[str, Any]] = []

    def keep(_connection: object, _cursor: object, statement: str, values: Any, *_rest: object) -> None:
        seen.append((statement, values))

    event.listen(database.engine, "before_cursor_execute", keep)
    try:
        with database.session() as session:
            work(session)
            queries = [pair for pair in seen if _SETTINGS not in pair[0]]
            event.remove(database.engine, "before_cursor_execute", keep)
            return [(_flush(statement), _plan(session, statement, values)) for statement, values in queries]
    finally:
        if event.contains(database.engine, "before_cursor_execute", keep):
            event.remove(database.engine, "before_cursor_execute", keep)


def _plan(session: Session, statement: str, values: Any) -> str:
    connection = session.connection()
    rows = connection.exec_driver_sql(f"EXPLAIN (ANALYZE, BUFFERS) {statement}", values)
    return "\n".join(row[0] for row in rows)


def _flush(statement: str) -> str:
    """Take the indentation of our code off a statement."""
    return "\n".join(line.strip() for line in statement.strip().splitlines())

"""Writes docs/capacity.md: how many devices one machine carries, from measured figures, and how that was verified."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from benchmarks.harness import markdown_table, number
from benchmarks.known import NOT_MEASURED, Known, with_unit
from benchmarks.machine import REPOSITORY

PAGE = REPOSITORY / "docs" / "capacity.md"
HOUR_SECONDS = 3600
USE = 0.5
# edge_runtime.config: seconds between syncs and between uploads, when nobody sets them.
DEFAULT_SYNC_SECONDS, DEFAULT_UPLOAD_SECONDS = 300, 60
_POLL = r"^processor time of a whole poll, as edge_runtime$"
_VISIT = r"^processor time of a visit"
_HEAD = """# How many devices one machine carries

<!-- Made by `python -m benchmarks.document` from benchmarks/results/*.json; do not edit. -->

A **poll** is what python-tuf asks: `N+1.root.json` (404) and `timestamp.json` (200; 304 for clients that send its
ETag, as browsers do and edge-runtime does not). A **visit** is a poll, an upload of what was found since, and a status,
on one connection: what `edge-runtime run` does in a round. Both are counted in processor time of the server's and the
database's processes, because that is what runs out; machines and neighbours change it less than seconds on a clock.

**On paper**: devices = cores x share of them in use x interval / processor time. Half of the cores are left for
people, upkeep, rollouts (each device fetches a bundle once), and devices that come back together.
"""
_MIX = """## What the fleet did while it was measured

`python -m benchmarks.load` enrols the devices in bulk and makes their real requests, encoded by the contract's own
code. Each visit brings the hour's summary, in 2 % of the hours an incident (1 to 3 records and its end); 2 % of the
devices come from up to three days without network; 5 % are offline for the middle third and come back within a
twentieth of the time; 0.5 % of the answers get lost, so that batches are sent again; a second release is rolled out to
10 % after a third. A real fleet with the default alarm rate has fewer incidents. At the end every record that an
answer called held is counted in the database: none lost, none twice.
"""
_BEYOND = """## Beyond one machine

- Polls are the small part. A proxy or CDN that caches `/repository/` for the minute that `Cache-Control` allows takes
  nearly all of them away; a rollout then reaches a device up to a minute later.
- Uploads are what costs: send less often (`upload_interval_seconds`), or add server processes and a Postgres of its own
  machine. A process holds nothing that another would miss: metadata files (a second old, up to 60 while the database is
  away), loaded models, figures of the fleet for `/metrics` (a minute), what each device has had scored in this minute
  (so that limit grows with the workers), and samples that wait for a challenger, which are lost with it.
- Intervals of a large fleet belong in its configuration: the defaults of edge-runtime (sync each 300 s, upload each
  60 s) suit some thousands of devices; `sync_interval_seconds = 3600` and `upload_interval_seconds = 3600` are what the
  rows of hourly visits mean.

## Metadata from memory

A worker asks Postgres for a metadata file once in half a second at most, and answers all other requests from memory
([decision 16](adr/0016-polls-from-memory.md)). A new timestamp or root is served within a second of its commit, and at
once by the process that took it. While the database is away, polls are answered with what was true up to 60 seconds
ago, then with 503 and `Retry-After`; devices keep what they have.

## Slow clients

A worker's loop reads the head of a request before a thread sees it, and waits for nobody when it closes: 2,000
connections that say nothing, half a request, or keep their connection do not delay polls (a test does each). Bounds:
8,192 connections a worker (or half of the files it may open), 30 seconds for a head (`client_seconds`), 16 KiB of it.
A body that trickles in holds one of the `threads` for up to `client_seconds` between two pieces. Where strangers can
reach the server, put nginx in front, which takes whole requests before it passes them on and keeps connections to the
server open: [examples/nginx.conf](examples/nginx.conf).
"""


def page(results: Iterable[Mapping[str, Any]]) -> str:
    """Return the page in Markdown.

    Args:
        results: What ``read_results`` returns, any of them missing.
    """
    known = Known({result["benchmark"]: result for result in results})
    parts = [_HEAD, *_paper(known), *_verified(known), _MIX, _BEYOND]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _paper(known: Known) -> list[str]:
    poll, visit = known.value("polls", _POLL), known.value("soak", _VISIT)
    poll_ms = None if poll is None else poll / 1e3
    default = None
    if poll_ms is not None and visit is not None:
        uploads, polls = HOUR_SECONDS / DEFAULT_UPLOAD_SECONDS, HOUR_SECONDS / DEFAULT_SYNC_SECONDS
        default = polls * poll_ms + uploads * max(0.0, visit - poll_ms)
    rows = [
        ["only polls, hourly", *_row(poll_ms)],
        ["whole visits, hourly", *_row(visit)],
        ["whole visits, every 15 minutes", *_row(None if visit is None else 4 * visit)],
        ["the defaults of edge-runtime: 12 polls, 60 uploads and statuses an hour", *_row(default)],
    ]
    columns = ("what a device does", "processor time an hour", "devices a core, half in use", "2 cores")
    sources = known.source("polls", "python -m benchmarks polls"), known.source("soak", "python -m benchmarks soak")
    return ["## On paper", markdown_table(columns, rows), *sources]


def _row(milliseconds: float | None) -> list[str]:
    if milliseconds is None:
        return [NOT_MEASURED] * 3
    devices = int(USE * HOUR_SECONDS * 1e3 / milliseconds)
    return [with_unit(milliseconds, "ms"), _round(devices), _round(2 * devices)]


def _round(devices: int) -> str:
    """Write two significant digits: the third would be noise."""
    step = 10 ** max(0, len(str(devices)) - 2)
    return number(devices // step * step)


def _verified(known: Known) -> list[str]:
    names = (
        ("devices", r"^devices that visit hourly"),
        ("visits a second", r"^visits a second"),
        ("share of all cores that server and database used", r"^share of all cores"),
        ("answers of 5xx", r"^answers of 5xx"),
        ("records acknowledged", r"^records acknowledged"),
        ("records lost, or there twice", r"^records lost"),
        ("growth of the server's memory", r"^growth of memory, server"),
        ("growth of Postgres' own memory", r"^growth of memory, postgres"),
    )
    rows = [[what, known.figure("soak", name)] for what, name in names]
    parts = ["## Verified", markdown_table(("ten minutes at that rate", "measured"), rows)]
    latency = known.rows("soak", r"^Latency by request")
    if latency:
        parts.append(markdown_table(("request", "p50 ms", "p95 ms", "p99 ms", "longest ms"), latency))
    return [*parts, known.source("soak", "python -m benchmarks soak")]

"""The server's rows of docs/performance.md: what a person or a program waits for, and what a fleet costs."""

from __future__ import annotations

from benchmarks.harness import markdown_table
from benchmarks.known import NOT_MEASURED, Known

COLUMNS = ("", "then", "promised", "measured here")
# What, benchmark, how its figure's name begins, then, promised.
ANSWERS = (
    (
        "`/api/anomalies`, incidents, any filter, p95",
        "reads",
        r"^/api/anomalies incidents, 1 client",
        "450 ms",
        "50 ms",
    ),
    ("`/api/anomalies`, windows, any filter, p95", "reads", r"^/api/anomalies windows, 1 client", "450 ms", "50 ms"),
    ("`/api/devices/<id>`, p95", "reads", r"^/api/devices/<id>, 1 client", "290 ms", "50 ms"),
    ("`/api/dashboard/stats`, p95", "reads", r"^/api/dashboard/stats, 1 client", "320 ms", "50 ms"),
    ("`/api/dashboard/trends` of 30 days, p95", "reads", r"^/api/dashboard/trends, 1 client", "680 ms", "60 ms"),
    ("`/api/dashboard/trends` of 30 days, size", "reads", r"^trends of 30 days, largest", "2 MB", "50 kB"),
    ("`/api/anomalies/score`, p95", "server_scoring", r"^one window at 100 requests a second, p95", "180 ms", "15 ms"),
)
# Benchmarks whose goals are rows, with the words for one that was not measured.
FLEET = (
    ("ingest", "results a second through HTTP, batches of 50", "at least 15,000"),
    ("polls", "whole polls a second per core", "at least 800"),
    ("soak", "answers of 5xx in ten minutes of a fleet's mix", "at most 0"),
    ("rollouts", "a bad release, paused before so many have it", "at most 5 %"),
)


def server_rows(known: Known) -> list[str]:
    """Return the sections of the page that are about the server."""
    return [*_answers(known), *_fleet(known)]


def _answers(known: Known) -> list[str]:
    rows = [[what, then, promised, known.figure(benchmark, name)] for what, benchmark, name, then, promised in ANSWERS]
    text = (
        "10 million anomalous windows and 10,000 devices stored, over HTTP, 95th percentile of one client; client,"
        " server and Postgres share the machine. The plans: [query-plans.md](query-plans.md). Scoring: one window, 100"
        " requests a second."
    )
    sources = [known.source(name, f"python -m benchmarks {name}") for name in ("reads", "server_scoring")]
    return ["## Answers of the server", text, markdown_table(COLUMNS, rows), *sources]


def _fleet(known: Known) -> list[str]:
    rows = []
    for benchmark, words, promised in FLEET:
        found = known.promises(benchmark) or [(words, promised, NOT_MEASURED)]
        rows += [[name, "", wanted, measured] for name, wanted, measured in found]
    text = "What a fleet costs; how many devices that is: [capacity.md](capacity.md)."
    sources = [known.source(name, f"python -m benchmarks {name}") for name, _, _ in FLEET]
    return ["## A fleet", text, markdown_table(COLUMNS, rows), *sources]

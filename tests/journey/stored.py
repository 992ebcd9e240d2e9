"""What the server holds of one device, as values that two devices can be compared by."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from journey.stack import Stack

TABLES = ("anomalies", "summaries", "gaps", "events")
# Time and what depends on it (latency, late readings of a file that was fed again) differ between equal devices.
SUMS = ("windows", "anomalous", "warming_up", "cells", "missing")


@dataclass(frozen=True)
class Stored:
    """What can be compared: anomalies by content, incidents, and the sums of all summaries."""

    anomalies: Counter[tuple[object, ...]]
    incidents: Counter[tuple[object, ...]]
    sums: dict[str, int]
    histogram: tuple[int, ...]
    gaps: int


def stored(stack: Stack, device_id: str) -> Stored:
    """Read everything of a device, straight from the tables."""
    anomalies = stack.sql(
        "SELECT bundle, observed_at_ms, incident_started_at_ms, anomaly_score, raw_score, windows FROM anomalies"
        " WHERE device_id = %s",
        device_id,
    )
    incidents = stack.sql(
        "SELECT bundle, started_at_ms, ended_at_ms, windows, records, peak_score FROM incidents WHERE device_id = %s",
        device_id,
    )
    summaries = stack.sql("SELECT * FROM summaries WHERE device_id = %s", device_id)
    return Stored(
        Counter(tuple(row.values()) for row in anomalies),
        Counter(tuple(row.values()) for row in incidents),
        {name: sum(row[name] for row in summaries) for name in SUMS},
        tuple(sum(counts) for counts in zip(*(row["histogram"] for row in summaries), strict=True)),
        stack.sql("SELECT count(*) AS n FROM gaps WHERE device_id = %s", device_id)[0]["n"],
    )


def assert_stored_once(stack: Stack, device_id: str) -> None:
    """Check that every number of every stream is held in exactly one row, without holes but for gap records."""
    streams = stack.sql(
        "SELECT id, stream, (SELECT array_agg(ARRAY[lower(r), upper(r) - 1]) FROM unnest(held) AS r) AS runs"
        " FROM streams WHERE device_id = %s",
        device_id,
    )
    for stream in streams:
        numbers: Counter[int] = Counter()
        for table in TABLES:
            rows = stack.sql(f"SELECT sequence FROM {table} WHERE stream_id = %s", stream["id"])
            numbers.update(row["sequence"] for row in rows)
        assert max(numbers.values(), default=1) == 1, f"stored twice: {[n for n in numbers if numbers[n] > 1]}"
        missing = set(range(1, max(numbers, default=0) + 1)) - set(numbers)
        gaps = stack.sql("SELECT first_sequence, last_sequence FROM gaps WHERE stream_id = %s", stream["id"])
        for gap in gaps:
            missing -= set(range(gap["first_sequence"], gap["last_sequence"] + 1))
        assert not missing, f"numbers without a record or a gap: {sorted(missing)[:10]}"
        held = {n for first, last in stream["runs"] or () for n in range(first, last + 1)}
        assert held == set(numbers)


def assert_rollups_add_up(stack: Stack) -> None:
    """Check that the hourly roll-up is the sum of the stored summaries, and counts every incident once."""
    [rolled] = stack.sql(
        "SELECT coalesce(sum(windows), 0)::bigint AS windows, coalesce(sum(anomalous), 0)::bigint AS anomalous,"
        " coalesce(sum(warming_up), 0)::bigint AS warming_up, coalesce(sum(late), 0)::bigint AS late,"
        " coalesce(sum(cells), 0)::bigint AS cells, coalesce(sum(missing), 0)::bigint AS missing,"
        " coalesce(sum(incidents), 0)::bigint AS incidents FROM hourly_rollups"
    )
    [summed] = stack.sql(
        "SELECT coalesce(sum(windows), 0)::bigint AS windows, coalesce(sum(anomalous), 0)::bigint AS anomalous,"
        " coalesce(sum(warming_up), 0)::bigint AS warming_up, coalesce(sum(late), 0)::bigint AS late,"
        " coalesce(sum(cells), 0)::bigint AS cells, coalesce(sum(missing), 0)::bigint AS missing,"
        " (SELECT count(*) FROM incidents) AS incidents FROM summaries"
    )
    assert rolled == summed
    [records] = stack.sql(
        "SELECT (SELECT coalesce(sum(records), 0)::bigint FROM incidents) AS counted,"
        " (SELECT count(*) FROM anomalies) AS stored"
    )
    assert records["counted"] == records["stored"]

"""Results come into partitions and go with them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from simulators.result_tables import rows
from simulators.server_devices import HOUR, NOON, ServerDevice, anomaly, summary
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from edge_runtime.errors import InputError
from sync_server.config import ServerConfig, load_config
from sync_server.db import Database, utc_now
from sync_server.ingest import service
from sync_server.ingest.partitions import RECORD_TABLES, ensure_partitions
from sync_server.ingest.retention import drop_old_results
from sync_server.upkeep import run_once


def test_partitions_are_made_ahead_and_empty_the_default_one(owner_database: Database, database: Database) -> None:
    next_month = (datetime.now(UTC).replace(day=1) + timedelta(days=32)).replace(day=1, hour=1)
    name = f"gaps_{next_month:%Y_%m}"
    with owner_database.session() as session:
        session.execute(text(f"DROP TABLE {name}"))
        session.execute(
            text(
                "INSERT INTO gaps (received_at, stream_id, sequence, digest, device_id, first_sequence, last_sequence,"
                " count, reason) VALUES (:moment, 1, 1, '', 'd', 1, 1, 1, 'r')"
            ),
            {"moment": next_month},
        )
        assert session.execute(text("SELECT tableoid::regclass::text FROM gaps")).scalar_one() == "gaps_default"
    # The server's role may call the door, and nothing beside it.
    with database.session() as session:
        assert ensure_partitions(session) == 1
        assert ensure_partitions(session) == 0
        assert session.execute(text("SELECT tableoid::regclass::text FROM gaps")).scalar_one() == name
    with pytest.raises(Exception, match="permission denied"), database.session() as session:
        session.execute(text("CREATE TABLE gaps_of_mine (x integer)"))


def months_ago(count: int) -> datetime:
    """The first of a month at one in the morning."""
    moment = datetime.now(UTC).replace(day=1, hour=1, minute=0, second=0, microsecond=0)
    for _ in range(count):
        moment = (moment - timedelta(days=1)).replace(day=1)
    return moment


@pytest.fixture
def old_months(owner_database: Database) -> Iterator[list[str]]:
    """Partitions of the last three months, made as the owner."""
    names = []
    with owner_database.session() as session:
        for count in (1, 2, 3):
            start, end = months_ago(count).replace(hour=0), months_ago(count - 1).replace(hour=0)
            for table in RECORD_TABLES:
                names.append(f"{table}_{start:%Y_%m}")
                session.execute(
                    text(f"CREATE TABLE {names[-1]} PARTITION OF {table} FOR VALUES FROM ('{start}') TO ('{end}')")
                )
    yield names
    with owner_database.session() as session:
        for name in names:
            session.execute(text(f"DROP TABLE IF EXISTS {name}"))


def drop(database: Database, results_days: int, rollup_days: int = 0) -> list[str]:
    with database.session() as session:
        return drop_old_results(session, results_days=results_days, rollup_days=rollup_days, now=utc_now())


def test_whole_months_go_and_what_was_held_stays_held(
    device: ServerDevice, database: Database, old_months: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for sequence, count in ((1, 3), (2, 2), (3, 0)):
        monkeypatch.setattr(service, "utc_now", lambda count=count: months_ago(count) if count else utc_now())
        device.send([anomaly(sequence, NOON + sequence)])
    days = (datetime.now(UTC) - months_ago(2).replace(hour=0)).days  # all of the month before that one is older
    gone = drop(database, days)
    assert sorted(gone) == sorted(f"{table}_{months_ago(3):%Y_%m}" for table in RECORD_TABLES)
    assert drop(database, days) == []
    assert [row["sequence"] for row in rows(database, "SELECT sequence FROM anomalies ORDER BY 1")] == [2, 3]
    entry = rows(database, "SELECT actor, action, detail FROM audit_entries WHERE action = 'results.drop'")
    assert [(row["actor"], sorted(row["detail"]["partitions"])) for row in entry] == [("server", sorted(gone))]
    # A retry of what is gone is held, whatever it says now; what is still there can be compared.
    answer = device.send([anomaly(1, NOON + 99), anomaly(2, NOON + 99), anomaly(3, NOON + 3), anomaly(4, NOON + 4)])
    assert (answer.stored, answer.held, [r.sequence for r in answer.refused]) == (1, ((1, 1), (3, 4)), [2])
    assert rows(database, "SELECT count(*) AS n FROM incidents") == [{"n": 4}], "incidents stay"


def test_the_database_itself_keeps_a_week(database: Database, old_months: list[str]) -> None:
    with pytest.raises(DBAPIError, match="at least 7 days"):
        drop(database, 6)
    with pytest.raises(DBAPIError, match="must be owner"), database.session() as session:
        session.execute(text(f"DROP TABLE {old_months[0]}"))


def test_the_default_partition_loses_its_old_rows_only(database: Database) -> None:
    row = "INSERT INTO gaps VALUES (:moment, DEFAULT, 1, :n, '', 'd', 1, 1, 1, 'r')"
    with database.session() as session:
        for number, days in ((1, 400), (2, 100)):
            session.execute(text(row), {"moment": utc_now() - timedelta(days=days), "n": number})
    drop(database, 365)
    assert rows(database, "SELECT sequence, tableoid::regclass::text AS part FROM gaps") == [
        {"sequence": 2, "part": "gaps_default"}
    ]


def test_the_roll_up_has_a_term_of_its_own(device: ServerDevice, database: Database) -> None:
    recent = int(utc_now().timestamp() * 1000) // HOUR * HOUR - 24 * HOUR
    device.send([summary(1, NOON), summary(2, recent)])
    drop(database, 0)
    assert len(rows(database, "SELECT FROM hourly_rollups")) == 2
    drop(database, 0, rollup_days=30)
    assert rows(database, "SELECT started_at_ms FROM hourly_rollups") == [{"started_at_ms": recent}]


@pytest.mark.parametrize("name", ["results_days", "rollup_days"])
@pytest.mark.parametrize("days", [-1, 1, 6])
def test_settings_that_keep_too_little(name: str, days: int, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=name):
        load_config(data_dir=tmp_path, environ={}, **{name: days})


def test_upkeep_drops_what_the_settings_say(database: Database, old_months: list[str]) -> None:
    run_once(database, lambda: ec.generate_private_key(ec.SECP256R1()), ServerConfig(results_days=7))
    left = {row["name"] for row in rows(database, "SELECT relname AS name FROM pg_class")} & set(old_months)
    assert left <= {f"{table}_{months_ago(1):%Y_%m}" for table in RECORD_TABLES}

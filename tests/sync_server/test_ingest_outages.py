"""A database that is away, dies in the middle, or has no room left."""

from __future__ import annotations

import signal
import threading
import time
from pathlib import Path

from flask import Flask
from simulators.result_tables import failing, rows, stored
from simulators.server_devices import NOON, ServerDevice, anomaly, enrolment_token, summary
from sqlalchemy import text
from werkzeug.test import TestResponse

from sync_server.app import create_app
from sync_server.config import ServerConfig
from sync_server.db import Database
from sync_server.embedded_postgres import EmbeddedPostgres
from sync_server.migrations import migrate


def test_a_database_that_is_away_is_503_with_retry_after(app: Flask, device: ServerDevice) -> None:
    away = Database("postgresql://nobody@127.0.0.1:1/none", pool_size=1)
    app.extensions["database"] = away
    answer = device.post([anomaly(1)])
    away.dispose()
    assert (answer.status_code, answer.json["code"]) == (503, "database_down")
    assert int(answer.headers["Retry-After"]) > 0


def test_a_database_without_room_is_507_and_keeps_nothing_of_the_batch(
    device: ServerDevice, database: Database, owner_database: Database
) -> None:
    records = [anomaly(1), summary(2)]
    with failing(owner_database, "hourly_rollup_shards", "53100"):  # disk_full
        answer = device.post(records)
    assert (answer.status_code, answer.json["code"]) == (507, "disk_full")
    assert int(answer.headers["Retry-After"]) > 0
    assert not stored(database)
    assert device.send(records).stored == 2


def test_a_conflict_is_tried_again_and_one_that_lasts_is_503(
    device: ServerDevice, database: Database, owner_database: Database
) -> None:
    with failing(owner_database, "anomalies", "40P01", times=2):  # deadlock_detected
        assert device.send([anomaly(1)]).stored == 1
    with failing(owner_database, "anomalies", "40P01"):
        answer = device.post([anomaly(2)])
    assert (answer.status_code, answer.json["code"]) == (503, "database_busy")
    assert device.send([anomaly(2)]).stored == 1
    assert len(stored(database)) == 2


def test_a_database_that_dies_in_the_middle_of_a_batch_loses_and_doubles_nothing(
    tmp_path: Path, server_config: ServerConfig
) -> None:
    with EmbeddedPostgres(tmp_path / "postgres") as postgres:
        migrate(postgres.owner_url, app_role="stella_app")
        database = Database(postgres.app_url, pool_size=3)
        app = create_app(server_config, database)
        device = ServerDevice.enrol(app.test_client(), enrolment_token(database))
        device.send([anomaly(1)])
        # Another transaction holds the stream, so that the batch is under way when the database dies.
        holder = database.engine.connect()
        holder.execute(text("SELECT FROM streams FOR UPDATE"))
        answers: list[TestResponse] = []
        sender = threading.Thread(target=lambda: answers.append(device.post([anomaly(1), anomaly(2), summary(3)])))
        sender.start()
        wait_for_lock(postgres)
        kill_at_once(postgres)
        sender.join()
        assert (answers[0].status_code, answers[0].json["code"]) == (503, "database_down")
        assert int(answers[0].headers["Retry-After"]) > 0
        holder.invalidate()
        postgres.restart()
        # Connections of before are noticed as dead: no request fails once the database is back.
        answer = device.send([anomaly(1), anomaly(2), summary(3)])
        assert (answer.stored, answer.held) == (2, ((1, 3),))
        assert len(stored(database)) == 3
        assert [row["windows"] for row in rows(database, "SELECT windows FROM hourly_rollups WHERE windows > 0")] == [
            10
        ]
        holder.close()
        database.dispose()


def test_connections_that_the_database_closed_fail_no_request(device: ServerDevice, database: Database) -> None:
    held = [database.engine.connect() for _ in range(4)]
    for connection in held:
        connection.execute(text("SELECT 1"))
        connection.close()
    ended = "SELECT count(pg_terminate_backend(pid)) AS n FROM pg_stat_activity"
    assert rows(database, f"{ended} WHERE usename = current_user AND pid <> pg_backend_pid()")[0]["n"] >= 3
    for number in range(1, 7):
        assert device.send([anomaly(number, NOON + number)]).stored == 1
        assert rows(database, "SELECT count(*) AS n FROM anomalies") == [{"n": number}]


def wait_for_lock(postgres: EmbeddedPostgres) -> None:
    """Return when some statement waits for a lock."""
    watch = Database(postgres.owner_url, pool_size=1)
    waiting = "SELECT count(*) AS n FROM pg_locks WHERE NOT granted"
    deadline = time.monotonic() + 30
    while rows(watch, waiting) == [{"n": 0}]:
        assert time.monotonic() < deadline, "nothing waits"
        time.sleep(0.02)
    watch.dispose()


def kill_at_once(postgres: EmbeddedPostgres) -> None:
    """Let Postgres end as in a crash: no goodbye, no checkpoint."""
    process = postgres._process
    assert process is not None
    process.send_signal(signal.SIGQUIT)
    process.wait(30)

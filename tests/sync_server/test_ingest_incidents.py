"""What results add up to: incidents and roll-ups."""

from __future__ import annotations

import dataclasses
import threading

from flask import Flask
from flask.testing import FlaskClient
from simulators.result_tables import rows
from simulators.server_devices import (
    HOUR,
    NOON,
    ServerDevice,
    anomaly,
    ended,
    enrolment_token,
    gap,
    publish,
    summary,
)
from sqlalchemy import text

from sync_server.db import Database, utc_now
from sync_server.ingest.rollups import fold_shards

KEY = "started_at_ms, period, cohort, model, release_number"
SUMS = ", ".join(f"CAST(sum({name}) AS bigint) AS {name}" for name in ("windows", "anomalous", "incidents", "cells"))
SUMMED = f"SELECT {KEY}, {SUMS}, sum_histograms(histogram) AS histogram FROM hourly_rollups GROUP BY {KEY}"


def test_devices_that_share_roll_up_rows_do_not_block_each_other(app: Flask, database: Database) -> None:
    token = enrolment_token(database)
    devices = [ServerDevice.enrol(app.test_client(), token) for _ in range(4)]

    def send(each: ServerDevice, turn: int) -> None:
        hours = range(12) if turn % 2 else reversed(range(12))
        for batch in range(3):
            each.send([summary(batch * 20 + n + 1, NOON + hour * HOUR) for n, hour in enumerate(hours)])

    threads = [threading.Thread(target=send, args=(each, turn)) for turn, each in enumerate(devices)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    total = rows(database, "SELECT CAST(sum(windows) AS bigint) AS n FROM hourly_rollups")[0]["n"]
    counted = rows(database, "SELECT CAST(sum(windows) AS bigint) AS n FROM summaries")[0]["n"]
    assert total == counted > 0


def test_incidents_hold_peak_end_and_counts(device: ServerDevice, database: Database) -> None:
    start = NOON + HOUR
    device.send(
        [
            anomaly(1, start, score=0.99, windows=1),
            anomaly(2, start + 5, started_at_ms=start, score=0.999, windows=4, signals=("rpm",)),
        ]
    )
    device.send([anomaly(3, start + 9, started_at_ms=start, score=0.995, windows=9), ended(4, start, start + 50, 11)])
    incident = rows(database, "SELECT * FROM incidents")[0]
    assert (incident["started_at_ms"], incident["last_observed_ms"], incident["ended_at_ms"]) == (
        start,
        start + 9,
        start + 50,
    )
    assert (incident["windows"], incident["records"], incident["peak_score"]) == (11, 3, 0.999)
    assert incident["signals"] == ["rpm"]
    assert incident["status"] == "open"


def test_the_end_of_an_incident_whose_anomalies_are_lost_is_kept(device: ServerDevice, database: Database) -> None:
    device.send([gap(3, 1, 2), ended(4, NOON, NOON + HOUR, 30)])
    incident = rows(database, "SELECT * FROM incidents")[0]
    assert (incident["peak_score"], incident["windows"], incident["records"]) == (None, 30, 0)


def test_roll_ups_add_windows_by_hour_release_and_cohort(client: FlaskClient, database: Database) -> None:
    publish(database)
    token = enrolment_token(database)
    one, two = (ServerDevice.enrol(client, token, cohort=cohort) for cohort in ("north", None))
    one.send([summary(1, windows=10, anomalous=2), summary(2, windows=5), anomaly(3, NOON + 60_000)])
    two.send([summary(1, windows=3), summary(2, NOON - NOON % (24 * HOUR), windows=100, period="day")])
    one.send([summary(4, windows=7, bundle="f" * 64)])
    found = rows(database, f"{SUMMED} ORDER BY period DESC, cohort, release_number")
    keys = [(row["period"], row["cohort"], row["model"], row["release_number"]) for row in found]
    assert keys == [
        ("hour", "", "engine", 7), ("hour", "north", "engine", 0), ("hour", "north", "engine", 7), ("day", "", "engine", 7),
    ]  # fmt: skip
    north = found[2]
    assert (north["windows"], north["anomalous"], north["incidents"], north["cells"]) == (15, 2, 1, 75)
    assert north["histogram"] == [13, *[0] * 13, 2]
    assert [row["windows"] for row in found] == [3, 7, 15, 100]


def test_the_same_summary_timed_otherwise_adds_nothing(device: ServerDevice, database: Database) -> None:
    """A restored home scores the same readings again; only how long that took differs."""
    device.send([summary(1)])
    with database.session() as session:
        before = session.execute(text("SELECT * FROM hourly_rollups")).all()
    slower = dataclasses.replace(summary(1), latency_sum_us=10**6, latency_max_us=10**5)
    answer = device.send([slower])
    assert (answer.stored, answer.held, answer.refused) == (0, ((1, 1),), ())
    with database.session() as session:
        assert session.execute(text("SELECT * FROM hourly_rollups")).all() == before
        assert session.execute(text("SELECT count(*), max(latency_max_us) FROM summaries")).one() == (1, 200)


def test_shards_of_hours_that_are_over_become_one_row_and_count_on(device: ServerDevice, database: Database) -> None:
    publish(database)
    now = utc_now()
    this_hour = int(now.timestamp() * 1000) // HOUR * HOUR
    device.send([summary(1, NOON, windows=5, anomalous=1), anomaly(2, NOON), summary(3, this_hour, windows=2)])
    with database.session() as session:  # what another connection added
        session.execute(text("INSERT INTO hourly_rollup_shards SELECT s.*, 16 FROM hourly_rollups s"))
    before = rows(database, f"{SUMMED} ORDER BY 1")
    assert [row["windows"] for row in before] == [10, 4]
    with database.session() as session:
        fold_shards(session, now=now)
        fold_shards(session, now=now)
    assert rows(database, f"{SUMMED} ORDER BY 1") == before
    assert rows(database, "SELECT started_at_ms, windows FROM ONLY hourly_rollups") == [
        {"started_at_ms": NOON, "windows": 10}
    ]
    assert {row["started_at_ms"] for row in rows(database, "SELECT * FROM hourly_rollup_shards")} == {this_hour}
    device.send([summary(4, NOON, windows=7)])  # a device that was offline tells of it later
    with database.session() as session:
        fold_shards(session, now=now)
    assert rows(database, "SELECT windows FROM ONLY hourly_rollups") == [{"windows": 17}]


def test_folding_shards_while_batches_come_loses_nothing(app: Flask, database: Database) -> None:
    token = enrolment_token(database)
    devices = [ServerDevice.enrol(app.test_client(), token) for _ in range(3)]
    over = threading.Event()

    def fold() -> None:
        while not over.is_set():
            database.run(lambda session: fold_shards(session, now=utc_now()))

    def send(each: ServerDevice) -> None:
        for batch in range(10):
            each.send([summary(batch * 5 + n + 1, NOON + n * HOUR, windows=3) for n in range(5)])

    folder = threading.Thread(target=fold)
    senders = [threading.Thread(target=send, args=(each,)) for each in devices]
    for thread in (folder, *senders):
        thread.start()
    for thread in senders:
        thread.join()
    over.set()
    folder.join()
    assert [row["windows"] for row in rows(database, SUMMED)] == [90] * 5


def test_a_server_of_before_adds_to_the_same_roll_up(device: ServerDevice, database: Database) -> None:
    """While servers are replaced one by one, an old one writes to the parent table as it always did."""
    device.send([summary(1, windows=5)])
    columns = "windows, anomalous, incidents, warming_up, late, cells, missing"
    old = text(f"""
        INSERT INTO hourly_rollups ({KEY}, {columns}, histogram)
        VALUES (:hour, 'hour', 'north', 'engine', 0, 1, 1, 0, 0, 0, 5, 0, ARRAY[0,0,0,0,0,0,0,0,0,0,0,0,0,0,1])
        ON CONFLICT ({KEY}) DO UPDATE SET windows = hourly_rollups.windows + excluded.windows
    """)
    with database.session() as session:
        session.execute(old, {"hour": NOON})
        session.execute(old, {"hour": NOON})
    assert [row["windows"] for row in rows(database, SUMMED)] == [7]
    with database.session() as session:
        fold_shards(session, now=utc_now())
    assert [row["windows"] for row in rows(database, "SELECT windows FROM ONLY hourly_rollups")] == [7]

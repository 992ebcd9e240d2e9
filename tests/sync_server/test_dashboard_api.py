"""Figures of the fleet: from roll-ups, bounded, and right."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
from flask.testing import FlaskClient
from hypothesis import given
from hypothesis import strategies as st
from simulators.server_devices import HOUR, NOON, ServerDevice, anomaly, enrolment_token, publish, summary
from simulators.server_fleet import populate
from sqlalchemy import event

from sync_server.dashboard import formats, plots
from sync_server.db import Database, utc_now

Auth = Callable[..., dict[str, str]]


def test_stats_of_a_fleet(client: FlaskClient, database: Database, auth: Auth) -> None:
    populate(client, database)
    answer = client.get("/api/dashboard/stats", headers=auth("view")).json
    devices = answer["devices"]
    assert (devices["total"], devices["freshness"]) == (8, {"day": 7, "week": 0, "older": 1})
    assert (devices["stale"], devices["cloned"], devices["dead_letters"], devices["update_refused"]) == (1, 1, 1, 1)
    assert answer["releases"] == [
        {"model": "engine", "channel": "stable", "release": 7, "version": "1.7", "devices": 8, "day": 7}
    ]
    assert (answer["incidents"]["open"], answer["incidents"]["resolved"]) == (9, 0)


def test_trends_add_up(client: FlaskClient, database: Database, auth: Auth) -> None:
    populate(client, database)
    answer = client.get("/api/dashboard/trends?hours=168", headers=auth("ops")).json
    assert (answer["bucket_ms"], answer["anchored"], len(answer["buckets"])) == (6 * HOUR, False, 28)
    assert answer["totals"]["windows"] == sum(bucket["windows"] for bucket in answer["buckets"]) == 8 * 60 * 60
    assert answer["totals"]["anomalous"] == 3 * 9 * 4
    assert answer["totals"]["incidents"] == 9
    assert sum(answer["histogram"]) == 8 * 60 * 60
    south = client.get("/api/dashboard/trends?hours=168&cohort=south&model=engine&release=7", headers=auth("ops")).json
    assert south["totals"]["incidents"] == 3
    assert client.get("/api/dashboard/trends?release=9", headers=auth("ops")).json["totals"]["windows"] == 0


def test_a_fleet_that_was_offline_shows_its_last_days(client: FlaskClient, database: Database, auth: Auth) -> None:
    device = ServerDevice.enrol(client, enrolment_token(database))
    device.send([summary(1, NOON), summary(2, NOON + HOUR, anomalous=3), anomaly(3, NOON + HOUR)])
    answer = client.get("/api/dashboard/trends?hours=24", headers=auth("view")).json
    assert (answer["anchored"], answer["bucket_ms"], len(answer["buckets"])) == (True, HOUR, 24)
    assert answer["to_ms"] == NOON + 2 * HOUR
    assert answer["buckets"][-1]["anomalous"] == 3
    assert answer["buckets"][-1]["incidents"] == 1


def test_merged_days_count_in_days_and_apart_in_hours(client: FlaskClient, database: Database, auth: Auth) -> None:
    device = ServerDevice.enrol(client, enrolment_token(database))
    today = int(utc_now().timestamp() * 1000)
    day = today - today % (24 * HOUR) - 24 * HOUR
    device.send([summary(1, day, windows=500, period="day"), summary(2, day, windows=7)])
    hourly = client.get("/api/dashboard/trends?hours=48", headers=auth("view")).json
    assert (hourly["daily_only"]["windows"], sum(bucket["windows"] for bucket in hourly["buckets"])) == (500, 7)
    daily = client.get("/api/dashboard/trends?hours=720", headers=auth("view")).json
    assert (daily["daily_only"]["windows"], sum(bucket["windows"] for bucket in daily["buckets"])) == (0, 507)


def test_an_empty_server_has_figures_too(client: FlaskClient, auth: Auth) -> None:
    assert client.get("/api/dashboard/stats", headers=auth("ops")).json["devices"]["total"] == 0
    trend = client.get("/api/dashboard/trends", headers=auth("ops")).json
    assert trend["totals"]["windows"] == 0
    assert not trend["anchored"]


@pytest.mark.parametrize(
    "query", ["hours=0", "hours=99999", "hours=x", "cohort=%00", "model=UP", "release=-1", "houres=3"]
)
def test_bad_queries_and_strangers(client: FlaskClient, auth: Auth, query: str) -> None:
    assert client.get(f"/api/dashboard/trends?{query}", headers=auth("ops")).status_code == 422
    assert client.get("/api/dashboard/trends").status_code == 401
    assert client.get("/api/dashboard/stats", headers=auth("pub")).status_code == 403


def test_figures_never_read_results(client: FlaskClient, database: Database, auth: Auth) -> None:
    publish(database)
    headers = auth("view")
    seen: list[str] = []
    event.listen(database.engine, "before_cursor_execute", lambda *call: seen.append(call[2]))
    client.get("/api/dashboard/stats", headers=headers)
    client.get("/api/dashboard/trends", headers=headers)
    assert 0 < len(seen) <= 12
    assert not [
        statement for statement in seen if "anomalies" in statement or "summaries" in statement or "OFFSET" in statement
    ]


@given(st.floats(0, 1))
def test_a_score_is_never_written_as_more_than_it_is(score: float) -> None:
    shown = formats.score(score)
    assert (shown == "1.0") == (score == 1)
    assert abs(float(shown) - score) <= 1e-5


def test_a_timeline_has_few_bars_however_long_it_is() -> None:
    for hours in (1, 100, 121, 1000, 10_000, 200_000):
        periods = [{"period_start_ms": NOON + n * HOUR, "windows": 1, "anomalous": 0} for n in (0, hours - 1)]
        length, buckets = plots.timeline(periods, [{"observed_at_ms": NOON + HOUR // 2, "anomaly_score": 0.5}])
        assert len(buckets) <= 122
        assert sum(bucket["windows"] for bucket in buckets) == 2 if hours > 1 else 2
        assert length % HOUR == 0
        assert max(bucket["score"] or 0 for bucket in buckets) == 0.5
    assert plots.timeline([], []) == (HOUR, [])


def test_words_for_times() -> None:
    now = utc_now()
    assert [formats.age(now - timedelta(seconds=s), now) for s in (5, 60, 7200, 86_400, 200_000)] == [
        "just now", "1 minute ago", "2 hours ago", "1 day ago", "2 days ago",
    ]  # fmt: skip
    assert [formats.duration(m * 60_000) for m in (0, 14, 60, 150, 1440, 3000)] == [
        "under a minute", "14 min", "1 h", "2 h 30 min", "1 day", "2 days 2 h",
    ]  # fmt: skip
    assert formats.moment(253_402_300_799_000) == "9999-12-31 23:59"
    assert formats.moment(None) == formats.age(None, now) == "never"


def test_signals_behind_incidents() -> None:
    incidents = [{"contributions": [["a", 0.4], ["b", -0.1]]}, {"contributions": [["b", 0.3]]}, {"contributions": []}]
    assert [(name, round(value, 6), percent) for name, value, percent in plots.signal_shares(incidents)] == [
        ("a", 0.2, 100), ("b", 0.1, 50),
    ]  # fmt: skip
    assert plots.signal_shares([{"contributions": [["a", -1.0]]}]) == []

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

from sync_server.dashboard import drift, formats, kept, plots
from sync_server.db import Database, utc_now
from sync_server.repository.models import StoredBundle

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


def test_incidents_that_began_are_whole_numbers_of_the_roll_up(
    client: FlaskClient, database: Database, auth: Auth
) -> None:
    device = ServerDevice.enrol(client, enrolment_token(database))
    now_ms = int(utc_now().timestamp() * 1000)
    device.send([anomaly(n + 1, now_ms - n * 20 * HOUR) for n in range(20)])
    begun = client.get("/api/dashboard/stats", headers=auth("view")).json["incidents"]["begun"]
    assert (begun["day"], begun["week"]) in ((2, 9), (1, 9), (2, 8), (1, 8))  # hours are counted whole


def test_what_is_quick_is_counted_anew_and_what_is_slow_is_kept() -> None:
    moments = iter([0.0, 0.1, 1.0, 1.0, 3.0, 22.0, 23.5, 23.6, 23.7])
    state = kept.KeptState(lambda: next(moments))
    answers = iter([{"n": n} for n in range(9)])

    def count() -> dict:
        return next(answers)

    assert state.get(count) == {"n": 0}  # 0.1 s: not kept
    assert state.get(count) == {"n": 1}  # at 1.0 s, took 2 s: kept until 23 s
    assert state.get(count) == {"n": 1}
    assert state.get(count) == {"n": 2}


def test_drift_against_training_and_first_week(client: FlaskClient, database: Database, auth: Auth) -> None:
    healthy, moved = summary(1, windows=100), summary(1, windows=100, anomalous=40)
    with database.session() as session:
        for release, digest in ((7, "b" * 64), (8, "c" * 64)):
            session.merge(
                StoredBundle(
                    digest=digest, path=f"engine/{release}", model="engine", version=str(release), size=1,
                    release_number=release, size_unpacked=1, signer="", published_at=utc_now() - timedelta(days=30),
                    manifest={"histogram": list(healthy.histogram)},
                )
            )  # fmt: skip
    device = ServerDevice.enrol(client, enrolment_token(database))
    hour = int(utc_now().timestamp() * 1000) // HOUR * HOUR - 2 * HOUR
    device.send([summary(1, hour - 29 * 24 * HOUR, windows=100), summary(2, hour, windows=100, anomalous=40)])
    device.send([summary(3, hour, windows=50, bundle="c" * 64)])
    device.send([summary(4, hour, windows=50, bundle="d" * 64)])  # unknown: no release to speak of
    seven, eight = client.get("/api/dashboard/drift", headers=auth("view")).json["releases"]
    assert (seven["release"], seven["windows"], eight["release"], eight["windows"]) == (7, 100, 8, 50)
    expected = drift.stability_index(moved.histogram, healthy.histogram)
    assert expected is not None
    assert expected > 0.25
    assert seven["training_psi"] == seven["first_week_psi"] == pytest.approx(expected)
    assert (eight["training_psi"], eight["first_week_psi"]) == (0, None)
    assert client.get("/api/dashboard/drift").status_code == 401


def test_no_results_no_drift(client: FlaskClient, auth: Auth) -> None:
    answer = client.get("/api/dashboard/drift", headers=auth("ops")).json
    assert answer == {"from_ms": None, "to_ms": None, "releases": []}


@given(
    st.lists(st.integers(0, 10**9), min_size=15, max_size=15), st.lists(st.integers(0, 10**9), min_size=15, max_size=15)
)
def test_the_stability_index_is_a_distance_of_shares(one: list[int], two: list[int]) -> None:
    index = drift.stability_index(one, two)
    if index is None:
        assert not sum(one) or not sum(two)
    else:
        assert index >= 0
        assert index == pytest.approx(drift.stability_index(two, one))
        assert drift.stability_index(one, [3 * count for count in one]) == pytest.approx(0, abs=1e-12)

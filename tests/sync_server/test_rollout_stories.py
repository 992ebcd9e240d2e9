"""Rollouts by their plan from the start to the end: a real database, signed metadata, the contract's decision."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy import text

from benchmarks.rollout_fleet import Nature, RandomFleet
from benchmarks.rollout_story import NEW, Release, Story
from sync_server.db import Database
from sync_server.rollouts.plan import Plan, Stage
from sync_server.rollouts.progress import progress

_LAST_SEEN = text("""
    UPDATE devices SET last_seen_at = CAST(:now AS timestamptz) - age * interval '1 hour'
    FROM unnest(CAST(:ids AS text[]), CAST(:ages AS float8[])) AS rare (id, age) WHERE devices.id = rare.id
""")


@pytest.fixture(scope="module")
def key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


@pytest.fixture(autouse=True)
def salt(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same draw in every run: with another one in a thousand, a good release would be stopped, as promised."""
    monkeypatch.setattr("secrets.token_hex", lambda count: "5a" * count)


def test_a_bad_release_is_paused_before_five_percent_have_it(
    database: Database, key: ec.EllipticCurvePrivateKey
) -> None:
    story = Story(database, RandomFleet(Nature(devices=2000), seed=5), key, Release(rise=3.0))
    story.start(Plan(look_minutes=240))
    ended = story.run(hours=48)
    assert ended.state == "paused"
    assert 0 < story.share_that_had_it < 0.05
    with database.session() as session:
        told = progress(session, "stable", story.now)
    look = told["looks"][-1]
    tripped = [gate for gate in look["gates"] if gate["verdict"] == "tripped"]
    assert tripped[0]["gate"] == "anomalies"
    assert tripped[0]["why"] in told["steps"][-1]["note"]
    assert (told["steps"][-1]["actor"], told["steps"][-1]["action"]) == ("server", "pause")
    assert told["run"]["waits_for"] == "a person: it is paused"


def test_a_good_release_reaches_everybody_by_itself(database: Database, key: ec.EllipticCurvePrivateKey) -> None:
    story = Story(database, RandomFleet(Nature(devices=2000), seed=2), key)
    story.start(Plan(look_minutes=240))
    ended = story.run(hours=132)
    assert (ended.state, ended.share) == ("running", 10_000)
    assert [entry[1] for entry in story.log] == [100, 400, 2000, 10_000]
    assert (story.active == NEW).all()
    with database.session() as session:
        told = progress(session, "stable", story.now)
    assert told["run"]["outcome"] == "finished"
    assert {look["verdict"] for look in told["looks"]} <= {"holds", "few"}
    assert told["maintenance"]["overdue"] == 0
    assert told["maintenance"]["publish_to_95_seconds"] == pytest.approx(76 * 3600)


@pytest.mark.parametrize("hours", [0, 14, 22])
def test_a_release_that_kills_devices_late_in_a_stage_never_reaches_everybody(
    database: Database, key: ec.EllipticCurvePrivateKey, hours: int
) -> None:
    story = Story(database, RandomFleet(Nature(devices=600), seed=3), key, Release(silenced=1.0, silent_after=hours))
    stages = (Stage(300, 1440), Stage(2000, 1440), Stage(10_000, 1440))
    story.start(Plan(stages=stages, look_minutes=240))
    ended = story.run(hours=72)
    assert ended.state == "paused"
    assert 0 < story.share_that_had_it < 0.25
    with database.session() as session:
        assert "Gate silent" in progress(session, "stable", story.now)["steps"][-1]["note"]


def test_a_fleet_that_reports_once_in_two_days_is_not_taken_for_silent(
    database: Database, key: ec.EllipticCurvePrivateKey
) -> None:
    story = Story(database, RandomFleet(Nature(devices=200), seed=4), key, step_hours=4)
    story.start(Plan(stages=(Stage(2000, 1440), Stage(10_000, 2880)), look_minutes=240))
    for _ in range(18):
        story.live()
        ages = {name: (story.hours + 4 * place) % 48 for place, name in enumerate(story.ids) if place % 3 == 0}
        values = {"now": story.now, "ids": list(ages), "ages": list(ages.values())}
        with database.session() as session:
            session.execute(_LAST_SEEN, values)
        story.turn()
    assert (story.signed().state, story.signed().share) == ("running", 10_000)


def test_a_channels_first_rollout_ends_by_itself(database: Database, key: ec.EllipticCurvePrivateKey) -> None:
    story = Story(database, RandomFleet(Nature(devices=2000), seed=6), key)
    assert story.start_first(Plan(look_minutes=240)).previous is None
    ended = story.run(hours=132)
    assert (ended.state, ended.share) == ("running", 10_000)
    with database.session() as session:
        told = progress(session, "stable", story.now)
    assert told["run"]["outcome"] == "finished"
    gates = {gate["gate"]: gate["verdict"] for gate in told["looks"][-1]["gates"]}
    compared = {"failures": "holds", "silent": "holds"}
    assert gates == {**compared, "anomalies": "none", "scores": "none", "latency": "none"}


def test_a_bad_first_release_is_stopped_all_the_same(database: Database, key: ec.EllipticCurvePrivateKey) -> None:
    story = Story(database, RandomFleet(Nature(devices=600), seed=7), key, Release(silenced=1.0, silent_after=14))
    story.start_first(Plan(stages=(Stage(300, 1440), Stage(2000, 1440), Stage(10_000, 1440)), look_minutes=240))
    assert story.run(hours=72).state == "paused"
    assert story.share_that_had_it < 0.25

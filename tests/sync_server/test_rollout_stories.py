"""Rollouts by their plan from the start to the end: a real database, signed metadata, the contract's decision."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from benchmarks.rollout_fleet import Nature, RandomFleet
from benchmarks.rollout_story import NEW, Release, Story
from sync_server.db import Database
from sync_server.rollouts.plan import Plan
from sync_server.rollouts.progress import progress


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

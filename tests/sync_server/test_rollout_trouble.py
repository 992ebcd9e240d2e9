"""What stands in a plan's way: a newer server's plan, keys, releases that went away, rollouts from before the plans."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from simulators.rollout_scenes import Tell, do, run_of, seen
from sqlalchemy import select, text

from benchmarks.rollout_story import CHANNEL, MODEL, NEW, OLD
from edge_runtime.errors import StorageError
from sync_server.errors import RequestError
from sync_server.rollouts.controller import tend
from sync_server.rollouts.ddl import KNOWN_RUNS, KNOWN_STEPS
from sync_server.rollouts.models import Channel, RolloutLook, RolloutRun
from sync_server.rollouts.progress import progress
from sync_server.rollouts.requests import Pause, Resume, RollBack, Start


def test_a_plan_of_a_newer_server_is_told_and_holds_nobody_up(tell: Tell) -> None:
    story = tell()
    with story.database.session() as session:
        run = session.scalars(select(RolloutRun).where(RolloutRun.outcome.is_(None))).one()
        newer = Channel(name="beta", rollout_id=run.rollout_id + 100, model=MODEL, release=NEW, previous=OLD, share=100,
                        salt="00", state="running", cohorts=None, updated_at=story.now)  # fmt: skip
        session.add(newer)
        times = dict.fromkeys(("started_at", "segment_at", "ticked_at"), story.now)
        session.add(RolloutRun(rollout_id=run.rollout_id + 100, channel="beta", model=MODEL, release=NEW,
                               plan={"stages": [{"share": 100, "minutes": 60}], "moon": "full"}, **times))  # fmt: skip
        session.add(RolloutRun(rollout_id=run.rollout_id + 101, channel="stable", model=MODEL, release=NEW, **times))
    story.run(hours=4)
    with story.database.session() as session:
        strange, after = (session.get_one(RolloutRun, run.rollout_id + more) for more in (100, 101))
        with pytest.raises(RequestError, match="does not know"):
            progress(session, "beta", story.now)
    assert "moon" in (strange.trouble or "")
    assert strange.outcome is None
    assert after.outcome == "replaced", "the one after it had its turn"


def test_a_key_that_is_not_in_root_changes_nothing_and_says_so(tell: Tell) -> None:
    story = tell()
    story.run(hours=4)  # the first look: nothing to sign
    signed = story.signed()
    story.live()
    other = ec.generate_private_key(ec.SECP256R1())
    for _ in range(2):
        tend(story.database, lambda: other, now=story.now)
        assert story.signed() == signed
        assert (run_of(story).looks, run_of(story).stage) == (1, 0)
        assert "online key" in seen(story)["run"]["trouble"]
    story.turn()
    assert (story.signed().share, seen(story)["run"]["trouble"]) == (10_000, None)


def test_a_key_that_cannot_be_read_is_told_and_tried_again(tell: Tell, caplog: pytest.LogCaptureFixture) -> None:
    story = tell()
    story.run(hours=4)
    story.live()

    def missing() -> ec.EllipticCurvePrivateKey:
        raise StorageError("The online key cannot be used.")

    tend(story.database, missing, now=story.now)
    assert story.signed().share == 2000
    assert "stays as it is" in caplog.text
    story.turn()
    assert story.signed().share == 10_000


def test_a_release_below_the_floor_is_not_spread(tell: Tell, monkeypatch: pytest.MonkeyPatch) -> None:
    story = tell()
    monkeypatch.setattr("sync_server.rollouts.service.floor_of", lambda _fields, _model: NEW + 1)
    story.run(hours=12)
    assert story.signed().share == 2000
    assert "below the floor" in seen(story)["run"]["trouble"]


def test_rollouts_from_before_the_plans_get_a_record(tell: Tell) -> None:
    story = tell(plan=None)
    do(story, Start(MODEL, OLD, share=10_000))
    with story.database.session() as session:
        for table in ("rollout_steps", "rollout_looks", "rollout_runs"):
            session.execute(text(f"DELETE FROM {table}"))
    assert seen(story)["run"] is None
    do(story, Pause())
    do(story, Resume())
    with story.database.session() as session:
        for table in ("rollout_steps", "rollout_runs"):
            session.execute(text(f"DELETE FROM {table}"))
        session.execute(text(KNOWN_RUNS))
        session.execute(text(KNOWN_STEPS))
    story.run(hours=4)
    told = seen(story)
    assert (told["plan"], told["run"]["stage"], told["steps"][0]["action"]) == (None, 0, "upgrade")
    assert told["maintenance"]["reached_95_at"] is not None


def test_looks_are_kept_one_a_turn(tell: Tell) -> None:
    story = tell()
    story.run(hours=16)
    with story.database.session() as session:
        looks = session.scalars(select(RolloutLook).order_by(RolloutLook.id)).all()
        assert session.get_one(Channel, CHANNEL).share == 10_000
    assert [(look.segment, look.look) for look in looks] == [(0, 1), (0, 2), (1, 1), (1, 2)]
    assert all(0 < look.budget < 0.01 for look in looks)


def test_a_roll_back_by_hand_ends_it(tell: Tell) -> None:
    story = tell()
    story.run(hours=4)
    do(story, RollBack(note="users complain"))
    story.run(hours=8)
    assert (story.active == OLD).all()
    assert (seen(story)["run"]["outcome"], seen(story)["run"]["waits_for"]) == ("rolled_back", None)

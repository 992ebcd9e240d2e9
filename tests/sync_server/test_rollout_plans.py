"""What moves a rollout by its plan: time, people, clocks, keys, and devices that are too few or too many."""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import Any

import pytest
from prometheus_client import REGISTRY
from simulators.rollout_scenes import SHORT, Tell, audited, do, run_of, seen
from sqlalchemy import select

from benchmarks.rollout_story import BEGIN, CHANNEL, MODEL, NEW, OLD, Release
from sync_server.access.models import AuditEntry
from sync_server.db import Database
from sync_server.rollouts import controller
from sync_server.rollouts.models import RolloutRun
from sync_server.rollouts.plan import Plan, Stage
from sync_server.rollouts.requests import Advance, Change, Pause, Resume, Share, Start
from sync_server.webhooks.models import WebhookDelivery
from sync_server.webhooks.service import create

# --- time ---


def test_a_plan_runs_to_its_end_and_is_audited(tell: Tell) -> None:
    story = tell()
    story.run(hours=16)
    assert [entry[:3] for entry in story.log] == [(4.0, 2000, "running"), (8.0, 10_000, "running")]
    assert audited(story)[2:] == [("rollout.advance", "server"), ("rollout.finish", "server")]
    told = seen(story)
    assert (told["run"]["outcome"], told["run"]["waits_for"]) == ("finished", None)
    assert [(look["stage"], look["look"], look["verdict"]) for look in told["looks"]] == [
        (0, 1, "holds"), (0, 2, "holds"), (1, 1, "holds"), (1, 2, "holds"),
    ]  # fmt: skip
    looks = len(told["looks"])
    story.run(hours=8)
    assert len(seen(story)["looks"]) == looks, "a finished rollout is not looked at any more"
    assert do(story, Start(MODEL, OLD, share=10)).release == OLD, "and the next one may start"


def test_a_server_that_was_off_for_days_advances_not_at_all(tell: Tell) -> None:
    story = tell()
    story.now += timedelta(days=3)
    story.poll()
    story.turn()
    assert (run_of(story).looks, run_of(story).watched_seconds, story.signed().share) == (0, 4 * 3600, 2000)
    story.run(hours=4)
    assert (len(seen(story)["looks"]), story.signed().share) == (1, 10_000), "one look, when the stage's time is over"


def test_a_server_that_was_off_gives_devices_time_before_it_takes_them_for_silent(tell: Tell) -> None:
    story = tell()
    story.run(hours=8)
    assert (story.signed().share, run_of(story).looks) == (10_000, 0)
    story.now += timedelta(hours=20)
    story.turn()
    assert (run_of(story).looks, run_of(story).watched_seconds) == (0, 4 * 3600)
    story.run(hours=4)
    assert (story.signed().state, run_of(story).looks) == ("running", 1)


def test_a_clock_that_jumps_ahead_and_back_moves_nothing(tell: Tell) -> None:
    story = tell()
    story.run(hours=4)
    story.now += timedelta(days=400)
    story.turn()
    assert story.signed().share == 2000, "no device came in that year, so nobody can be compared"
    story.now -= timedelta(days=400)
    story.turn()
    assert run_of(story).watched_seconds == 8 * 3600
    assert run_of(story).segment_at == BEGIN
    story.run(hours=4)
    assert story.signed().share == 10_000


def test_a_clock_set_back_before_the_start_does_not_stop_the_rollout(tell: Tell) -> None:
    story = tell()
    story.now -= timedelta(days=2)
    story.poll()
    story.turn()
    assert run_of(story).segment_at == story.now
    story.run(hours=12)
    assert story.signed().share == 10_000


def test_turns_between_looks_change_nothing_that_is_signed(tell: Tell) -> None:
    story = tell()
    for _ in range(10):
        story.now += timedelta(minutes=1)
        story.turn()
    assert (run_of(story).looks, run_of(story).watched_seconds) == (0, 600)
    assert seen(story)["run"]["waits_for"] == "the first look of this stage"


# --- people ---


def test_a_person_pauses_resumes_and_advances_with_a_note(tell: Tell) -> None:
    story = tell()
    story.run(hours=4)
    do(story, Pause(note="I want to see it first"))
    story.run(hours=8)
    assert (story.signed().state, run_of(story).looks, run_of(story).watched_seconds) == ("paused", 1, 4 * 3600)
    do(story, Resume())
    assert (run_of(story).looks, run_of(story).watched_seconds, run_of(story).unplanned) == (0, 0, True)
    assert do(story, Advance(from_stage=0, note="enough seen")).share == 10_000
    assert do(story, Advance(from_stage=0)).share == 10_000, "asked again: the answer was lost"
    told = seen(story)
    steps = [(step["action"], step["note"]) for step in told["steps"]]
    assert steps == [("start", ""), ("pause", "I want to see it first"), ("resume", ""), ("advance", "enough seen")]
    with story.database.session() as session:
        entry = session.scalars(select(AuditEntry).where(AuditEntry.action == "rollout.advance")).one()
    assert (entry.actor, entry.detail["note"]) == ("ops:alice", "enough seen")


def test_advancing_out_of_the_last_stage_ends_the_watch_once(tell: Tell) -> None:
    story = tell(devices=4, plan=Plan(stages=(Stage(10_000, 60),), look_minutes=240))
    with story.database.session() as session:
        create(session, name="pager", url="https://pager.example/", events=["rollout.*"], actor="test")
    story.run(hours=8)
    told = seen(story)
    assert (told["run"]["outcome"], told["run"]["waits_for"]) == (None, "devices: 4 of 5 run the release")
    signed = story.signed()
    for _ in range(2):
        assert do(story, Advance(from_stage=0, note="there are only four")) == signed
    assert story.signed() == signed
    assert (seen(story)["run"]["outcome"], audited(story)[2:]) == ("finished", [("rollout.finish", "ops:alice")])
    with story.database.session() as session:
        entry = session.scalars(select(AuditEntry).where(AuditEntry.action == "rollout.finish")).one()
        events = session.scalars(select(WebhookDelivery)).all()
    assert entry.detail["note"] == "there are only four"
    assert [event.event for event in events] == ["rollout.finished"]


def test_a_share_by_hand_begins_a_segment_of_its_own(tell: Tell) -> None:
    story = tell(plan=Plan(stages=(Stage(1000, 480), Stage(2000, 480), Stage(10_000, 480)), look_minutes=240))
    story.run(hours=4)
    do(story, Share(share=5000))
    run = run_of(story)
    assert (run.stage, run.segment, run.extra_segments, run.unplanned, run.watched_seconds) == (1, 1, 1, True, 0)
    story.run(hours=8)
    assert story.signed().share == 10_000, "the stage of 20 % reached nobody new and was passed by"
    assert run_of(story).stage == 2
    assert not run_of(story).unplanned


def test_a_change_between_reading_and_acting_wins(tell: Tell, monkeypatch: pytest.MonkeyPatch) -> None:
    story = tell(release=Release(rise=1.0))
    judge = controller.judge

    def interrupted(*arguments: Any) -> Any:
        do(story, Pause(note="in between"))
        return judge(*arguments)

    monkeypatch.setattr(controller, "judge", interrupted)
    story.run(hours=4)
    assert (story.signed().state, run_of(story).looks) == ("paused", 0)


@pytest.mark.parametrize("change", [Advance(from_stage=0), Share(share=5000), None])
def test_a_change_during_the_scan_of_devices_keeps_its_new_segment(
    tell: Tell, monkeypatch: pytest.MonkeyPatch, change: Change | None
) -> None:
    story = tell()
    story.run(hours=4)
    story.live()
    note_reach = controller.note_reach

    def slow(*arguments: Any) -> None:
        note_reach(*arguments)
        for step in (Pause(), Resume()) if change is None else (change,):
            do(story, step)

    monkeypatch.setattr(controller, "note_reach", slow)
    story.turn()
    run = run_of(story)
    assert (run.segment, run.watched_seconds, run.looked_seconds, run.looks) == (1, 0, 0, 0)
    assert run.reach_checked_at == story.now, "and what the scan found is kept"


def test_servers_side_by_side_look_once(tell: Tell, monkeypatch: pytest.MonkeyPatch) -> None:
    story = tell()
    story.poll()
    story.now += timedelta(hours=4)
    both_in = threading.Barrier(2, timeout=10)
    original = controller.open_runs

    def together(database: Database) -> list[int]:
        numbers = original(database)
        both_in.wait()
        return numbers

    monkeypatch.setattr(controller, "open_runs", together)
    turns = [threading.Thread(target=story.turn) for _ in range(2)]
    for turn in turns:
        turn.start()
    for turn in turns:
        turn.join()
    assert (run_of(story).looks, run_of(story).watched_seconds) == (1, 4 * 3600)


def test_two_operators_who_advance_at_once_advance_once(tell: Tell) -> None:
    story = tell(plan=Plan(stages=(Stage(100, 0), Stage(200, 0), Stage(10_000, 0))))
    hands = [threading.Thread(target=do, args=(story, Advance(from_stage=0))) for _ in range(2)]
    for hand in hands:
        hand.start()
    for hand in hands:
        hand.join()
    assert (story.signed().share, run_of(story).stage) == (200, 1)


def test_a_new_rollout_ends_the_watch_of_the_last(tell: Tell) -> None:
    story = tell()
    story.run(hours=8)
    first = run_of(story).rollout_id
    do(story, Start(MODEL, OLD, plan=SHORT))
    with story.database.session() as session:
        assert session.get_one(RolloutRun, first).outcome == "replaced"
    assert run_of(story).outcome is None


# --- gates ---


def test_failing_self_tests_roll_everybody_back_at_their_next_poll(tell: Tell) -> None:
    story = tell(devices=300, plan=Plan(stages=SHORT.stages, look_minutes=240, on_trip="roll_back"),
                 release=Release(refused=0.6))  # fmt: skip
    story.run(hours=4)
    assert story.signed().state == "rolled_back"
    assert story.share_that_had_it > 0
    told = seen(story)
    assert told["run"]["outcome"] == "rolled_back"
    (refused,) = told["maintenance"]["refusals"]
    assert (refused["outcome"], refused["reason"]) == ("refused", "golden_failed")
    assert refused["devices"] > int((story.active == NEW).sum())
    assert told["maintenance"]["overdue"] == int((story.active == NEW).sum()) > 0
    assert {device["wanted"] for device in told["maintenance"]["overdue_devices"]} == {OLD}
    story.poll()
    assert (story.active == OLD).all()
    assert seen(story)["maintenance"]["overdue"] == 0


def test_devices_that_fall_silent_stop_it(tell: Tell) -> None:
    story = tell(devices=400, plan=Plan(stages=(Stage(2500, 2880),), look_minutes=240), release=Release(silenced=0.5))
    story.run(hours=36)
    assert story.signed().state == "paused"
    assert "Gate silent" in seen(story)["steps"][-1]["note"]
    do(story, Resume(note="they are being repaired"))
    story.run(hours=8)
    assert (story.signed().state, run_of(story).looks) == ("running", 2), "who resumes it knows of these"
    known = seen(story)["looks"][-1]["devices"]
    assert known["known_inside"] < int((story.active == NEW).sum())


def test_a_slow_release_stops_at_the_last_stage_by_the_devices_own_week(tell: Tell) -> None:
    story = tell(plan=Plan(stages=(Stage(10_000, 960),), look_minutes=240), release=Release(slower=3.0))
    story.run(hours=16)
    assert story.signed().state == "paused"
    gate = next(gate for gate in seen(story)["looks"][-1]["gates"] if gate["verdict"] == "tripped")
    assert (gate["gate"], gate["against"]) == ("latency", "own_week")


def test_a_way_back_that_is_closed_becomes_a_pause(tell: Tell, monkeypatch: pytest.MonkeyPatch) -> None:
    story = tell(plan=Plan(stages=SHORT.stages, look_minutes=240, on_trip="roll_back"), release=Release(slower=3.0),
                 devices=300)  # fmt: skip
    monkeypatch.setattr("sync_server.rollouts.service.floor_of", lambda _fields, _model: NEW)
    story.run(hours=8)
    assert story.signed().state == "paused"
    assert "Rolling back was refused" in seen(story)["steps"][-1]["note"]


def test_hooks_and_metrics_are_told(tell: Tell) -> None:
    story = tell(plan=None)
    with story.database.session() as session:
        create(session, name="pager", url="https://pager.example/", events=["rollout.*"], actor="test")

    def trips() -> float:
        name, labels = "stella_rollout_gate_trips_total", {"channel": CHANNEL, "gate": "latency"}
        return REGISTRY.get_sample_value(name, labels) or 0.0

    before = trips()
    story.release = Release(slower=3.0)
    story.start(Plan(stages=(Stage(2000, 480), Stage(10_000, 480)), look_minutes=240))
    story.run(hours=4)
    story.turn()
    assert trips() == before + 1
    assert REGISTRY.get_sample_value("stella_rollout_state", {"channel": CHANNEL, "state": "paused"}) == 1
    assert REGISTRY.get_sample_value("stella_rollout_share", {"channel": CHANNEL}) == 0.2
    with story.database.session() as session:
        events = session.scalars(select(WebhookDelivery)).all()
    assert [event.event for event in events] == ["rollout.tripped"]
    assert b"Gate latency" in events[0].body


# --- fleets ---


def test_a_fleet_too_small_waits_for_a_person_and_says_so(tell: Tell) -> None:
    story = tell(devices=12)
    story.run(hours=24)
    assert story.signed().share == 2000
    assert seen(story)["run"]["waits_for"].startswith("devices: ")
    assert {gate["verdict"] for gate in seen(story)["looks"][-1]["gates"]} == {"few"}


def test_or_goes_on_by_time_when_its_plan_says_so(tell: Tell) -> None:
    story = tell(devices=12, plan=Plan(stages=SHORT.stages, look_minutes=240, when_small="go_on"))
    story.run(hours=16)
    assert (story.signed().share, seen(story)["run"]["outcome"]) == (10_000, "finished")


def test_a_stage_waits_for_its_devices(tell: Tell) -> None:
    plan = Plan(stages=(Stage(5000, 240, devices=1000), Stage(10_000, 240)), look_minutes=240)
    story = tell(devices=120, plan=plan)
    story.run(hours=12)
    assert story.signed().share == 5000
    activated = int((story.active == NEW).sum())
    assert seen(story)["run"]["waits_for"] == f"devices: {activated} of 1000 run the release"


def test_a_rollout_by_cohorts_compares_within_them(tell: Tell) -> None:
    plan = Plan(
        stages=(Stage(5000, 240, cohorts=["north"]), Stage(5000, 240, cohorts=["south", "north"]), Stage(10_000, 240)),
        look_minutes=240,
    )
    story = tell(devices=200, plan=plan, cohorts=("north", "south", "west"))
    for cohorts in (("north",), ("north", "south"), None):
        assert story.signed().cohorts == cohorts
        story.run(hours=4)
    looks = seen(story)["looks"]
    listed = [67, 134, 200]
    assert [look["devices"]["inside"] + look["devices"]["outside"] for look in looks] == listed
    assert looks[2]["devices"]["outside"] == 0

"""Whose figures the gates see, and that they are what those devices counted."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pytest
from simulators.rollout_scenes import SHORT, Tell
from sqlalchemy import select, text

from benchmarks.rollout_story import BEGIN, CHANNEL, MODEL, OLD
from edge_runtime.contract.rollout import bucket
from sync_server.rollouts import figures
from sync_server.rollouts.assignment import CHANNEL_DEVICES, parameters
from sync_server.rollouts.figures import read_figures
from sync_server.rollouts.models import RolloutRun
from sync_server.rollouts.requests import Start
from sync_server.rollouts.service import change_rollout


def test_demos_latecomers_revoked_and_absent_devices_do_not_count(tell: Tell) -> None:
    story = tell(devices=100)
    story.run(hours=4)
    statements = ("kind = 'demo'", "created_at = :now", "revoked_at = :now", "last_seen_at = :past",
                  "channel = 'beta'", "model = 'fridges'")  # fmt: skip
    with story.database.session() as session:
        for device, change in zip(story.ids, statements, strict=False):
            values = {"id": device, "now": story.now, "past": BEGIN - timedelta(hours=13)}
            session.execute(text(f"UPDATE devices SET {change} WHERE id = :id").bindparams(
                **{name: value for name, value in values.items() if name == "id" or f":{name}" in change}
            ))  # fmt: skip
        run = session.scalars(select(RolloutRun).where(RolloutRun.outcome.is_(None))).one()
        made, scale = read_figures(session, run, story.signed(), SHORT, story.now)
    assert scale.inside + scale.outside == len(made.treated) == 94


@pytest.mark.parametrize(("hours", "known"), [(11, 100), (13, 99)])
def test_a_device_that_was_there_before_the_start_counts_for_silence_alone(tell: Tell, hours: int, known: int) -> None:
    story = tell(devices=100)
    story.run(hours=4)
    values = {"id": story.ids[0], "past": BEGIN - timedelta(hours=hours)}
    with story.database.session() as session:
        session.execute(text("UPDATE devices SET last_seen_at = :past WHERE id = :id"), values)
        run = session.scalars(select(RolloutRun).where(RolloutRun.outcome.is_(None))).one()
        made, scale = read_figures(session, run, story.signed(), SHORT, BEGIN + timedelta(hours=11))
    assert scale.inside + scale.outside == 99
    assert scale.known_inside + scale.known_outside == len(made.treated) == known
    assert int(made.silent.sum()) == known - 99
    assert (made.now.windows[made.silent] == 0).all()
    assert not made.decided[made.silent].any()


def test_large_fleets_are_sampled(tell: Tell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "SAMPLE", 20)
    story = tell(devices=400)
    story.run(hours=4)
    with story.database.session() as session:
        run = session.scalars(select(RolloutRun).where(RolloutRun.outcome.is_(None))).one()
        made, scale = read_figures(session, run, story.signed(), SHORT, story.now)
    assert scale.inside + scale.outside == 400
    assert 5 <= int(made.treated.sum()) <= 40
    assert 5 <= int((~made.treated).sum()) <= 40


def test_figures_are_what_the_devices_counted(tell: Tell) -> None:
    story = tell(devices=50)
    story.run(hours=8)
    with story.database.session() as session:
        run = session.scalars(select(RolloutRun).where(RolloutRun.outcome.is_(None))).one()
        run.segment_at = BEGIN
        made, _ = read_figures(session, run, story.signed(), SHORT, story.now)
        sums = session.execute(text(
            "SELECT sum(windows) FILTER (WHERE period = 'hour'), sum(anomalous) FILTER (WHERE period = 'hour'),"
            " sum(windows) FILTER (WHERE period = 'day'), sum(latency_sum_us) FILTER (WHERE period = 'day') FROM summaries"
        )).one()  # fmt: skip
        session.rollback()
    assert (made.now.windows.sum(), made.now.anomalous.sum()) == (float(sums[0]), float(sums[1]))
    assert (made.before.windows.sum(), made.before.latency_sum_us.sum()) == (float(sums[2]), float(sums[3]))
    assert made.now.histogram.sum() == made.now.windows.sum()
    assert np.isfinite(made.training_now[made.decided]).all()


def test_the_databases_buckets_are_the_contracts(tell: Tell) -> None:
    story = tell(devices=300, plan=None)
    with story.database.session() as session:
        asked = Start(MODEL, OLD, share=3000)
        rollout = change_rollout(session, story.key, CHANNEL, asked, actor="ops:alice", now=story.now)
        rows = session.execute(text(CHANNEL_DEVICES), parameters(CHANNEL, rollout)).all()
    assert {row.id: row.bucket for row in rows} == {name: bucket(rollout.salt, name) for name in story.ids}
    assert len({row.lot for row in rows}) > 290

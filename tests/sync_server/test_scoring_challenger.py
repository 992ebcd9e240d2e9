"""A second release beside the first: both verdicts are kept, and the answer is the first one's, whatever happens."""

from __future__ import annotations

import base64
import dataclasses
import json
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flask import Flask
from prometheus_client import REGISTRY
from simulators.scored_channel import ScoredChannel, readings, window
from simulators.server_devices import ServerDevice, enrolment_token
from sqlalchemy import func, select, update

from edge_runtime.contract.window import WindowRule
from exporter.cli import run_command
from sync_server.access.models import AuditEntry
from sync_server.app_state import get_online_key
from sync_server.db import Database, utc_now
from sync_server.scoring import keeping, recording
from sync_server.scoring.models import ScoredWindow
from sync_server.scoring.recording import Recorder
from sync_server.scoring.worker import ScoringWorker
from sync_server.upkeep import run_once

Auth = Callable[..., dict[str, str]]
URL = "/api/channels/stable"


@pytest.fixture
def channel(app: Flask, auth: Auth) -> ScoredChannel:
    """Release 1 on stable; release 40 scores .39 more, so that windows from .6 to .99 flip."""
    made = ScoredChannel(app, auth)
    made.publish(1, 40)
    made.start(1)
    return made


@pytest.fixture
def worker(app: Flask) -> ScoringWorker:
    found: ScoringWorker = app.extensions["scoring"]
    return found


def set_challenger(channel: ScoredChannel, release: int | None = 40, share: int = 10_000) -> Any:
    return channel.client.put(f"{URL}/challenger", json={"release": release, "share": share}, headers=channel.operator)


def kept(database: Database) -> list[ScoredWindow]:
    with database.session() as session:
        return list(session.scalars(select(ScoredWindow).order_by(ScoredWindow.id)))


def compared(channel: ScoredChannel) -> dict[str, Any]:
    answer = channel.client.get(f"{URL}/comparison", headers=channel.operator)
    assert answer.status_code == 200, answer.text
    return dict(answer.json)


def test_both_verdicts_are_kept_and_one_is_answered(
    channel: ScoredChannel, worker: ScoringWorker, database: Database
) -> None:
    assert set_challenger(channel).status_code == 200
    device = ServerDevice.enrol(channel.client, enrolment_token(database, model="pumps"), cohort="north")
    answer = channel.score(headers=device.headers(), windows=[window(0.7), window(None), window(2.0)])
    assert [one.get("raw_score") for one in answer.json["windows"]] == [pytest.approx(0.71), None, pytest.approx(2.01)]
    assert answer.json["bundle"]["release_number"] == 1
    worker.recorder.wait()
    first, second = kept(database)
    assert (first.champion, first.challenger) == (
        channel.bundles[1, None].digest, channel.bundles[40, None].digest,
    )  # fmt: skip
    assert (first.champion_raw, first.challenger_raw) == (pytest.approx(0.71), pytest.approx(1.1))
    assert (first.champion_anomaly, first.challenger_anomaly) == (False, True)
    assert (first.device_id, first.channel, first.challenger_error) == (device.id, "stable", None)
    assert np.array_equal(np.frombuffer(first.cells or b"", "<f4"), np.full(8, 0.7, np.float32))
    assert (second.champion_anomaly, second.challenger_anomaly) == (True, True)


def test_the_comparison_counts_flips_ranks_and_devices(
    channel: ScoredChannel, worker: ScoringWorker, database: Database
) -> None:
    empty = compared(channel)
    assert (empty["channel"], empty["pairs"], empty["not_scored"]) == ("stable", [], {})
    set_challenger(channel)
    values = [0.1, 0.5, 0.7, 0.7, 0.9, 2.0, 3.0, 4.0]
    channel.score(channel="stable", windows=[window(value) for value in values])
    worker.recorder.wait()
    (pair,) = compared(channel)["pairs"]
    assert (pair["champion"], pair["challenger"], pair["compared"], pair["not_scored"]) == (1, 40, 8, 0)
    assert (pair["both_anomalous"], pair["newly_flagged"], pair["no_longer_flagged"]) == (3, 3, 0)
    assert (pair["agreement"], pair["rank_correlation"]) == (5 / 8, pytest.approx(1.0))
    scores = [((v + b) / (1 + v + b)) for b in (0.01, 0.4) for v in values]
    mean = sum(scores[8:]) / 8 - sum(scores[:8]) / 8
    assert pair["mean_difference"] == pytest.approx(mean, abs=1e-6)
    assert pair["largest_difference"] == pytest.approx(
        max(b - a for a, b in zip(scores, scores[8:], strict=False)), abs=1e-6
    )
    assert len(pair["champion_us"]) == len(pair["challenger_us"]) == 2
    (cohort,) = pair["cohorts"]
    assert (cohort["cohort"], cohort["compared"]) == (None, 8)


def test_ranks_share_the_mean_of_equal_values(
    channel: ScoredChannel, worker: ScoringWorker, database: Database
) -> None:
    set_challenger(channel)
    rng = np.random.default_rng(0)
    channel.score(channel="stable", windows=[window(float(v)) for v in rng.integers(0, 5, 30)])
    worker.recorder.wait()
    other = rng.integers(0, 6, 30).astype(float)
    with database.session() as session:
        for row, value in zip(session.scalars(select(ScoredWindow).order_by(ScoredWindow.id)), other, strict=True):
            row.challenger_raw = float(value)
    from scipy.stats import spearmanr

    expected = spearmanr([row.champion_raw for row in kept(database)], other).statistic
    assert compared(channel)["pairs"][0]["rank_correlation"] == pytest.approx(expected)


def test_windows_are_cut_anew_for_a_challenger_with_another_rule(
    channel: ScoredChannel, worker: ScoringWorker, database: Database
) -> None:
    channel.publish(50, window=WindowRule(2, 60_000, 600_000, 2))
    set_challenger(channel, 50)
    channel.score(channel="stable", readings=readings([8.0, 8.0, 1.0, 1.0]), last=3)
    channel.score(channel="stable", windows=[window(1.0)])
    worker.recorder.wait()
    rows = kept(database)
    assert [row.champion_raw for row in rows] == [pytest.approx(v) for v in (4.01, 4.26, 4.51, 1.01)]
    assert [row.challenger_raw for row in rows[:3]] == [pytest.approx(v) for v in (8.5, 5.0, 1.5)]
    assert (rows[3].challenger_error, rows[3].challenger_raw) == ("other_windows", None)
    body = compared(channel)
    assert body["not_scored"] == {"other_windows": 1}
    assert (body["pairs"][0]["compared"], body["pairs"][0]["not_scored"]) == (3, 1)


def hanging_challenger(
    channel: ScoredChannel, worker: ScoringWorker, monkeypatch: pytest.MonkeyPatch
) -> threading.Event:
    """Let the challenger's model hang from the second request on, until the event that is returned is set."""
    set_challenger(channel)
    channel.score(channel="stable", windows=[window(1.0)])
    go, load = threading.Event(), worker.models.get
    worker.recorder.wait()

    def hang(choice: Any) -> Any:
        assert go.wait(60)
        return load(choice)

    monkeypatch.setattr(worker.recorder, "_load", hang)
    return go


def dropped_windows() -> float:
    return REGISTRY.get_sample_value("scoring_compared_windows_total", {"outcome": "dropped"}) or 0


def test_a_broken_challenger_fails_no_answer(channel: ScoredChannel, worker: ScoringWorker, database: Database) -> None:
    channel.publish(60, golden_shift=0.5)
    assert set_challenger(channel, 60).status_code == 200
    assert channel.score(channel="stable", windows=[window(1.0)]).status_code == 200
    worker.recorder.wait()
    (row,) = kept(database)
    assert (row.champion_raw, row.challenger_error) == (pytest.approx(1.01), "model_unavailable")


def test_a_challenger_that_hangs_costs_samples_and_no_answer(
    channel: ScoredChannel, worker: ScoringWorker, monkeypatch: pytest.MonkeyPatch, database: Database
) -> None:
    go = hanging_challenger(channel, worker, monkeypatch)
    before = dropped_windows()
    begun = time.monotonic()
    for _ in range(recording.MAX_WAITING + 11):
        assert channel.score(channel="stable", windows=[window(1.0)]).status_code == 200
    assert time.monotonic() - begun < 60, "nobody waited for the one that hangs"
    dropped = dropped_windows() - before
    assert dropped in (10, 11), "the queue holds 64, and the thread one more"
    go.set()
    worker.recorder.wait()
    assert len(kept(database)) == 1 + recording.MAX_WAITING + 11 - dropped


def test_what_waits_is_bounded_by_its_values(
    channel: ScoredChannel, worker: ScoringWorker, monkeypatch: pytest.MonkeyPatch, database: Database
) -> None:
    """A window holds 8 values, and as many in its request: three of them are more than 40."""
    go = hanging_challenger(channel, worker, monkeypatch)
    monkeypatch.setattr(recording, "MAX_WAITING_CELLS", 40)
    before = dropped_windows()
    for _ in range(5):
        assert channel.score(channel="stable", windows=[window(1.0)]).status_code == 200
    assert dropped_windows() == before + 3
    go.set()
    worker.recorder.wait()
    assert channel.score(channel="stable", readings=readings([1.0] * 30)).status_code == 200, "alone, any request fits"
    worker.recorder.wait()
    assert len(kept(database)) == 1 + 2 + 1


@pytest.mark.parametrize("release", [40, None])
def test_the_newest_windows_of_a_long_request_are_kept(
    channel: ScoredChannel, worker: ScoringWorker, database: Database, release: int | None
) -> None:
    set_challenger(channel, release)
    values = [None if place % 7 == 3 else place / 10 for place in range(50)]
    channel.score(channel="stable", windows=[window(value) for value in values])
    channel.score(channel="stable", readings=readings([place / 10 for place in range(60)]), last=50)
    worker.recorder.wait()
    rows = kept(database)
    assert len(rows) == 2 * recording.MAX_KEPT
    given = [value for value in values if value is not None][-recording.MAX_KEPT :]
    means = [np.mean([(place - back) / 10 for back in range(4)]) for place in range(28, 60)]
    assert [row.champion_raw for row in rows] == pytest.approx([value + 0.01 for value in (*given, *means)])
    other = [None if release is None else pytest.approx(row.champion_raw + 0.39) for row in rows]
    assert [row.challenger_raw for row in rows] == other
    times = [row.observed_at_ms for row in rows[recording.MAX_KEPT :]]
    assert times == sorted(set(times))


def test_a_database_that_is_away_costs_samples(channel: ScoredChannel, worker: ScoringWorker) -> None:
    gone = Database("postgresql://nobody@127.0.0.1:1/none")
    recorder = Recorder(gone, worker.models.get)
    set_challenger(channel)
    worker._recorder = recorder
    assert channel.score(channel="stable", windows=[window(1.0)]).status_code == 200
    recorder.wait()
    assert channel.score(channel="stable", windows=[window(1.0)]).status_code == 200
    recorder.wait()


def test_a_share_samples_and_a_named_release_is_never_kept(
    channel: ScoredChannel, worker: ScoringWorker, database: Database
) -> None:
    set_challenger(channel, None, share=2_500)
    worker._chance.seed(1)
    for _ in range(200):
        channel.score(channel="stable", windows=[window(1.0)])
    channel.score(channel="stable", release=40, windows=[window(1.0)])
    worker.recorder.wait()
    rows = kept(database)
    assert 30 < len(rows) < 70
    assert {(row.challenger, row.challenger_error) for row in rows} == {(None, None)}
    assert compared(channel)["pairs"] == []


def test_operators_set_it_and_the_trail_tells(channel: ScoredChannel, database: Database) -> None:
    client, headers = channel.client, channel.operator
    assert client.get(f"{URL}/challenger", headers=headers).json["code"] == "no_challenger"
    first = set_challenger(channel, 40, 100).json
    assert (first["channel"], first["release"], first["share"]) == ("stable", 40, 100)
    assert "operator token" in first["set_by"]
    assert client.get(f"{URL}/challenger", headers=headers).json == first
    assert set_challenger(channel, None, 5).json["release"] is None
    for _ in range(2):
        assert client.delete(f"{URL}/challenger", headers=headers).status_code == 204
    assert client.get(f"{URL}/challenger", headers=headers).status_code == 404
    with database.session() as session:
        entries = session.execute(
            select(AuditEntry.action, AuditEntry.detail)
            .where(AuditEntry.action.like("challenger%"))
            .order_by(AuditEntry.id)
        ).all()
    assert [tuple(entry) for entry in entries] == [
        ("challenger.set", {"before": None, "after": {"release": 40, "share": 100}}),
        ("challenger.set", {"before": {"release": 40, "share": 100}, "after": {"release": None, "share": 5}}),
        ("challenger.removed", {"release": None, "share": 5}),
    ]


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"release": 1, "share": 100}, 409, "same_release"), ({"release": 9, "share": 100}, 409, "release_missing"),
        ({"release": 40, "share": 0}, 422, "bad_field"), ({"release": 40, "share": 10_001}, 422, "bad_field"),
        ({"release": "40", "share": 1}, 422, "bad_field"), ({"share": 1}, 422, "bad_field"),
        ({"release": 40, "share": 1, "more": 1}, 422, "bad_field"),
    ],
)  # fmt: skip
def test_a_setting_that_makes_no_sense_is_refused(
    channel: ScoredChannel, body: dict[str, Any], status: int, code: str
) -> None:
    answer = channel.client.put(f"{URL}/challenger", json=body, headers=channel.operator)
    assert (answer.status_code, answer.json["code"]) == (status, code)


def test_a_channel_without_a_rollout_has_no_challenger(channel: ScoredChannel) -> None:
    answer = channel.client.put(
        "/api/channels/none/challenger", json={"release": 40, "share": 1}, headers=channel.operator
    )
    assert (answer.status_code, answer.json["code"]) == (404, "no_rollout")


@pytest.mark.parametrize("query", ["hours=0", "hours=x", "hours=99999", "since=1", "limit=5"])
def test_a_period_that_makes_no_sense_is_refused(channel: ScoredChannel, query: str) -> None:
    assert channel.client.get(f"{URL}/comparison?{query}", headers=channel.operator).status_code == 422


def test_windows_leave_as_a_file(channel: ScoredChannel, worker: ScoringWorker, database: Database) -> None:
    set_challenger(channel)
    channel.score(channel="stable", windows=[window(n / 10) for n in range(20)])
    channel.score(channel="stable", readings=readings([1.0, None, 3.0]))
    worker.recorder.wait()
    for headers in (channel.operator, channel.publisher):
        answer = channel.client.get(f"{URL}/windows?limit=21", headers=headers)
        assert answer.headers["Content-Disposition"].endswith('"stable.windows.ndjson"')
        lines = [json.loads(line) for line in answer.data.splitlines()]
    assert lines[0] == {"format": 1, "kind": "stella-edge-windows", "channel": "stable"}
    assert lines[1]["bundle"] == channel.bundles[1, None].digest
    assert lines[1]["signals"] == ["heat", "load"]
    assert lines[-1] == {"end": 21}
    assert len(lines) == 24
    assert np.frombuffer(base64.b64decode(lines[5]["cells"]), "<f4").tolist() == pytest.approx([0.3] * 8)
    newest = np.frombuffer(base64.b64decode(lines[-2]["cells"]), "<f4").reshape(4, 2)
    assert np.isnan(newest[[0, 2]]).all()
    assert newest[3].tolist() == [3.0, 3.0]
    answer = channel.client.get(f"{URL}/windows?limit=3", headers=channel.operator)
    assert answer.data.splitlines()[-1] == b'{"end":3}'


def test_what_is_kept_is_bounded_in_time_and_number(
    channel: ScoredChannel, worker: ScoringWorker, database: Database
) -> None:
    set_challenger(channel, None)
    channel.score(channel="stable", windows=[window(1.0)] * 30)
    worker.recorder.wait()
    with database.session() as session:
        session.execute(
            update(ScoredWindow).where(ScoredWindow.id <= 5).values(scored_at=utc_now() - timedelta(days=15))
        )

    def left(most: int) -> int:
        with database.session() as session:
            keeping.sweep(session, now=utc_now(), days=14, most=most)
            return int(session.execute(select(func.count()).select_from(ScoredWindow)).scalar_one())

    assert [left(most) for most in (100, 25, 24, 10)] == [25, 25, 24, 10]
    assert min(row.id for row in kept(database)) == 21


def test_upkeep_sweeps_by_the_settings(
    channel: ScoredChannel, worker: ScoringWorker, database: Database, app: Flask
) -> None:
    set_challenger(channel, None)
    channel.score(channel="stable", windows=[window(1.0)] * 9)
    worker.recorder.wait()
    config = app.extensions["config"]
    for most, left in ((9, 9), (4, 4)):
        with app.app_context():
            run_once(database, get_online_key, dataclasses.replace(config, scoring_keep_windows=most))
        assert len(kept(database)) == left


def test_the_exporter_replays_the_file(
    channel: ScoredChannel, worker: ScoringWorker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    set_challenger(channel, None)
    channel.score(channel="stable", windows=[window(n / 100) for n in range(200)])
    channel.score(channel="stable", readings=readings([1.0, 2.0, None, 4.0]), last=4)
    worker.recorder.wait()
    file = tmp_path / "windows.ndjson"
    file.write_bytes(channel.client.get(f"{URL}/windows", headers=channel.publisher).data)
    for release in (1, 40):
        (tmp_path / f"{release}.bundle").write_bytes(channel.bundles[release, None].data)
    arguments = ["replay", str(tmp_path / "40.bundle"), str(file), "--against", str(tmp_path / "1.bundle"), "--json"]
    assert run_command(arguments) == 0
    found = json.loads(capsys.readouterr().out)
    # The newest 32 windows of the first request, from 1.68 on; of the readings' windows, which score .76, .76 and 1.76,
    # release 40 flags the first two as well.
    total = found["total"]
    assert (total["windows"], total["flagged_current"], total["newly_flagged"]) == (35, 33, 2)

"""Scoring for clients without ONNX: the same verdicts as devices give, by the release that the rollout gives."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from flask import Flask
from flask.testing import FlaskClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client import REGISTRY
from simulators.scored_channel import ScoredChannel, readings, window
from simulators.server_devices import ServerDevice, enrolment_token

from edge_runtime.contract.rollout import Rollout, is_in
from edge_runtime.explanation import Explainer
from edge_runtime.scoring import Scorer
from sync_server.db import Database
from sync_server.scoring.quota import DeviceQuota
from sync_server.scoring.worker import current_worker, start_warming

Auth = Callable[..., dict[str, str]]
DAY = 86_400_000


@pytest.fixture
def channel(app: Flask, auth: Auth) -> ScoredChannel:
    """Release 1 on all devices of stable."""
    made = ScoredChannel(app, auth)
    made.publish(1)
    made.start(1)
    return made


def device(channel: ScoredChannel, database: Database, *, cohort: str | None = "north") -> ServerDevice:
    token = enrolment_token(database, model="pumps", channel="stable")
    return ServerDevice.enrol(channel.client, token, cohort=cohort)


def test_verdicts_are_those_of_the_devices_code(channel: ScoredChannel) -> None:
    rng = np.random.default_rng(3)
    windows = rng.normal(0, 2, (40, 4, 2)).astype(np.float32)
    windows[rng.random(windows.shape) < 0.1] = np.nan
    windows[:, 1:3] = np.nan_to_num(windows[:, 1:3])
    sent = [[[None if np.isnan(v) else float(v) for v in row] for row in one] for one in windows]
    answer = channel.score(channel="stable", windows=sent)
    assert answer.status_code == 200, answer.text
    built = channel.bundles[1, None]
    scorer = Scorer(built.files["model.onnx"])
    expected = scorer.score(windows)
    explainer = Explainer(scorer, built.what.manifest(dict(built.files)), built.files["references.f32"])
    found = answer.json["windows"]
    assert np.array_equal(np.float32([one["raw_score"] for one in found]), expected.raw_score)
    assert np.array_equal(np.float32([one["anomaly_score"] for one in found]), expected.anomaly_score)
    assert [one["is_anomaly"] for one in found] == expected.is_anomaly.tolist()
    explained = [row for row, one in enumerate(found) if one["contributions"] is not None]
    anomalous = np.flatnonzero(expected.is_anomaly)
    worst = anomalous[np.argsort(-expected.raw_score[anomalous], kind="stable")][:16]
    assert sorted(explained) == sorted(worst.tolist())
    for row in explained:
        parts = explainer.contributions(windows[row], float(expected.raw_score[row]))
        assert found[row]["contributions"] == [list(part) for part in parts]


def test_the_answer_names_its_bundle(channel: ScoredChannel) -> None:
    body = channel.score(channel="stable", windows=[window(0.1)]).json
    assert body["bundle"] == {
        "digest": channel.bundles[1, None].digest, "model": "pumps", "version": "v1", "release_number": 1,
        "cohort": None,
    }  # fmt: skip
    assert (body["channel"], body["threshold"]) == ("stable", {"anomaly_score": 0.5, "raw_score": 1.0})
    assert body["windows"] == [
        {
            "observed_at_ms": None, "outcome": "scored", "anomaly_score": pytest.approx(0.11 / 1.11),
            "raw_score": pytest.approx(0.11), "is_anomaly": False, "contributions": None,
        }
    ]  # fmt: skip


def test_windows_are_cut_from_readings_by_the_bundles_rule(channel: ScoredChannel) -> None:
    asked = readings([9.0, 9.0, 1.0, 1.0, 1.0, 1.0])
    body = channel.score(channel="stable", readings=asked, last=6).json["windows"]
    assert [one["outcome"] for one in body] == ["warming_up"] + ["scored"] * 5
    assert [one["observed_at_ms"] for one in body] == asked["observed_at_ms"]
    # The last window has forgotten the 9s; the ones before hold two and one of them.
    assert [round(one["raw_score"], 4) for one in body[1:]] == [4.51, 4.76, 5.01, 3.01, 1.01]
    newest = channel.score(channel="stable", readings=asked).json["windows"]
    assert newest == body[-1:]
    gap = readings([9.0, 9.0], step_ms=DAY)
    assert channel.score(channel="stable", readings=gap).json["windows"][0]["outcome"] == "warming_up"


def test_a_window_without_readings_is_warming_up(channel: ScoredChannel) -> None:
    one = [[None, None], [None, None], [None, None], [1.0, 1.0]]
    body = channel.score(channel="stable", windows=[one, window(None), window(5.0)]).json["windows"]
    assert [item["outcome"] for item in body] == ["warming_up", "warming_up", "scored"]
    assert body[2]["contributions"][0][0] in ("heat", "load")


def test_a_device_gets_the_release_that_its_rollout_gives_it(channel: ScoredChannel, database: Database) -> None:
    channel.publish(2)
    channel.start(2, share=5_000)
    signed = Rollout.from_dict(channel.client.get("/api/channels/stable", headers=channel.operator).json)
    seen = set()
    for _ in range(12):
        one = device(channel, database)
        release = channel.score(headers=one.headers(), windows=[window(1.0)]).json["bundle"]["release_number"]
        assert release == (2 if is_in(signed, one.id, "north") else 1)
        asked = channel.score(channel="stable", device_id=one.id, windows=[window(1.0)])
        assert asked.json["bundle"]["release_number"] == release, "an operator who asks for it gets the same"
        seen.add(release)
    assert seen == {1, 2}
    assert channel.score(channel="stable", windows=[window(1.0)]).json["bundle"]["release_number"] == 2
    assert channel.score(channel="stable", release=1, windows=[window(1.0)]).json["bundle"]["release_number"] == 1


def test_a_rolled_back_release_scores_nothing_from_the_next_request_on(
    channel: ScoredChannel, database: Database
) -> None:
    channel.publish(2)
    channel.start(2)
    one = device(channel, database)

    def release() -> tuple[int, int]:
        answers = (
            channel.score(headers=one.headers(), windows=[window(1.0)]),
            channel.score(channel="stable", windows=[window(1.0)]),
        )
        mine, theirs = (answer.json["bundle"]["release_number"] for answer in answers)
        return mine, theirs

    assert release() == (2, 2)
    channel.roll("roll_back")
    assert release() == (1, 1)


def test_a_cohort_has_its_own_bundle(channel: ScoredChannel, database: Database) -> None:
    channel.publish(3, cohorts=(None, "north"))
    channel.start(3)
    north, other = device(channel, database), device(channel, database, cohort=None)

    def cohort(headers: dict[str, str], **body: Any) -> str | None:
        return channel.score(headers=headers, windows=[window(1.0)], **body).json["bundle"]["cohort"]

    assert cohort(north.headers()) == "north"
    assert cohort(other.headers()) is None
    assert cohort(other.headers(), cohort="north") == "north", "what a device says of itself now counts"
    assert cohort(channel.operator, channel="stable", cohort="north") == "north"
    assert cohort(channel.operator, channel="stable", cohort="nowhere") is None
    assert cohort(channel.operator, model="pumps") is None


REFUSED: list[tuple[dict[str, Any], int, str]] = [
    ({"channel": "stable"}, 422, "one_input"),
    ({"channel": "stable", "windows": [window(1)], "readings": readings([1.0])}, 422, "one_input"),
    ({"windows": [window(1)]}, 422, "channel_needed"),
    ({"channel": "nowhere", "windows": [window(1)]}, 404, "no_rollout"),
    ({"model": "nothing", "windows": [window(1)]}, 404, "model_unknown"),
    ({"channel": "stable", "model": "engines", "windows": [window(1)]}, 409, "other_model"),
    ({"channel": "stable", "release": 9, "windows": [window(1)]}, 409, "release_missing"),
    ({"channel": "stable", "device_id": "0" * 32, "windows": [window(1)]}, 404, "device_not_found"),
    ({"channel": "stable", "windows": []}, 422, "bad_field"),
    ({"channel": "stable", "windows": [[]]}, 422, "window_shape"),
    ({"channel": "stable", "windows": [window(1, slots=3)]}, 422, "window_shape"),
    ({"channel": "stable", "windows": [[[1, 2, 3]] * 4]}, 422, "window_shape"),
    ({"channel": "stable", "windows": [window(1), [[1, 1]] * 3 + [[1]]]}, 422, "window_shape"),
    ({"channel": "stable", "windows": [window("1")]}, 422, "bad_field"),  # type: ignore[arg-type]
    ({"channel": "stable", "windows": [window(True)]}, 422, "bad_field"),
    ({"channel": "stable", "windows": [window(1e39)]}, 422, "infinity"),
    ({"channel": "stable", "windows": [window(1)] * 257}, 422, "bad_field"),
    ({"channel": "stable", "windows": [window(1)], "signals": ["load", "heat"]}, 422, "other_signals"),
    ({"channel": "stable", "windows": [window(1)], "more": 1}, 422, "bad_field"),
    ({"channel": "stable", "readings": readings([])}, 422, "bad_field"),
    ({"channel": "stable", "readings": readings([1.0, 2.0], step_ms=0)}, 422, "not_ascending"),
    ({"channel": "stable", "readings": readings([1.0, 2.0], step_ms=-60_000)}, 422, "not_ascending"),
    ({"channel": "stable", "readings": {"observed_at_ms": [1], "signals": {"heat": [1]}}}, 422, "signal_missing"),
    ({"channel": "stable", "readings": {"observed_at_ms": [1], "signals": {"heat": [1], "load": []}}}, 422,
     "uneven_columns"),
    ({"channel": "stable", "readings": {"observed_at_ms": [-1], "signals": {}}}, 422, "bad_field"),
    ({"channel": "stable", "readings": readings([1.0]), "last": 0}, 422, "bad_field"),
    ({"channel": "stable\u0000", "windows": [window(1)]}, 404, "no_rollout"),
]  # fmt: skip


@pytest.mark.parametrize(("body", "status", "code"), REFUSED, ids=[f"{n}-{row[2]}" for n, row in enumerate(REFUSED)])
def test_what_cannot_be_scored_is_refused_with_a_reason(
    channel: ScoredChannel, body: dict[str, Any], status: int, code: str
) -> None:
    answer = channel.score(**body)
    assert (answer.status_code, answer.json["code"]) == (status, code)
    assert answer.mimetype == "application/problem+json"
    assert answer.json["detail"]


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b'{"channel": "stable", "windows": [[[NaN]]]}', 400),
        (b'{"channel": "stable", "windows": [[[1e999, 1], [1, 1], [1, 1], [1, 1]]]}', 422),
        (b'{"channel": "stable", "windows": [[[' + b"9" * 400 + b", 1], [1, 1], [1, 1], [1, 1]]]}", 422),
        (b"[" * 100_000, 422),
        (b" " * (2 * 1024 * 1024 + 1), 413),
    ],
)
def test_bytes_that_are_no_request(channel: ScoredChannel, data: bytes, status: int) -> None:
    headers = {**channel.operator, "Content-Type": "application/json"}
    answer = channel.client.post("/api/anomalies/score", data=data, headers=headers)
    assert (answer.status_code, answer.mimetype) == (status, "application/problem+json"), answer.text


def test_a_device_may_use_no_other_channel_or_release(channel: ScoredChannel, database: Database) -> None:
    one, two = device(channel, database), device(channel, database)
    for body in ({"channel": "beta"}, {"model": "engines"}, {"release": 1}, {"device_id": two.id}):
        answer = channel.score(headers=one.headers(), windows=[window(1)], **body)
        assert (answer.status_code, answer.json["code"]) == (403, "not_yours"), body


def test_a_device_of_another_model_is_refused_as_it_would_refuse(channel: ScoredChannel, database: Database) -> None:
    token = enrolment_token(database, model="engines", channel="stable")
    stranger = ServerDevice.enrol(channel.client, token)
    answer = channel.score(headers=stranger.headers(), windows=[window(1)])
    assert (answer.status_code, answer.json["code"]) == (409, "wrong_model")


def test_a_device_that_loops_is_sent_away_for_the_rest_of_the_minute(
    channel: ScoredChannel, database: Database, app: Flask
) -> None:
    now = [1_700_000_000.0 - 1_700_000_000 % 60 + 20]
    app.extensions["scoring"].quota = DeviceQuota(10, clock=lambda: now[0])
    one, two = device(channel, database), device(channel, database)

    def ask(who: ServerDevice, **body: Any) -> int:
        answer = channel.score(headers=who.headers(), **body)
        if answer.status_code == 429:
            assert (answer.json["code"], answer.headers["Retry-After"]) == ("quota_exceeded", "40")
        return answer.status_code

    assert ask(one, windows=[window(1)] * 8) == 200
    assert ask(one, windows=[window(1)] * 3) == 429
    assert ask(one, readings=readings([1.0] * 5), last=2) == 200
    assert ask(one, readings=readings([1.0] * 5)) == 429
    assert ask(two, windows=[window(1)] * 10) == 200
    assert channel.score(channel="stable", windows=[window(1)] * 20).status_code == 200, "operators are not counted"
    now[0] += 40
    assert ask(one, windows=[window(1)] * 10) == 200


def test_readings_and_refused_requests_are_counted_before_anything_is_cut(
    channel: ScoredChannel, database: Database, app: Flask
) -> None:
    """A hundred readings cost a device as much as a window, whatever becomes of them."""
    app.extensions["scoring"].quota = DeviceQuota(10, clock=lambda: 1_700_000_000.0)

    def ask(who: ServerDevice, **body: Any) -> int:
        return channel.score(headers=who.headers(), **body).status_code

    one, two, three = (device(channel, database) for _ in range(3))
    assert ask(one, readings=readings([1.0] * 1_001)) == 429
    assert ask(one, readings=readings([1.0] * 901)) == 200
    assert ask(one, windows=[window(1)]) == 429
    assert ask(two, windows=[window(1, slots=3)] * 10) == 422
    assert ask(two, windows=[window(1)]) == 429
    assert [ask(three) for _ in range(11)] == [422] * 10 + [429]


def test_a_rollout_that_says_keep_what_you_have_scores_nothing(app: Flask, auth: Auth, database: Database) -> None:
    made = ScoredChannel(app, auth)
    assert made.score(channel="stable", windows=[window(1)]).json["code"] == "no_repository"
    made.publish(1)
    made.start(1, share=0)
    answer = made.score(headers=device(made, database).headers(), windows=[window(1)])
    assert (answer.status_code, answer.json["code"]) == (409, "no_release")


def test_a_bundle_that_fails_its_golden_windows_scores_nothing(app: Flask, auth: Auth) -> None:
    made = ScoredChannel(app, auth)
    made.publish(1, golden_shift=0.1)
    made.start(1)
    for _ in range(2):
        answer = made.score(channel="stable", windows=[window(1)])
        assert (answer.status_code, answer.json["code"]) == (503, "model_unavailable")
        assert answer.headers["Retry-After"] == "30"


def test_a_changed_blob_scores_nothing(channel: ScoredChannel, app: Flask) -> None:
    digest = channel.bundles[1, None].digest
    path = app.extensions["config"].data_dir / "blobs" / "sha256" / digest[:2] / digest
    data = bytearray(path.read_bytes())
    data[-30] ^= 1
    path.write_bytes(data)
    assert channel.score(channel="stable", windows=[window(1)]).json["code"] == "model_unavailable"


def test_a_server_may_be_told_to_score_nothing(database: Database, auth: Auth, server_config: Any) -> None:
    import dataclasses

    from sync_server.app import create_app

    app = create_app(dataclasses.replace(server_config, scoring_models=0), database)
    answer = app.test_client().post("/api/anomalies/score", json={}, headers=auth("ops"))
    assert (answer.status_code, answer.json["code"]) == (404, "scoring_off")
    assert start_warming(app) is None
    assert app.test_client().get("/health/ready").json["checks"]["scoring"] == "ok"


def test_a_worker_loads_its_models_before_anybody_asks(channel: ScoredChannel, app: Flask) -> None:
    channel.publish(2, cohorts=(None, "north"))
    with app.app_context():
        worker = current_worker()
    assert worker.warm_up() == 1
    channel.start(2, share=100)
    assert worker.warm_up() == 3, "both bundles of the new release, and the one that most devices still run"
    assert worker.warm_up() == 0, "nothing has changed"
    assert set(worker.models.loaded()) == {built.digest for built in channel.bundles.values()}
    stop = start_warming(app)
    assert stop is not None
    stop.set()
    for thread in threading.enumerate():
        if thread.name == "scoring":
            thread.join(10)
    assert channel.client.get("/health/ready").json["checks"]["scoring"] == "ok"


def test_a_fault_over_one_bundle_ends_no_loading_ahead(
    app: Flask, channel: ScoredChannel, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A bug, not a bundle that is refused: the next turn loads what this one has not."""
    with app.app_context():
        worker = current_worker()
    stop, get, turns = threading.Event(), worker.models.get, iter([TypeError("a bug")])

    def broken_once(choice: Any) -> Any:
        for error in turns:
            raise error
        stop.set()
        return get(choice)

    monkeypatch.setattr("sync_server.scoring.worker.FOLLOW_SECONDS", 0.01)
    monkeypatch.setattr(worker.models, "get", broken_once)
    worker.follow(stop)
    assert "TypeError: a bug" in caplog.text
    assert (worker.warmth, len(worker.models.loaded())) == ("warm", 1)


def test_a_worker_is_not_ready_before_its_models_are(app: Flask, client: FlaskClient) -> None:
    app.extensions["scoring"].warmth = "warming"
    answer = client.get("/health/ready")
    assert (answer.status_code, answer.json["code"]) == (503, "not_ready")
    assert "still being loaded" in answer.json["checks"]["scoring"]
    assert client.get("/health").status_code == 200


def test_threads_that_come_at_once_load_a_model_once(channel: ScoredChannel) -> None:
    before = REGISTRY.get_sample_value("scoring_model_loads_total", {"outcome": "loaded"}) or 0
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda n: channel.score(channel="stable", windows=[window(n / 10)]), range(16)))
    assert {answer.status_code for answer in found} == {200}
    assert [round(answer.json["windows"][0]["raw_score"], 3) for answer in found] == [
        round(n / 10 + 0.01, 3) for n in range(16)
    ]
    assert REGISTRY.get_sample_value("scoring_model_loads_total", {"outcome": "loaded"}) == before + 1


def test_metrics_tell_engine_provider_and_batch(channel: ScoredChannel) -> None:
    labels = {"engine": "onnxruntime", "provider": "cpu", "batch_size": "9-64"}

    def counted() -> tuple[float, float]:
        total = REGISTRY.get_sample_value("model_inference_total", {**labels, "outcome": "scored"}) or 0
        return total, REGISTRY.get_sample_value("model_inference_duration_seconds_count", labels) or 0

    before = counted()
    channel.score(channel="stable", windows=[window(1)] * 20)
    assert counted() == (before[0] + 1, before[1] + 1)


@settings(
    max_examples=40, deadline=None, derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip
@given(
    body=st.fixed_dictionaries(
        {"channel": st.just("stable")},
        optional={
            "windows": st.lists(st.lists(st.lists(st.none() | st.floats(allow_nan=False) | st.integers(), max_size=3),
                                         max_size=5), max_size=3) | st.none(),
            "cohort": st.text(max_size=5) | st.none(),
            "release": st.integers() | st.none(),
            "last": st.integers(-1, 300),
            "signals": st.lists(st.text(max_size=3), max_size=3),
        },
    )
)  # fmt: skip
def test_no_body_ends_in_a_fault_of_the_server(channel: ScoredChannel, client: FlaskClient, body: Any) -> None:
    answer = channel.score(**body)
    assert answer.status_code < 500, (body, answer.text)

"""The real server with two workers: what threads of one process cannot show."""

from __future__ import annotations

import gzip
import json
import re
import secrets
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from journey.stack import Stack
from simulators.advice_endpoint import GOOD, AdviceEndpoint, advice_endpoint
from simulators.scored_channel import window

from edge_runtime.contract.batch import encode_batch
from edge_runtime.contract.enrolment import EnrolmentLine
from edge_runtime.contract.result import Anomaly

NOON = 1_764_158_400_000


@pytest.fixture
def endpoint() -> Iterator[AdviceEndpoint]:
    with advice_endpoint() as server:
        server.delay = 0.5
        yield server


@pytest.fixture
def stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, endpoint: AdviceEndpoint) -> Iterator[Stack]:
    """Two workers, releases 1 and 2 of pumps, the first on all devices of stable."""
    for name, value in (
        ("WORKERS", "2"),
        ("ADVICE_URL", endpoint.url),
        ("ADVICE_MODEL", "small"),
        ("ADVICE_WAIT_MS", "0"),
    ):
        monkeypatch.setenv(f"SYNC_SERVER_{name}", value)
    made = Stack(tmp_path)
    try:
        made.open_workshop()
        made.start()
        made.make_tokens()
        for release in (1, 2):
            made.publish(made.small_bundle(release))
        made.roll_out("stable", "pumps", 1)
        yield made
    finally:
        made.stop()


def post(stack: Stack, path: str, body: bytes, token: str, **headers: str) -> Any:
    sent = {"Authorization": f"Bearer {token}", "Content-Type": "application/json", **headers}
    with urllib.request.urlopen(urllib.request.Request(stack.url + path, body, sent), timeout=30) as answer:
        return json.load(answer)


def incident(stack: Stack) -> int:
    """Enrol a device, and have it report an anomaly of release 1."""
    token = EnrolmentLine.parse(stack.line("pumps", "stable")).token
    enrolment = {"installation_id": secrets.token_hex(16), "name": None, "cohort": None, "kind": "edge"}
    device = post(stack, "/api/devices", json.dumps(enrolment).encode(), token)
    record = Anomaly(1, stack.digests["pumps", 1], NOON, NOON, 0.9995, 2.0, 1, (("heat", 0.4),), False)
    batch = gzip.compress(encode_batch(secrets.token_hex(16), NOON, [record]))
    post(stack, "/api/results", batch, device["token"], **{"Content-Encoding": "gzip"})
    return int(stack.get("/api/anomalies")["items"][0]["id"])


def scored(metrics: str) -> float:
    lines = re.findall(r"^model_inference_total\{([^}]*)\} (\S+)$", metrics, re.MULTILINE)
    return sum(float(value) for labels, value in lines if 'outcome="scored"' in labels)


def test_workers_score_with_one_release_and_ask_for_one_text(stack: Stack, endpoint: AdviceEndpoint) -> None:
    token = stack.token_files["operator"].read_text()

    def releases(count: int) -> list[int]:
        body = json.dumps({"channel": "stable", "windows": [window(1.0)]}).encode()
        with ThreadPoolExecutor(8) as pool:
            answers = pool.map(lambda _: post(stack, "/api/anomalies/score", body, token), range(count))
        return [answer["bundle"]["release_number"] for answer in answers]

    assert set(releases(24)) == {1}
    stack.roll_out("stable", "pumps", 2)
    assert set(releases(24)) == {2}, "no worker scores with the former release after the change"
    with stack._open("/metrics", token) as answer:
        assert scored(answer.read().decode()) == 48, "the figures of both workers are one"

    number = incident(stack)
    with ThreadPoolExecutor(16) as pool:
        texts = list(pool.map(lambda _: stack.get(f"/api/incidents/{number}/advice"), range(200)))
    assert len(endpoint.calls) == 1, "two processes asked once"
    assert {text["source"] for text in texts} <= {"template", "endpoint"}
    for _ in range(200):
        if stack.get(f"/api/incidents/{number}/advice")["text"] == GOOD:
            break
    else:
        raise AssertionError("the text never came")
    assert len(endpoint.calls) == 1

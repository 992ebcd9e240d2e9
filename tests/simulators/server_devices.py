"""Devices as the server sees them: enrolled over HTTP, with records made to order. No model is needed."""

from __future__ import annotations

import gzip
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field

from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from edge_runtime.contract.batch import ResultsAnswer, encode_batch
from edge_runtime.contract.result import Anomaly, AnyRecord, Event, Gap, Summary
from sync_server.db import Database, utc_now
from sync_server.devices.enrolment import create_enrolment
from sync_server.repository.models import StoredBundle

BUNDLE = "b" * 64
HOUR = 3_600_000
NOON = 1_700_000_000_000 - 1_700_000_000_000 % HOUR  # an hour of November 2023


def enrolment_token(database: Database, *, model: str = "engine", channel: str = "stable", uses: int = 1000) -> str:
    with database.session() as session:
        line = create_enrolment(
            session,
            model=model,
            channel=channel,
            uses=uses,
            expires_days=7,
            url="http://127.0.0.1:8080",
            root_digest="0" * 64,
            targets_version=1,
            actor="test",
        )
    return line.token


def publish(database: Database, digest: str = BUNDLE, *, release: int = 7, model: str = "engine") -> None:
    """Make the server know a bundle, without its bytes."""
    with database.session() as session:
        session.merge(
            StoredBundle(
                digest=digest,
                path=f"{model}/1.{release}/default.bundle",
                model=model,
                version=f"1.{release}",
                release_number=release,
                size=1,
                size_unpacked=1,
                signer="",
                manifest={},
                published_at=utc_now(),
            )
        )


@dataclass
class ServerDevice:
    """One device: its client, its token and its stream."""

    client: FlaskClient
    id: str
    token: str
    stream: str = field(default_factory=lambda: secrets.token_hex(16))
    clock_ms: int = NOON

    @classmethod
    def enrol(
        cls, client: FlaskClient, token: str, *, cohort: str | None = "north", name: str | None = None
    ) -> ServerDevice:
        body = {"installation_id": secrets.token_hex(16), "name": name, "cohort": cohort, "kind": "edge"}
        answer = client.post("/api/devices", json=body, headers={"Authorization": f"Bearer {token}"})
        assert answer.status_code == 201, answer.text
        return cls(client, answer.json["device_id"], answer.json["token"])

    def headers(self, **more: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}", **more}

    def post(
        self, records: Sequence[AnyRecord], *, stream: str | None = None, sent_at_ms: int | None = None
    ) -> TestResponse:
        if sent_at_ms is None:
            self.clock_ms += 1
            sent_at_ms = self.clock_ms
        body = gzip.compress(encode_batch(stream or self.stream, sent_at_ms, records), mtime=0)
        headers = self.headers(**{"Content-Type": "application/json", "Content-Encoding": "gzip"})
        return self.client.post("/api/results", data=body, headers=headers)

    def send(
        self, records: Sequence[AnyRecord], *, stream: str | None = None, sent_at_ms: int | None = None
    ) -> ResultsAnswer:
        answer = self.post(records, stream=stream, sent_at_ms=sent_at_ms)
        assert answer.status_code == 200, answer.text
        return ResultsAnswer.from_dict(answer.json)

    def report(self, **more: object) -> TestResponse:
        body = {"active": None, "outbox": {"records": 0, "dead_letters": 0, "oldest_ms": None}, "stale": False, **more}
        return self.client.post("/api/device-status", json=body, headers=self.headers())


def anomaly(
    sequence: int,
    observed_at_ms: int = NOON,
    *,
    started_at_ms: int | None = None,
    score: float = 0.999,
    windows: int = 1,
    signals: Sequence[str] = ("temperature", "pressure"),
    bundle: str = BUNDLE,
) -> Anomaly:
    contributions = tuple((signal, 0.2 / (place + 1)) for place, signal in enumerate(signals))
    started = observed_at_ms if started_at_ms is None else started_at_ms
    return Anomaly(sequence, bundle, observed_at_ms, started, score, score - 0.3, windows, contributions, False)


def summary(
    sequence: int,
    start_ms: int = NOON,
    *,
    windows: int = 10,
    anomalous: int = 0,
    period: str = "hour",
    bundle: str = BUNDLE,
) -> Summary:
    histogram = (windows - anomalous, *[0] * 13, anomalous)
    return Summary(
        sequence,
        bundle,
        start_ms,
        period,
        start_ms + 60_000,
        windows,
        anomalous,
        2,
        1,
        windows * 5,
        windows,
        histogram,
        windows,
        90 * windows,
        200,
    )


def gap(sequence: int, first: int, last: int) -> Gap:
    return Gap(sequence, first, last, last - first + 1, "outbox_full")


def ended(sequence: int, started_at_ms: int, observed_at_ms: int, windows: int, *, bundle: str = BUNDLE) -> Event:
    detail = {"incident_started_at_ms": started_at_ms, "windows": windows}
    return Event(sequence, bundle, observed_at_ms, "incident_ended", detail)

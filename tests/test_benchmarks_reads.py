"""The seeded past is what ingest would have left, and every request of the read benchmark is one that the server takes."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from flask.testing import FlaskClient

from benchmarks import plans
from benchmarks.read_requests import lists, others
from benchmarks.reads import PLANS
from benchmarks.seeding import Fleet, seed
from sync_server.access.tokens import issue_token
from sync_server.app import create_app
from sync_server.config import load_config
from sync_server.db import Database, utc_now
from sync_server.embedded_postgres import EmbeddedPostgres
from sync_server.migrations import migrate

FLEET = Fleet(devices=120, anomalies=4_000, days=40, summary_days=3, releases=2)
INDEXES = "SELECT count(*) FROM pg_index WHERE indrelid::regclass::text NOT LIKE 'pg_%' AND indisvalid"
# Each counts rows that contradict others.
CONTRADICTIONS = {
    "holes in streams": """
        SELECT count(*) FROM streams s WHERE coalesce(upper(held) - 1, 0) <> (SELECT count(*) FROM (
            SELECT sequence FROM anomalies WHERE stream_id = s.id UNION SELECT sequence FROM events WHERE stream_id = s.id
            UNION SELECT sequence FROM summaries WHERE stream_id = s.id UNION SELECT sequence FROM gaps
            WHERE stream_id = s.id) AS numbers)""",
    "incidents unlike their windows": """
        SELECT count(*) FROM incidents i JOIN (
            SELECT device_id, bundle, incident_started_at_ms AS started_at_ms, count(*) AS records,
                max(anomaly_score) AS score, max(observed_at_ms) AS last_ms, max(windows) AS windows
            FROM anomalies GROUP BY 1, 2, 3) AS a USING (device_id, bundle, started_at_ms)
        WHERE a.records <> i.records OR abs(a.score - i.peak_score) > 1e-12 OR a.last_ms <> i.last_observed_ms
            OR a.windows <> i.windows OR i.listed_at_ms <> a.last_ms OR i.ended_at_ms <= a.last_ms""",
    "windows without an incident": """
        SELECT count(*) FROM anomalies a WHERE NOT EXISTS (SELECT FROM incidents i WHERE i.device_id = a.device_id
            AND i.bundle = a.bundle AND i.started_at_ms = a.incident_started_at_ms)""",
    "roll-ups unlike summaries": """
        SELECT count(*) FROM (SELECT s.period_start_ms, sum(s.windows) AS windows FROM summaries s GROUP BY 1) AS s
        JOIN (SELECT started_at_ms, sum(windows) AS windows FROM hourly_rollups GROUP BY 1) AS r
            ON r.started_at_ms = s.period_start_ms WHERE r.windows <> s.windows""",
    "incidents missing in roll-ups": """
        SELECT (SELECT count(*) FROM incidents) - (SELECT sum(incidents) FROM hourly_rollups)""",
    "rows outside their month": "SELECT count(*) FROM anomalies_default",
    "summaries whose histogram is of other windows": """
        SELECT count(*) FROM summaries WHERE windows <> (SELECT sum(n) FROM unnest(histogram) AS n)""",
}


@pytest.fixture(scope="module")
def seeded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    """A small fleet with a past, in a database of its own: partitions of past months would stay in a shared one."""
    with EmbeddedPostgres(tmp_path_factory.mktemp("seeded") / "postgres") as postgres:
        migrate(postgres.owner_url, app_role="stella_app")
        with psycopg.connect(postgres.owner_url.replace("+psycopg", "")) as connection:
            before = connection.execute(INDEXES).fetchone()
        rows = seed(postgres.owner_url, FLEET, now=utc_now())
        with psycopg.connect(postgres.owner_url.replace("+psycopg", "")) as connection:
            after = connection.execute(INDEXES).fetchone()
        assert rows["devices"] == 120
        assert abs(rows["anomalies"] - 4_000) < 10
        assert before is not None
        assert after is not None
        assert after[0] >= before[0]  # all there again, and those of past months
        yield postgres


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_the_past_agrees_with_itself(seeded: EmbeddedPostgres, name: str) -> None:
    with psycopg.connect(seeded.owner_url.replace("+psycopg", "")) as connection:
        assert connection.execute(CONTRADICTIONS[name]).fetchone() == (0,)  # type: ignore[call-overload]


def test_a_database_with_devices_is_not_seeded(seeded: EmbeddedPostgres) -> None:
    with pytest.raises(ValueError, match="devices already"):
        seed(seeded.owner_url, FLEET, now=utc_now())


@pytest.fixture(scope="module")
def database(seeded: EmbeddedPostgres) -> Iterator[Database]:
    database = Database(seeded.app_url, pool_size=2)
    yield database
    database.dispose()


def test_every_request_is_answered(database: Database, tmp_path: Path) -> None:
    app = create_app(load_config(data_dir=tmp_path, environ={}, database_url="postgresql://unused"), database)
    client: FlaskClient = app.test_client()
    with database.session() as session:
        token = issue_token(session, "view", name="test").token
    rng = random.Random(3)
    requests = list(lists(FLEET, int(utc_now().timestamp() * 1000), rng))
    for request in [*rng.sample(requests, 150), *others(FLEET, rng, 2)]:
        answer = client.get(request.path, headers={"Authorization": f"Bearer {token}"})
        assert answer.status_code == 200, (request.path, answer.text)


def test_the_page_of_plans_names_the_five_reads_and_their_indexes(database: Database) -> None:
    text = plans.page(database, FLEET, int(utc_now().timestamp() * 1000))
    committed = PLANS.read_text("utf-8")
    for page in (text, committed):
        for wanted in ("/api/anomalies: incidents", "/api/anomalies: windows", "/api/devices/", "/stats", "/trends"):
            assert f"GET {wanted}" in page or wanted in page
        assert page.count("Execution Time") > 20
    assert "ix_incidents_listed" in committed
    assert "Seq Scan on incidents" not in committed

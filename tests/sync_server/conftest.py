"""Fixtures of the server's tests: a real embedded Postgres, clean tables for each test, and an app on top.

``database`` the app role's database · ``app`` · ``client`` · ``make_token(kind, **)`` -> text · ``bearer(token)``
-> headers · ``log_in(role)`` -> a client with a session and its CSRF token · ``server_config``.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from flask import Flask
from flask.testing import FlaskClient
from simulators.rollout_scenes import Tell, teller
from simulators.server_devices import ServerDevice, enrolment_token
from simulators.webhook_receiver import Receiver, receiving
from sqlalchemy import text
from sqlalchemy.orm import Session

from sync_server import health
from sync_server.access.sessions import SESSION_COOKIE, create_operator, csrf_of, open_session
from sync_server.access.tokens import issue_token
from sync_server.app import create_app
from sync_server.config import ServerConfig, load_config
from sync_server.db import Database, utc_now
from sync_server.embedded_postgres import EmbeddedPostgres
from sync_server.migrations import migrate
from sync_server.webhooks import service

# Every table but the partitions, which go with their parents.
_TABLES = """
SELECT format('%I', relname) FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')
AND NOT relispartition AND relname <> 'alembic_version'
"""


@pytest.fixture(autouse=True)
def _logs_end_with_their_test() -> Iterator[None]:
    """Take away what a command of the test made logs go to: its standard error is closed by the next test."""
    root = logging.getLogger()
    level = root.level
    yield
    for handler in [handler for handler in root.handlers if type(handler) is logging.StreamHandler]:
        root.removeHandler(handler)
    root.setLevel(level)


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    """One embedded Postgres for the whole run, migrated."""
    with EmbeddedPostgres(tmp_path_factory.mktemp("data") / "postgres") as running:
        migrate(running.owner_url, app_role="stella_app")
        yield running


@pytest.fixture(scope="session")
def _shared_database(postgres: EmbeddedPostgres) -> Iterator[Database]:
    database = Database(postgres.app_url, pool_size=5)
    yield database
    database.dispose()


@pytest.fixture(scope="session")
def owner_database(postgres: EmbeddedPostgres) -> Iterator[Database]:
    """The owner's connection, for what the app role may not do."""
    database = Database(postgres.owner_url, pool_size=2)
    yield database
    database.dispose()


@pytest.fixture
def database(_shared_database: Database, owner_database: Database) -> Database:
    """The app role's database, every table empty."""

    def empty(session: Session) -> None:
        names = ", ".join(session.scalars(text(_TABLES)))
        session.execute(text(f"TRUNCATE {names} RESTART IDENTITY CASCADE"))

    owner_database.run(empty)  # again where a thread of the test before, such as a challenger's, was still writing
    return _shared_database


@pytest.fixture
def server_config(tmp_path: Path) -> ServerConfig:
    config = load_config(data_dir=tmp_path / "data", environ={})
    return dataclasses.replace(config, database_url="postgresql://unused")


@pytest.fixture
def app(server_config: ServerConfig, database: Database) -> Flask:
    return create_app(server_config, database)


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


@pytest.fixture
def readiness_afresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each question to `/health/ready` runs the checks anew."""
    monkeypatch.setattr(health, "_kept_seconds", lambda found: -1.0)


@pytest.fixture
def device(client: FlaskClient, database: Database) -> ServerDevice:
    """A device that was enrolled over HTTP."""
    return ServerDevice.enrol(client, enrolment_token(database))


@pytest.fixture
def make_token(database: Database) -> Callable[..., str]:
    """Return a function that issues a token: ``make_token("pub")``, ``make_token("dev", subject=device_id)``."""

    def make(kind: str, **options: object) -> str:
        with database.session() as session:
            return issue_token(session, kind, name=str(options.pop("name", "test")), **options).token  # type: ignore[arg-type]

    return make


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@pytest.fixture
def auth(make_token: Callable[..., str]) -> Callable[..., dict[str, str]]:
    """Return a function that gives headers with a fresh token: ``client.get(url, headers=auth("ops"))``."""
    return lambda kind, **options: bearer(make_token(kind, **options))


@pytest.fixture
def log_in(app: Flask, database: Database) -> Callable[..., tuple[FlaskClient, str]]:
    """Return a function that gives a client with a log-in, and its CSRF token: ``page, csrf = log_in("viewer")``."""

    def make(role: str = "operator", username: str = "alice") -> tuple[FlaskClient, str]:
        with database.session() as session:
            operator = create_operator(session, username, "correct horse battery", role=role)
            secret = open_session(session, operator, now=utc_now(), hours=1)
        page = app.test_client()
        page.set_cookie(SESSION_COOKIE, secret)
        return page, csrf_of(secret)

    return make


@pytest.fixture
def tell(database: Database, monkeypatch: pytest.MonkeyPatch) -> Tell:
    """Return a function that begins the story of a small fleet under a plan; the same draw in every run."""
    monkeypatch.setattr("secrets.token_hex", lambda count: "5a" * count)
    return teller(database, ec.generate_private_key(ec.SECP256R1()))


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as server:
        yield server


@pytest.fixture
def make_hook(database: Database, receiver: Receiver) -> Callable[..., int]:
    """Return a function that makes a hook to the receiver and returns its number."""

    def make(*events: str, url: str = receiver.url) -> int:
        with database.session() as session:
            return service.create(
                session, name="test", url=url, events=events or ("*",), allow_private=True, actor="test"
            ).id

    return make

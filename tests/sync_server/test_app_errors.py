"""Every answer that is no success is problem+json, and carries the headers that every answer carries."""

from __future__ import annotations

import dataclasses
import errno
import gc
import io
import socket
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import text
from sqlalchemy.orm import Session

from edge_runtime.errors import ContractError, InputError, StorageError, TrustError
from sync_server import rooms
from sync_server.app import create_app
from sync_server.config import ServerConfig
from sync_server.db import Base, Database, lock_for_transaction, session_scope, sqlalchemy_url, try_lock_for_transaction
from sync_server.embedded_postgres import EmbeddedPostgres
from sync_server.errors import RequestError
from sync_server.http import CONTENT_SECURITY_POLICY
from sync_server.migrations import migrate
from sync_server.repository.online_key import load_or_create

HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
}


def _raising(app: Flask, error: Exception) -> FlaskClient:
    def view() -> str:
        raise error

    app.add_url_rule("/api/raise", "raise", view)
    app.add_url_rule("/raise", "raise_page", view)
    return app.test_client()


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (RequestError(409, "rollout_open", "It is open.", advice="Wait.", expected=3), 409, "rollout_open"),
        (TrustError("No.", reason="bad_signature"), 422, "bad_signature"),
        (ContractError("No."), 422, "contract"),
        (InputError("No."), 422, "input"),
        (StorageError("Disk /secret/path is full."), 503, "storage"),
        (KeyError("secret"), 500, "internal_error"),
    ],
)
def test_errors_of_our_own(error: Exception, status: int, code: str, app: Flask) -> None:
    answer = _raising(app, error).get("/api/raise")
    assert (answer.status_code, answer.json["code"], answer.json["status"]) == (status, code, status)
    assert answer.content_type == "application/problem+json"
    assert answer.json["type"] == f"urn:stella-edge:problem:{code}"
    assert "secret" not in answer.text
    assert answer.headers["X-Request-Id"] == answer.json["request_id"]
    assert {name: answer.headers[name] for name in HEADERS} == HEADERS
    assert ("Retry-After" in answer.headers) == (status == 503)
    assert answer.json.get("expected") == (3 if status == 409 else None)
    page = app.test_client().get("/raise")
    assert (page.status_code, page.mimetype) == (status, "text/html")
    assert "secret" not in page.text
    assert {name: page.headers[name] for name in HEADERS} == HEADERS


def test_errors_of_the_framework(client: FlaskClient, auth: Callable[..., dict[str, str]]) -> None:
    missing = client.get("/api/nothing/here")
    assert (missing.status_code, missing.json["code"]) == (404, "not_found")
    missing = client.get("/nothing/here")
    assert (missing.status_code, missing.mimetype) == (404, "text/html")
    assert "Back to the fleet" in missing.text
    method = client.delete("/health")
    assert (method.status_code, method.json["code"]) == (405, "method_not_allowed")
    assert "GET" in method.headers["Allow"]
    huge = client.put("/api/channels/stable", data=b"x" * 70_000, headers=auth("ops"), content_type="application/json")
    assert (huge.status_code, huge.json["code"]) == (413, "too_large")
    for body, status in ((b"{", 400), (b"\xff", 400), (b"null", 422), (b'{"action":NaN}', 400)):
        answer = client.put("/api/channels/stable", data=body, headers=auth("ops"), content_type="application/json")
        assert (answer.status_code, answer.content_type) == (status, "application/problem+json"), body


# Werkzeug leaves the temporary files of a form that it refuses to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_publish_has_bounds(
    server_config: ServerConfig, database: Database, auth: Callable[..., dict[str, str]]
) -> None:
    small = create_app(dataclasses.replace(server_config, max_publish_bytes=1000), database).test_client()
    headers = auth("pub")
    big = {"targets/a/b/c.bundle": (io.BytesIO(b"x" * 2000), "c.bundle")}
    assert small.post("/api/publish", data=big, headers=headers).status_code == 413
    many = {f"targets/a/{number}/c.bundle": (io.BytesIO(b""), "c") for number in range(1200)}
    whole = create_app(server_config, database).test_client()
    assert whole.post("/api/publish", data=many, headers=headers).status_code == 413
    gc.collect()
    broken = whole.post("/api/publish", data=b"no parts", headers=headers, content_type="multipart/form-data")
    assert broken.status_code == 422
    assert broken.content_type == "application/problem+json"


@pytest.mark.parametrize("given", ["abc-123", "x" * 65, "bad id", ""])
def test_request_ids(given: str, client: FlaskClient) -> None:
    shown = client.get("/health", headers={"X-Request-Id": given}).headers["X-Request-Id"]
    assert (shown == given) == (given == "abc-123")


def test_a_database_that_is_down(server_config: ServerConfig, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    database = Database(f"postgresql://nobody@127.0.0.1:{port}/none")
    client = create_app(server_config, database).test_client()
    assert client.get("/health").json == {"status": "ok"}
    for url, code in (("/health/ready", "not_ready"), ("/repository/metadata/timestamp.json", "database_down")):
        answer = client.get(url)
        assert (answer.status_code, answer.json["code"], answer.headers["Retry-After"]) == (503, code, "5")
        assert str(port) not in answer.text
    database.dispose()


def test_whatever_a_statement_raises_no_pooled_connection_stays_in_autocommit(postgres: EmbeddedPostgres) -> None:
    """A lone surrogate is refused by the codec, which is no error of the driver."""
    database = Database(postgres.app_url, pool_size=1)
    statement = "SELECT %(word)s::text AS word"
    for word in ("fine", "\ud800", "fine again"):
        if word.isprintable():
            assert database.call(statement, {"word": word}) == {"word": word}
        else:
            with pytest.raises(UnicodeEncodeError):
                database.call(statement, {"word": word})
        lent = database.engine.raw_connection()
        assert lent.driver_connection is not None
        assert not lent.driver_connection.autocommit, word
        lent.close()
    database.dispose()


@pytest.mark.usefixtures("readiness_afresh")
def test_a_database_that_goes_away_and_comes_back(tmp_path: Path, server_config: ServerConfig) -> None:
    load_or_create(server_config.online_key_path)
    with EmbeddedPostgres(tmp_path / "pg") as postgres:
        migrate(postgres.owner_url, app_role="stella_app")
        database = Database(postgres.app_url)
        client = create_app(server_config, database).test_client()
        assert client.get("/health/ready").status_code == 200
        assert postgres._process is not None
        postgres._process.kill()
        postgres._process.wait()
        assert client.get("/health/ready").status_code == 503
        postgres.restart()
        assert client.get("/health/ready").status_code == 200
        database.dispose()


def test_a_bug_in_a_statement_is_500_and_says_nothing(app: Flask) -> None:
    def view() -> str:
        with session_scope() as session:
            session.execute(text("SELECT * FROM secret_table"))
        return ""

    app.add_url_rule("/api/bug", view_func=view)
    answer = app.test_client().get("/api/bug")
    assert (answer.status_code, answer.json["code"]) == (500, "internal_error")
    assert "secret_table" not in answer.text


def test_a_database_whose_disk_is_full(app: Flask) -> None:
    def view() -> str:
        with session_scope() as session:
            session.execute(text("DO $$ BEGIN RAISE EXCEPTION 'full' USING ERRCODE = '53100'; END $$"))
        return ""

    app.add_url_rule("/api/full", view_func=view)
    answer = app.test_client().get("/api/full")
    assert (answer.status_code, answer.json["code"], answer.headers["Retry-After"]) == (507, "disk_full", "60")


@pytest.mark.parametrize(("number", "status"), [(errno.ENOSPC, 507), (errno.EIO, 500)])
def test_a_temporary_folder_that_is_full(
    number: int, status: int, client: FlaskClient, auth: Callable[..., dict[str, str]]
) -> None:
    """Where the files of a publication wait until they are verified."""
    sent = {"targets/a/b/c.bundle": (io.BytesIO(b"x" * 2000), "c.bundle")}
    with mock.patch("flask.Request._get_file_stream", side_effect=OSError(number, "no")):
        answer = client.post("/api/publish", data=sent, headers=auth("pub"))
    assert (answer.status_code, answer.content_type) == (status, "application/problem+json")


def test_conflicts_are_tried_again(database: Database) -> None:
    tries = []

    def work(session: Session) -> int:
        tries.append(1)
        if len(tries) < 3:
            session.execute(text("DO $$ BEGIN RAISE EXCEPTION 'again' USING ERRCODE = '40001'; END $$"))
        return len(tries)

    assert database.run(work) == 3


def test_named_locks(database: Database) -> None:
    with database.session() as first, database.session() as second:
        lock_for_transaction(first, "a")
        assert not try_lock_for_transaction(second, "a")
        assert try_lock_for_transaction(second, "b")


@pytest.mark.parametrize("url", ["sqlite:///x", "mysql://x/y", "x", ""])
def test_only_postgres(url: str) -> None:
    with pytest.raises(InputError, match="only Postgres"):
        sqlalchemy_url(url)


def test_models_and_migration_agree(owner_database: Database) -> None:
    """What the migration made is what the models say, down to types, indexes and constraints."""
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    rooms.load_models()

    def ours(_object: object, name: str | None, kind: str, reflected: bool, _other: object) -> bool:
        return not (reflected and kind == "table" and (name or "").rpartition("_")[2].isdigit())

    with owner_database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "include_object": ours})
        differences = compare_metadata(context, Base.metadata)
    rooms_of_this_half = ("access_", "operators", "login_", "audit_", "tuf_", "bundles", "channels")
    assert [d for d in differences if any(name in repr(d) for name in rooms_of_this_half)] == []

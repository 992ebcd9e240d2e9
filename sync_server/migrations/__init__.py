"""Bring a database to the newest schema, as the owner of the tables, one process at a time.

Old servers keep running while a new one migrates: a migration adds, and what it makes useless is dropped by a later
one. Each is a transaction of its own, so that its locks end with it, and it waits for none of them longer than
``LOCK_SECONDS``: whoever comes after a waiting lock waits as well. The schema's first version is what the rooms'
``ddl`` modules hold; they are frozen once released.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.exc import DBAPIError

from edge_runtime.errors import StorageError
from sync_server.db import is_away, sqlalchemy_url

log = logging.getLogger(__name__)

LOCK_SECONDS = 5.0
# How often a migration tries, and how long it lets the others work in between.
_ATTEMPTS = 5
_PAUSE_SECONDS = 2.0
_LOCK_NOT_AVAILABLE = "55P03"

# Of the session, since it spans the migrations' transactions; it ends with the connection.
_LOCK = "SELECT pg_advisory_lock(hashtextextended('stella:migrate', 0))"
# What the server may do with what the owner made. Nothing of the audit trail can be changed or deleted by it.
_GRANTS = (
    "GRANT USAGE ON SCHEMA public TO {role}",
    "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role}",
    "GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA public TO {role}",
    "GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA public TO {role}",
    "ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO {role}",
    "ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT USAGE, SELECT ON SEQUENCES TO {role}",
    "REVOKE UPDATE, DELETE ON audit_entries FROM {role}",
    "REVOKE INSERT, UPDATE, DELETE ON alembic_version FROM {role}",
)


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    return config


def head() -> str:
    """Return the version of the schema that this program makes."""
    return ScriptDirectory.from_config(_config()).get_current_head() or ""


def migrate(owner_url: str, *, app_role: str | None) -> str:
    """Run every migration that is missing, each in a transaction of its own, and give the app role its rights.

    Processes that start together wait for each other; the later ones find nothing left to do. Where one fails, those
    before it stay and it has changed nothing: the next call goes on there.

    Args:
        owner_url: Address of the database as the role that owns the tables.
        app_role: The role of the running server; None when it is the owner itself.

    Returns:
        The version that the schema has now.

    Raises:
        StorageError: The database cannot be reached, is newer than this program, refuses, or others hold for too long
            what a migration needs.
    """
    engine = create_engine(sqlalchemy_url(owner_url), connect_args={"connect_timeout": 10})
    try:
        with engine.connect() as connection:
            connection.execute(text(_LOCK))
            # After it: the wait for another process that migrates has no bound.
            connection.execute(text(f"SET lock_timeout = {round(LOCK_SECONDS * 1000)}"))
            connection.commit()
            version = _upgrade_patiently(connection, app_role)
            if app_role is not None:
                _grant(connection, app_role)
                connection.commit()
        return version
    except DBAPIError as error:
        raise _refusal(error) from error
    finally:
        engine.dispose()


def _upgrade_patiently(connection: Connection, app_role: str | None) -> str:
    """Upgrade, again after a pause where others hold a lock: they work on meanwhile instead of queueing behind."""
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            return _upgrade(connection, app_role)
        except DBAPIError as error:
            connection.rollback()
            if attempt == _ATTEMPTS or _state(error) != _LOCK_NOT_AVAILABLE:
                raise
            log.warning("a migration waits for a lock that others hold; try %d of %d follows", attempt + 1, _ATTEMPTS)
            time.sleep(_PAUSE_SECONDS)
    raise AssertionError("unreachable")


def _state(error: DBAPIError) -> str | None:
    state: str | None = getattr(error.orig, "sqlstate", None)
    return state


def _refusal(error: DBAPIError) -> StorageError:
    reason = str(error.orig).strip().splitlines()[0]
    if _state(error) == _LOCK_NOT_AVAILABLE:
        return StorageError(
            f"A migration needs a table that others held through {_ATTEMPTS} tries of {LOCK_SECONDS:g} seconds; it"
            " changed nothing, and those before it stay.",
            advice="End long transactions (pg_stat_activity shows them), then run: sync-server migrate",
        )
    if is_away(error):
        return StorageError(
            f"The database cannot be reached for the migration: {reason}.",
            advice="Start it, and check the address and password of its owner role.",
        )
    return StorageError(
        f"A migration failed and changed nothing, those before it stay: {reason}.",
        advice="Check that the role owns the tables.",
    )


def _upgrade(connection: Connection, app_role: str | None) -> str:
    """Run what is missing on a connection without an open transaction, and leave it so."""

    def after_each(**_told: object) -> None:
        if app_role is not None:
            _grant(connection, app_role)

    config = _config()
    scripts = ScriptDirectory.from_config(config)
    head = scripts.get_current_head() or ""
    present = MigrationContext.configure(connection).get_current_revision()
    connection.commit()  # Alembic makes transactions of its own only where none is open
    if present is not None and present not in {script.revision for script in scripts.walk_revisions()}:
        raise StorageError(
            f"The database has schema {present}, which this program does not know.",
            advice="Start the newer program that made it.",
        )
    config.attributes["connection"] = connection
    config.attributes["after_each"] = after_each
    command.upgrade(config, "head")
    connection.commit()
    return head


def _grant(connection: Connection, app_role: str) -> None:
    role = connection.dialect.identifier_preparer.quote_identifier(app_role)
    for statement in _GRANTS:
        connection.execute(text(statement.format(role=role)))

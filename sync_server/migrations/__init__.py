"""Bring a database to the newest schema, as the owner of the tables, one process at a time.

Old servers keep running while a new one migrates: a migration adds, and what it makes useless is dropped by a later
one. The schema's first version is what the rooms' ``ddl`` modules hold; they are frozen once released.
"""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.exc import DBAPIError

from edge_runtime.errors import StorageError
from sync_server.db import is_away, sqlalchemy_url

_LOCK = "SELECT pg_advisory_xact_lock(hashtextextended('stella:migrate', 0))"
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
    """Run every migration that is missing, in one transaction, and give the app role its rights.

    Processes that start together wait for each other; the later ones find nothing left to do.

    Args:
        owner_url: Address of the database as the role that owns the tables.
        app_role: The role of the running server; None when it is the owner itself.

    Returns:
        The version that the schema has now.

    Raises:
        StorageError: The database cannot be reached, is newer than this program, or refuses.
    """
    engine = create_engine(sqlalchemy_url(owner_url), connect_args={"connect_timeout": 10})
    try:
        with engine.begin() as connection:
            connection.execute(text(_LOCK))
            version = _upgrade(connection)
            if app_role is not None:
                _grant(connection, app_role)
        return version
    except DBAPIError as error:
        reason = str(error.orig).strip().splitlines()[0]
        if is_away(error):
            raise StorageError(
                f"The database cannot be reached for the migration: {reason}.",
                advice="Start it, and check the address and password of its owner role.",
            ) from error
        raise StorageError(
            f"The migration failed and changed nothing: {reason}.", advice="Check that the role owns the tables."
        ) from error
    finally:
        engine.dispose()


def _upgrade(connection: Connection) -> str:
    config = _config()
    scripts = ScriptDirectory.from_config(config)
    head = scripts.get_current_head() or ""
    present = MigrationContext.configure(connection).get_current_revision()
    if present is not None and present not in {script.revision for script in scripts.walk_revisions()}:
        raise StorageError(
            f"The database has schema {present}, which this program does not know.",
            advice="Start the newer program that made it.",
        )
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
    return head


def _grant(connection: Connection, app_role: str) -> None:
    role = connection.dialect.identifier_preparer.quote_identifier(app_role)
    for statement in _GRANTS:
        connection.execute(text(statement.format(role=role)))

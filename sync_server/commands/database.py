"""``migrate``, and how commands reach the database: a named one, a running server's, or one started for the moment."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edge_runtime.errors import StorageError
from sync_server.options import server_options, show

if TYPE_CHECKING:
    from sync_server.config import ServerConfig
    from sync_server.db import Database
    from sync_server.embedded_postgres import EmbeddedPostgres

log = logging.getLogger(__name__)

# A first start (initdb, roles, migrations) takes two to five seconds on a small machine.
_PATIENCE_SECONDS = 30.0


def migrate_named(config: ServerConfig) -> str:
    """Migrate the database that ``DATABASE_URL`` names, and return its schema's version.

    Raises:
        StorageError: It cannot be reached, or the role may not.
    """
    from sqlalchemy.engine import make_url

    from sync_server.db import sqlalchemy_url
    from sync_server.migrations import migrate as run_migrations

    url = str(config.database_url)
    if config.database_owner_url is None:
        log.warning(
            "the server uses the role that owns its tables; docs/database.md names the two roles that are safer"
        )
        return run_migrations(url, app_role=None)
    return run_migrations(config.database_owner_url, app_role=make_url(sqlalchemy_url(url)).username)


def _reach(folder: Path) -> tuple[str, EmbeddedPostgres | None]:
    """Return the app's address of the embedded database, and the database itself when this process had to start it.

    A server that is just starting, or another command, is waited for: `sync-server run &` and the next line of a
    script begin at the same moment.
    """
    from sync_server.embedded_postgres import EmbeddedPostgres
    from sync_server.postgres_folder import InUseError, running_urls

    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            if (running := running_urls(folder)) is None:
                postgres = EmbeddedPostgres(folder)
                postgres.start()
                return postgres.app_url, postgres
            if _is_migrated(running[0]) or time.monotonic() > deadline:
                return running[0], None
        except InUseError:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.2)


def _is_migrated(url: str) -> bool:
    """Say whether the server that runs the database has migrated it as far as this program knows."""
    from sqlalchemy import create_engine, text
    from sqlalchemy.exc import DBAPIError

    from sync_server.migrations import head

    engine = create_engine(url)
    try:
        with engine.connect() as connection:
            version = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    except DBAPIError:  # not there yet, or not yet for this role
        return False
    finally:
        engine.dispose()
    return version is not None and str(version) >= head()


@contextmanager
def open_database(config: ServerConfig) -> Iterator[Database]:
    """Open the database for a command, starting the embedded one for its time when no server runs.

    Raises:
        StorageError: The database cannot be started or reached.
    """
    from sqlalchemy.exc import DBAPIError

    from sync_server.db import Database, is_away
    from sync_server.migrations import migrate as run_migrations

    url, postgres = (config.database_url, None) if config.database_url else _reach(config.data_dir / "postgres")
    try:
        if postgres is not None:
            run_migrations(postgres.owner_url, app_role="stella_app")
        database = Database(url, pool_size=1)
        try:
            yield database
        except DBAPIError as error:
            if not is_away(error):
                raise
            raise StorageError(
                f"The database cannot be reached: {str(error.orig).strip().splitlines()[0]}.",
                advice="Start it, or correct DATABASE_URL.",
            ) from error
        finally:
            database.dispose()
    finally:
        if postgres is not None:
            postgres.stop()


@click.command()
@server_options
def migrate(config: ServerConfig, as_json: bool) -> None:
    """Bring the database to the newest schema; `run` does the same when it starts."""
    from sync_server.embedded_postgres import EmbeddedPostgres
    from sync_server.migrations import migrate as run_migrations
    from sync_server.postgres_folder import running_urls

    folder = config.data_dir / "postgres"
    if config.database_url:
        version = migrate_named(config)
    elif running := running_urls(folder):
        version = run_migrations(running[1], app_role="stella_app")
    else:
        with EmbeddedPostgres(folder) as postgres:
            version = run_migrations(postgres.owner_url, app_role="stella_app")
    show({"schema": version}, f"The database has schema {version}.", as_json=as_json)

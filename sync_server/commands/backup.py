"""``backup``, ``restore``, ``sign``: what belongs together, taken from a running server and brought back.

A backup is a folder: ``database.dump`` (pg_dump's own format), ``keys`` and ``blobs``. The database is dumped first and
the blobs are copied after it: blobs are only ever added, so every one that the dump lists is there. Bundles in S3 stay
there, under the bucket's own versions.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edge_runtime.errors import InputError, StorageError
from sync_server.options import server_options, show

if TYPE_CHECKING:
    from sync_server.config import ServerConfig
    from sync_server.db import Database

DUMP = "database.dump"
_FOLDERS = ("keys", "blobs")


@click.command()
@server_options
@click.argument("folder", type=click.Path(path_type=Path))
def backup(config: ServerConfig, as_json: bool, folder: Path) -> None:
    """Write a backup into FOLDER, which must not exist; the server may run meanwhile."""
    making = folder.with_name(f"{folder.name}.part")
    if folder.exists() or making.exists():
        raise InputError(f"{folder} or {making} exists already.", advice="Name a new folder for each backup.")
    try:
        making.mkdir(parents=True, mode=0o700)
        with _owner(config) as url:
            _run(config, "pg_dump", url, "--format=custom", "--no-owner", "--no-privileges", f"--file={making / DUMP}")
        for name in _FOLDERS:
            if (config.data_dir / name).is_dir():
                shutil.copytree(config.data_dir / name, making / name)
        making.rename(folder)  # a backup that was cut off never looks like a whole one
    except OSError as error:
        raise StorageError(
            f"The backup could not be written: {error}.", advice=f"Make room, remove {making}."
        ) from error
    show({"backup": str(folder)}, f"Backup written to {folder}. It holds private keys: keep it as you keep those.",
         as_json=as_json)  # fmt: skip


@click.command()
@server_options
@click.argument("folder", type=click.Path(path_type=Path))
def restore(config: ServerConfig, as_json: bool, folder: Path) -> None:
    """Bring a backup back into an empty data folder and an empty database; the server must not run."""
    from sync_server.commands.database import open_database

    if not (folder / DUMP).is_file():
        raise InputError(f"{folder} is no backup: it holds no {DUMP}.", advice="Name a folder that backup wrote.")
    there = [name for name in _FOLDERS if (config.data_dir / name).exists()]
    if there or (config.database_url is None and (config.data_dir / "postgres").exists()):
        raise InputError(
            f"The data folder {config.data_dir} is not empty.", advice="Move it away first; nothing is overwritten."
        )
    config.data_dir.mkdir(parents=True, exist_ok=True)
    with _owner(config) as url:
        _run(config, "pg_restore", url, "--no-owner", "--no-privileges", "--exit-on-error", "--single-transaction",
             str(folder / DUMP))  # fmt: skip
    for name in _FOLDERS:
        if (folder / name).is_dir():
            shutil.copytree(folder / name, config.data_dir / name)
    if config.database_url:
        from sync_server.commands.database import migrate_named

        migrate_named(config)
    with open_database(config) as database:  # migrates the embedded one, and gives the app's role its rights
        signed = _sign(config, database)
    text = f"Restored from {folder}." + (" Snapshot and timestamp are signed anew." if signed else "")
    show({"restored": str(folder), "signed": signed}, text, as_json=as_json)


@click.command()
@server_options
def sign(config: ServerConfig, as_json: bool) -> None:
    """Sign snapshot and timestamp anew, as after a database was brought back by other means than restore."""
    from sync_server.commands.database import open_database

    with open_database(config) as database:
        if not _sign(config, database):
            raise InputError("Nothing was published yet, so there is nothing to sign.", advice="Run: exporter publish")
    show({"signed": True}, "Snapshot and timestamp are signed anew.", as_json=as_json)


def _sign(config: ServerConfig, database: Database) -> bool:
    """Sign anew, so that devices that saw newer metadata than the backup's do not take it for an attack."""
    from sync_server.db import utc_now
    from sync_server.repository.online_key import load
    from sync_server.repository.signing import sign_anew

    with database.session() as session:
        return sign_anew(session, load(config.online_key_path), utc_now())


@contextmanager
def _owner(config: ServerConfig) -> Iterator[str]:
    """The owner's address of the database: a named one, a running server's, or one started for the moment."""
    from sync_server.embedded_postgres import EmbeddedPostgres
    from sync_server.postgres_folder import running_urls

    folder = config.data_dir / "postgres"
    if config.database_url:
        yield config.database_owner_url or config.database_url
    elif running := running_urls(folder):
        yield running[1]
    else:
        with EmbeddedPostgres(folder) as postgres:
            yield postgres.owner_url


def _run(config: ServerConfig, program: str, url: str, *words: str) -> None:
    """Run one of Postgres' own programs; the password travels in the environment, which other users cannot see."""
    from sqlalchemy.engine import make_url

    from sync_server.db import sqlalchemy_url
    from sync_server.postgres_process import binaries

    place = make_url(sqlalchemy_url(url))
    host = str(place.query.get("host", place.host or ""))
    target = {"PGHOST": host, "PGPORT": str(place.port or 5432), "PGUSER": place.username, "PGDATABASE": place.database}
    environ = {**os.environ, **{name: value for name, value in target.items() if value}}
    if place.password:
        environ["PGPASSWORD"] = str(place.password)
    # The embedded database's programs are of its own version; a named database wants those of its version on PATH.
    command = str(binaries() / program) if config.database_url is None else program
    words = (*words, f"--dbname={place.database}") if program == "pg_restore" else words
    try:
        done = subprocess.run([command, *words], env=environ, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise InputError(
            f"{program} is not installed here.", advice="Install Postgres' client of at least the database's version."
        ) from error
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[0]
        raise StorageError(f"{program} failed: {reason}.", advice="Check the address, the versions and the rights.")

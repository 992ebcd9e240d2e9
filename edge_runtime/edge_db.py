"""``edge.db``: everything a device must not lose, in one SQLite file.

Recent readings, the marks that make feeding a file again safe, the open incident and summaries, the outbox and the
dead letters live in one database so that a reading and all that it causes are written in one transaction::

    with EdgeDatabase(home / "edge.db") as database, database.transaction() as sql:
        sql.execute(...)        # all of it, or nothing

The file survives SIGKILL and power loss: WAL, ``synchronous=FULL``, one writer at a time (``BEGIN IMMEDIATE``).
Every SQLite error leaves this module as a ``StorageError`` that says what to do. One object serves one thread.
"""

from __future__ import annotations

import secrets
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from edge_runtime.edge_schema import APPLICATION_ID, DDL, SCHEMA_VERSION
from edge_runtime.errors import StorageError

# An uploader and a scorer share the file and hold it for milliseconds; more than this means a stuck process.
BUSY_TIMEOUT_MS = 10_000
# The write-ahead log is cut back to this after a checkpoint, so that one burst does not keep its disk space.
WAL_LIMIT_BYTES = 4 * 1024 * 1024
# 1 MiB of page cache: the working set is the newest window and the tail of the outbox (device target: < 100 MB).
CACHE_KIB = 1024


class EdgeDatabase:
    """One connection to a device's ``edge.db``, made when the file does not exist.

    Args:
        path: The database file; its folder must exist.
        create: Make the file when it is missing.

    Raises:
        StorageError: The file cannot be opened, is damaged, is not a device's database, or is of a newer format.
    """

    def __init__(self, path: Path, *, create: bool = True) -> None:
        self.path = path
        if not create and not path.is_file():
            raise StorageError(
                f"There is no device database at {path}.", advice="Score something first.", path=str(path)
            )
        with storage_errors(path):
            _reserve(path)
            self._connection = sqlite3.connect(path, isolation_level=None, timeout=BUSY_TIMEOUT_MS / 1000)
        try:
            with storage_errors(path):
                self._prepare()
        except BaseException:
            self._connection.close()
            raise

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Open the one kind of transaction there is: it holds the write lock from its start.

        Yields:
            The connection, for statements of this transaction only.

        Raises:
            StorageError: The disk is full, the file is locked, read-only or damaged. Nothing was changed.
            RuntimeError: A transaction of this object is open already.
        """
        if self._is_open():
            raise RuntimeError("edge.db: transactions do not nest")
        with storage_errors(self.path):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                # SQLite has rolled back by itself after some errors, a full disk among them.
                if self._is_open():
                    self._connection.execute("ROLLBACK")
                raise

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Open a consistent view for several queries, without the write lock.

        Yields:
            The connection, for queries only.

        Raises:
            StorageError: The file cannot be read.
        """
        with storage_errors(self.path):
            self._connection.execute("BEGIN DEFERRED")
            try:
                yield self._connection
            finally:
                if self._is_open():
                    self._connection.execute("ROLLBACK")

    def counters(self) -> dict[str, int]:
        """Return every counter of the device by name.

        Raises:
            StorageError: The file cannot be read.
        """
        with self.reading() as sql:
            return dict(sql.execute("SELECT name, value FROM counter ORDER BY name"))

    def close(self) -> None:
        """Close the connection; the object is of no use afterwards."""
        self._connection.close()

    def __enter__(self) -> EdgeDatabase:
        """Return the database itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connection."""
        self.close()

    def _is_open(self) -> bool:
        return self._connection.in_transaction

    def _prepare(self) -> None:
        sql = self._connection
        # The log mode is part of the file; the other settings belong to this connection.
        self._enter_wal()
        sql.execute("PRAGMA synchronous = FULL")
        sql.execute(f"PRAGMA journal_size_limit = {WAL_LIMIT_BYTES}")
        sql.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        if _version(sql) == 0:
            self._create()
        version = _version(sql)
        if version != SCHEMA_VERSION:
            raise StorageError(
                f"The device database {self.path} has format {version}, this program knows format {SCHEMA_VERSION}.",
                advice="Use the edge-runtime release that wrote it, or a newer one.",
                path=str(self.path),
                expected=SCHEMA_VERSION,
                got=version,
            )

    def _enter_wal(self) -> None:
        # Two processes that open a new file together: SQLite says "locked" at once here, without its busy timeout.
        until = time.monotonic() + BUSY_TIMEOUT_MS / 1000
        while True:
            try:
                self._connection.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                    raise
                time.sleep(0.01)

    def _create(self) -> None:
        with self.transaction() as sql:
            if _version(sql) == SCHEMA_VERSION:  # another process was faster
                return
            if sql.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
                raise StorageError(
                    f"{self.path} is a SQLite database, but not a device's.",
                    advice="Choose another home folder.",
                    path=str(self.path),
                )
            for statement in DDL:
                sql.execute(statement)
            sql.execute("INSERT INTO scoring_state (only_row, revision) VALUES (1, 0)")
            sql.execute("INSERT INTO stream VALUES (1, ?, 1, 0, 0)", (new_stream_id(),))
            sql.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            sql.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def new_stream_id() -> str:
    """Return a random 128-bit stream id in 32 hex digits."""
    return secrets.token_hex(16)


def count(sql: sqlite3.Connection, amounts: Mapping[str, int]) -> None:
    """Add to counters, inside the caller's transaction.

    Args:
        sql: The connection of an open transaction.
        amounts: What to add, by counter name; zeros are left out.
    """
    sql.executemany(
        "INSERT INTO counter (name, value) VALUES (?, ?) "
        "ON CONFLICT (name) DO UPDATE SET value = value + excluded.value",
        [(name, amount) for name, amount in amounts.items() if amount],
    )


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn what SQLite and the disk raise into ``StorageError``.

    Raises:
        StorageError: For every ``sqlite3.Error`` and ``OSError`` inside.
    """
    try:
        yield
    except sqlite3.Error as error:
        raise _translated(error, path) from error
    except OSError as error:
        raise StorageError(
            f"The device database {path} cannot be reached: {error.strerror or error}.",
            advice="Check that the folder exists and may be written.",
            path=str(path),
        ) from error


_ASIDE = "Move the file away; the device starts with a new stream."
_ALLOW = "Let this user write the file and its folder."
# Primary result codes (sqlite.org/rescode.html) that a person can do something about.
_ADVICE: dict[int, tuple[str, str, str]] = {
    sqlite3.SQLITE_FULL: ("disk_full", "the disk is full", "Free some space and feed the readings again."),
    sqlite3.SQLITE_BUSY: ("locked", "another process holds it", "Stop the other edge-runtime process and try again."),
    sqlite3.SQLITE_READONLY: ("read_only", "it is read-only", _ALLOW),
    sqlite3.SQLITE_PERM: ("read_only", "access is not allowed", _ALLOW),
    sqlite3.SQLITE_CANTOPEN: ("cannot_open", "it cannot be opened", _ALLOW),
    sqlite3.SQLITE_CORRUPT: ("damaged", "it is damaged", _ASIDE),
    sqlite3.SQLITE_NOTADB: ("damaged", "it is not a database", _ASIDE),
    sqlite3.SQLITE_IOERR: ("disk_error", "the disk reports an error", "Check the disk and the space left on it."),
}


def _translated(error: sqlite3.Error, path: Path) -> StorageError:
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    reason, happened, advice = _ADVICE.get(code, ("database", str(error), "Run `edge-runtime status` to see more."))
    return StorageError(
        f"The device database {path} cannot be used: {happened}.", advice=advice, path=str(path), reason=reason
    )


def _version(sql: sqlite3.Connection) -> int:
    return int(sql.execute("PRAGMA user_version").fetchone()[0])


def _reserve(path: Path) -> None:
    # Telemetry says what a person does with a device: nobody else on the machine reads it.
    if not path.exists():
        path.touch(mode=0o600)

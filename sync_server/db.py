"""The database as the rest of the server sees it: one declarative base, one engine, one way to open a transaction.

**How to use it.** ``create_app`` puts one :class:`Database` into ``app.extensions["database"]``. Code inside a request
writes ``with session_scope() as session:``; one such block is one transaction, committed when the block ends and
rolled back when it raises. Code outside a request (commands, threads, tests) holds the Database itself and writes
``with database.session() as session:``. Services take the session as their first argument and never commit.
No session outlives its block, so that none repeats what another request has read.

**Retries.** A transaction that Postgres ends to resolve a conflict (serialization 40001, deadlock 40P01) is safe to
repeat as a whole, which is what :meth:`Database.run` does, three times. A lost connection is not repeated: a commit
whose answer was lost may have happened. Requests then answer 503 with Retry-After, and every write of this API is
safe to send again.

Columns of time are ``TIMESTAMPTZ`` for the server's own clock; times that devices claim are ``BIGINT`` milliseconds.
"""

from __future__ import annotations

import select
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, ClassVar, LiteralString, TypeVar, cast

import psycopg
from flask import current_app
from psycopg.rows import dict_row
from sqlalchemy import BigInteger, DateTime, Engine, LargeBinary, MetaData, Text, create_engine, event, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.exc import DBAPIError, DisconnectionError, OperationalError
from sqlalchemy.orm import DeclarativeBase, Session, sessionmaker

from edge_runtime.errors import InputError

Result = TypeVar("Result")

_RETRIED = {"40001", "40P01"}  # serialization_failure, deadlock_detected (PostgreSQL appendix A)
_ATTEMPTS = 3
_CONNECT_SECONDS = 5


class Base(DeclarativeBase):
    """Base of every table; rooms declare theirs in their own ``models`` module.

    ``Mapped[str]`` is ``TEXT``, ``Mapped[int]`` is ``BIGINT``, ``Mapped[bytes]`` is ``BYTEA``, ``Mapped[datetime]`` is
    ``TIMESTAMPTZ`` and ``Mapped[dict[str, Any]]`` or ``Mapped[list[Any]]`` is ``JSONB`` unless a column says otherwise.
    """

    # Fixed names, so that the migration and the models agree on every constraint.
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        str: Text(),
        int: BigInteger(),
        bytes: LargeBinary(),
        datetime: DateTime(timezone=True),
        dict[str, Any]: JSONB(),
        list[Any]: JSONB(),
        list[str]: JSONB(),
    }


def utc_now() -> datetime:
    """The server's clock."""
    return datetime.now(UTC)


def sqlalchemy_url(url: str) -> str:
    """Return a Postgres address in the form that SQLAlchemy wants, with psycopg 3 as driver.

    Raises:
        InputError: It is no Postgres address; no other database is supported.
    """
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in ("postgres", "postgresql", "postgresql+psycopg"):
        raise InputError(
            f"The database address starts with {scheme or url!r}, but only Postgres is supported.",
            advice="Write it as postgresql://user:password@host/database.",
        )
    return f"postgresql+psycopg://{rest}"


class Database:
    """An engine and its sessions.

    Args:
        url: Postgres address, see :func:`sqlalchemy_url`.
        pool_size: Connections kept; as many as the process has threads.
        statement_timeout_ms: Longest statement, 0 for no bound.
    """

    def __init__(self, url: str, *, pool_size: int = 5, statement_timeout_ms: int = 30_000) -> None:
        self.engine: Engine = create_engine(
            sqlalchemy_url(url),
            pool_size=pool_size,
            max_overflow=2,
            pool_timeout=10,
            connect_args={
                "connect_timeout": _CONNECT_SECONDS,
                "options": f"-c statement_timeout={statement_timeout_ms} -c timezone=UTC",
                "application_name": "stella-sync-server",
            },
        )
        event.listen(self.engine, "checkout", _check_alive)
        self._sessions = sessionmaker(self.engine, expire_on_commit=False)

    @contextmanager
    def session(self) -> Iterator[Session]:
        """Open a transaction: committed when the block ends, rolled back when it raises."""
        with self._sessions.begin() as session:
            yield session

    def run(self, work: Callable[[Session], Result]) -> Result:
        """Run ``work`` in a transaction, again when Postgres ended it to resolve a conflict.

        Args:
            work: Gets the session; must be safe to repeat, so it keeps its effects inside the database.

        Returns:
            What ``work`` returned in the attempt that was committed.

        Raises:
            OperationalError: The database is away, or three attempts met a conflict.
        """
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                with self.session() as session:
                    return work(session)
            except OperationalError as error:
                if attempt == _ATTEMPTS or getattr(error.orig, "sqlstate", None) not in _RETRIED:
                    raise
        raise AssertionError("unreachable")

    def call(self, statement: LiteralString, values: Mapping[str, Any]) -> dict[str, Any] | None:
        """Run one statement as a transaction of its own, for what happens thousands of times a second.

        It costs a tenth of a session's time: no BEGIN and COMMIT to send, nothing between us and the driver. Repeated
        like :meth:`run`.

        Args:
            statement: With psycopg's placeholders, ``%(name)s``.
            values: By name.

        Returns:
            The first row, or None.

        Raises:
            OperationalError: The database is away, or three attempts met a conflict.
        """
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                return self._call(statement, values)
            except psycopg.Error as error:
                if attempt == _ATTEMPTS or error.sqlstate not in _RETRIED:
                    raise DBAPIError.instance(statement, None, error, psycopg.Error) from error
        raise AssertionError("unreachable")

    def _call(self, statement: LiteralString, values: Mapping[str, Any]) -> dict[str, Any] | None:
        lent = self.engine.raw_connection()
        whole = False
        try:
            connection = cast("psycopg.Connection[Any]", lent.driver_connection)
            connection.autocommit = True
            with connection.cursor(row_factory=dict_row) as cursor:
                row = cursor.execute(statement, values).fetchone()
            connection.autocommit = False
            whole = True
            return row
        finally:
            # Whatever was raised: a connection in an unknown state, perhaps still in autocommit, is worth less than a
            # new one, and errors are rare.
            if not whole:
                lent.invalidate()
            lent.close()

    def dispose(self) -> None:
        """Close every pooled connection."""
        self.engine.dispose()


def _check_alive(connection: Any, _record: object, _proxy: object) -> None:
    """Refuse a pooled connection that the database has closed, so that its restart fails no request.

    Where nothing is asked nothing is heard: a socket that can be read holds the goodbye. It costs no round trip.
    """
    poll = select.poll()
    try:
        poll.register(connection.fileno(), select.POLLIN)
    except psycopg.OperationalError as error:
        raise DisconnectionError(str(error)) from error
    if poll.poll(0):
        raise DisconnectionError("the database has closed the connection")


def is_away(error: DBAPIError) -> bool:
    """Whether the error means that the database cannot be reached, rather than that a statement was wrong."""
    state = getattr(error.orig, "sqlstate", None) or ""
    # 08: connection; 53: out of resources; 57P0x: shutting down; 25006: read-only after a failover; none: no connection
    return (
        error.connection_invalidated
        or state[:2] in ("08", "53")
        or state.startswith("57P")
        or (isinstance(error, OperationalError) and state in ("", "25006"))
    )


def get_database() -> Database:
    """The database of the current app; needs an app context."""
    return cast("Database", current_app.extensions["database"])


@contextmanager
def session_scope() -> Iterator[Session]:
    """Open a transaction of the current app's database, see the module's first lines."""
    with get_database().session() as session:
        yield session


def lock_for_transaction(session: Session, name: str) -> None:
    """Wait for the advisory lock ``name`` and hold it until the transaction ends."""
    session.execute(text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))"), {"name": f"stella:{name}"})


def try_lock_for_transaction(session: Session, name: str) -> bool:
    """Take the advisory lock ``name`` until the transaction ends, or return False when another process has it."""
    statement = text("SELECT pg_try_advisory_xact_lock(hashtextextended(:name, 0))")
    return bool(session.execute(statement, {"name": f"stella:{name}"}).scalar_one())

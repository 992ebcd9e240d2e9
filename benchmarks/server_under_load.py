"""A real server for benchmarks: a Postgres of its own, ``sync-server run`` beside it, devices enrolled in bulk.

::

    with ServerUnderLoad(folder, workers=2, threads=8) as server:
        devices = server.enrol(1_000)
        server.cpu_seconds()          # {"server": ..., "postgres": ...}
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import subprocess
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, LiteralString

import psutil  # type: ignore[import-untyped]
import psycopg

from benchmarks.machine import REPOSITORY
from sync_server.access.tokens import digest_of
from sync_server.embedded_postgres import EmbeddedPostgres
from sync_server.migrations import migrate
from sync_server.postgres_folder import APP

_STOP_SECONDS = 30


class ServerUnderLoad:
    """One Postgres and one server in front of it, both processes of their own.

    Args:
        folder: Where everything lives.
        workers: The server's worker processes.
        threads: Threads of each.
        settings: Further settings of the server, by their names.
    """

    def __init__(self, folder: Path, *, workers: int, threads: int, settings: dict[str, object] | None = None) -> None:
        self._folder = folder
        self._arguments = ["--workers", str(workers), "--threads", str(threads)]
        self._settings = {f"SYNC_SERVER_{name.upper()}": str(value) for name, value in (settings or {}).items()}
        self._postgres = EmbeddedPostgres(folder / "postgres", connections=workers * (threads + 2) + 30)
        self._server: subprocess.Popen[str] | None = None
        self.port = 0

    @property
    def url(self) -> str:
        """The database's address, as the role of the running server."""
        return libpq_url(self._postgres.app_url)

    def __enter__(self) -> ServerUnderLoad:
        self._postgres.start()
        migrate(self._postgres.owner_url, app_role=APP)
        named = {"DATABASE_URL": self._postgres.app_url, "SYNC_SERVER_DATABASE_OWNER_URL": self._postgres.owner_url}
        command = [sys.executable, "-m", "sync_server", "run", "--data-dir", str(self._folder / "server"), "--json"]
        self._server = subprocess.Popen(
            [*command, "--port", "0", *self._arguments], cwd=REPOSITORY, env=os.environ | named | self._settings,
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self._server.stdout is not None
        self.port = int(json.loads(self._server.stdout.readline())["address"].rpartition(":")[2])
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is not None:
            self._server.terminate()
            self._server.wait(_STOP_SECONDS)
        self._postgres.stop()

    def enrol(self, count: int, *, cohorts: int = 4, model: str = "engine") -> list[list[str]]:
        """Put devices and their tokens into the database at once.

        Returns:
            ``[id, token, stream]`` of each.
        """
        now = datetime.now(UTC)
        devices = [
            [secrets.token_hex(16), f"st_dev_{secrets.token_urlsafe(32)}", secrets.token_hex(16)] for _ in range(count)
        ]
        with psycopg.connect(self.url) as connection, connection.cursor() as cursor:
            enrolment = _enrolment(cursor, model, count)
            _copy(
                cursor, "COPY devices (id, installation_id, enrolment_id, cohort, kind, model, channel, created_at,"
                " last_seen_at) FROM STDIN",
                (
                    (device, secrets.token_hex(16), enrolment, f"cohort {k % cohorts}", "edge", model, "stable", now,
                     now)
                    for k, (device, _, _) in enumerate(devices)
                ),
            )  # fmt: skip
            _copy(
                cursor, "COPY access_tokens (kind, digest, name, subject, created_at) FROM STDIN",
                (("dev", digest_of(token), f"device {device}", device, now) for device, token, _ in devices),
            )  # fmt: skip
        with psycopg.connect(libpq_url(self._postgres.owner_url), autocommit=True) as connection:
            connection.execute("ANALYZE devices, access_tokens")
        return devices

    def one(self, statement: LiteralString) -> tuple[Any, ...]:
        """Return the one row of a query."""
        with psycopg.connect(self.url) as connection:
            row = connection.execute(statement).fetchone()
        assert row is not None
        return row

    def cpu_seconds(self) -> dict[str, float]:
        """Return the processor seconds that the server and Postgres have used so far."""
        assert self._server is not None
        postmaster = self._postgres._process
        assert postmaster is not None
        return {"server": _cpu_seconds(self._server.pid), "postgres": _cpu_seconds(postmaster.pid)}

    def resident_bytes(self) -> dict[int, int]:
        """Return the resident memory of each of the server's processes, by process id."""
        assert self._server is not None
        root = psutil.Process(self._server.pid)
        return {process.pid: process.memory_info().rss for process in (root, *root.children(recursive=True))}


def libpq_url(url: str) -> str:
    """Return SQLAlchemy's address of a database in the form that psycopg takes."""
    return url.replace("postgresql+psycopg://", "postgresql://", 1)


def _enrolment(cursor: psycopg.Cursor[Any], model: str, uses: int) -> int:
    """Make an enrolment for the devices to belong to, and return its number."""
    cursor.execute(
        "INSERT INTO access_tokens (kind, digest, name, created_at) VALUES ('enr', %s, 'load', now()) RETURNING id",
        (secrets.token_bytes(32),),
    )
    row = cursor.fetchone()
    assert row is not None
    cursor.execute(
        "INSERT INTO enrolments (token_id, model, channel, uses_allowed, created_by)"
        " VALUES (%s, %s, 'stable', %s, 'benchmark')",
        (row[0], model, uses),
    )
    return int(row[0])


def _copy(cursor: psycopg.Cursor[Any], statement: LiteralString, rows: Iterable[tuple[Any, ...]]) -> None:
    with cursor.copy(statement) as sink:
        for row in rows:
            sink.write_row(row)


def _cpu_seconds(pid: int) -> float:
    """Return what a process, its living and its ended descendants used."""
    total = 0.0
    root = psutil.Process(pid)
    for process in (root, *root.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):
            total += sum(process.cpu_times()[:4])
    return total

"""The embedded Postgres: a real cluster, killed, restarted, locked, and kept to its folder."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import create_engine, text

from edge_runtime.errors import StorageError
from sync_server.db import Database
from sync_server.embedded_postgres import EmbeddedPostgres
from sync_server.postgres_folder import running_urls
from sync_server.postgres_process import Runner, is_postgres


def _psycopg(url: str) -> str:
    return url.replace("postgresql+psycopg", "postgresql")


def test_app_role_is_kept_small(postgres: EmbeddedPostgres) -> None:
    refused = (
        "CREATE TABLE mine (a int)",
        "CREATE SCHEMA mine",
        "CREATE TEMP TABLE mine (a int)",
        "COPY operators TO PROGRAM 'true'",
        "COPY operators FROM '/etc/passwd'",
        "SELECT pg_read_file('/etc/hostname')",
        "UPDATE audit_entries SET actor = 'nobody'",
        "DELETE FROM audit_entries",
        "DROP TABLE operators",
        "ALTER TABLE operators ADD COLUMN x int",
        "CREATE ROLE friend",
        "SET ROLE stella_owner",
        "SELECT lo_create(0)",
    )
    with psycopg.connect(_psycopg(postgres.app_url), autocommit=True) as connection:
        for statement in refused:
            with pytest.raises((psycopg.errors.InsufficientPrivilege, psycopg.errors.InvalidParameterValue)):
                connection.execute(statement)
        connection.execute(
            "INSERT INTO audit_entries (at, actor, action, subject, detail) VALUES (now(),'a','b','c','{}')"
        )


def test_passwords_are_needed_and_private(postgres: EmbeddedPostgres) -> None:
    secret = postgres.folder / "passwords.json"
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(host=str(postgres.cluster), user="stella_app", dbname="stella", password="guess")
    with psycopg.connect(_psycopg(postgres.app_url)) as connection:
        assert connection.execute("SHOW listen_addresses").fetchone() == ("",)
        assert connection.execute("SHOW data_checksums").fetchone() == ("on",)
    assert "trust" not in (postgres.cluster / "pg_hba.conf").read_text().split("# TYPE")[1]


def test_second_process_is_refused_and_finds_the_first(postgres: EmbeddedPostgres) -> None:
    with pytest.raises(StorageError, match="Another process already runs"):
        EmbeddedPostgres(postgres.folder).start()
    urls = running_urls(postgres.folder)
    assert urls == (postgres.app_url, postgres.owner_url)


_CHILD = """
import sys, time
from pathlib import Path
from sync_server.embedded_postgres import EmbeddedPostgres
with EmbeddedPostgres(Path(sys.argv[1])) as postgres:
    print(postgres._process.pid, flush=True)
    time.sleep(60)
"""


def test_kill_of_the_parent_stops_postgres_and_the_next_start_works(tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", _CHILD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout
    pid = int(child.stdout.readline())
    urls = running_urls(tmp_path)
    assert urls
    engine = create_engine(urls[1])
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE kept (a int)"))
        connection.execute(text("INSERT INTO kept VALUES (7)"))
    engine.dispose()
    child.kill()
    child.wait()
    child.stdout.close()
    # No waiting here: the next start has to cope with a postgres that is still going down.
    postgres = EmbeddedPostgres(tmp_path)
    with postgres:
        assert not is_postgres(pid)
        database = Database(postgres.owner_url)
        with database.session() as session:
            assert session.execute(text("SELECT a FROM kept")).scalar_one() == 7
        database.dispose()
    assert running_urls(tmp_path) is None
    assert not (tmp_path / "cluster" / "postmaster.pid").exists()
    # Passwords of another day: the same cluster, a file from an old backup.
    secret = tmp_path / "passwords.json"
    month_ago = time.time() - 30 * 86_400
    os.utime(secret, (month_ago, month_ago))
    with EmbeddedPostgres(tmp_path):
        pass  # age alone does not matter
    old = secret.read_text()
    secret.write_text(old.replace('"admin": "', '"admin": "x'))
    with pytest.raises(StorageError, match="do not open the database"):
        EmbeddedPostgres(tmp_path).start()
    secret.chmod(0o644)
    with pytest.raises(StorageError, match="can be read by other users"):
        EmbeddedPostgres(tmp_path).start()
    secret.unlink()
    with pytest.raises(StorageError, match="is missing"):
        EmbeddedPostgres(tmp_path).start()


def test_stale_pid_file_of_another_program(tmp_path: Path) -> None:
    """After a power loss the pid in the files may belong to anybody, or to a zombie that nobody reaps."""
    files = [tmp_path / "cluster" / name for name in ("postmaster.pid", ".s.PGSQL.5432.lock")]
    with EmbeddedPostgres(tmp_path):
        contents = [path.read_text().splitlines() for path in files]
    for path, lines in zip(files, contents, strict=True):
        path.write_text("\n".join([str(os.getpid()), *lines[1:]]) + "\n")
    with EmbeddedPostgres(tmp_path) as postgres:
        assert postgres.poll() is None


def test_long_path_and_postgres_that_dies(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 60) / ("e" * 60)
    deep.mkdir(parents=True)
    with EmbeddedPostgres(deep) as postgres:
        database = Database(postgres.app_url)
        with database.session() as session:
            session.execute(text("SELECT 1"))
        assert postgres._process
        sockets = postgres._sockets
        os.kill(postgres._process.pid, signal.SIGKILL)
        while postgres.poll() is None:
            time.sleep(0.01)
        postgres.restart()
        with database.session() as session:  # pre-ping finds the new server
            session.execute(text("SELECT 1"))
        database.dispose()
    assert sockets is not None
    assert not sockets.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has to step down to nobody")
def test_fallback_for_machines_without_namespaces(tmp_path: Path) -> None:
    folder = Path("/tmp") / f"stella-nobody-{os.getpid()}"
    runner = Runner.choose(namespaces=False, capabilities=False)
    assert runner.user == "nobody"
    before = stat.S_IMODE(Path("/tmp").stat().st_mode)
    try:
        with EmbeddedPostgres(folder, runner=runner) as postgres:
            assert (postgres.cluster / "PG_VERSION").stat().st_uid != 0
            assert stat.S_IMODE((folder / "passwords.json").stat().st_mode) == 0o600
    finally:
        subprocess.run(["rm", "-rf", str(folder)], check=True)
    assert stat.S_IMODE(Path("/tmp").stat().st_mode) == before
    locked = tmp_path / "private"
    locked.mkdir(mode=0o700)
    with pytest.raises(StorageError) as caught:
        EmbeddedPostgres(locked / "pg", runner=runner).start()
    assert "nobody" in caught.value.advice


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has to step down to nobody")
def test_fallback_passes_closed_folders_where_it_may(tmp_path: Path) -> None:
    """A container as root, namespaces forbidden, the checkout in root's closed home: the database still starts."""
    runner = Runner.choose(namespaces=False)
    assert runner.user == "nobody"
    locked = tmp_path / "private"
    locked.mkdir(mode=0o700)
    if not runner.prefix:
        pytest.skip("this container leaves root no capability to pass closed folders")
    with EmbeddedPostgres(locked / "pg", runner=runner) as postgres:
        assert postgres._process is not None
        assert Path(f"/proc/{postgres._process.pid}").stat().st_uid != 0
    with EmbeddedPostgres(locked / "pg", runner=runner):
        assert stat.S_IMODE(locked.stat().st_mode) == 0o700


def test_a_program_that_cannot_be_started(tmp_path: Path) -> None:
    runner = Runner(prefix=(str(tmp_path / "none"),))
    with pytest.raises(StorageError, match="cannot be started") as caught:
        EmbeddedPostgres(tmp_path / "pg", runner=runner).start()
    assert "DATABASE_URL" in caught.value.advice

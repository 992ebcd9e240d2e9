"""The command line: settings, clear sentences and exit codes, and a real server that starts, stops and is killed."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest
from alembic import command
from alembic.config import Config
from click.testing import CliRunner
from simulators.bundles import SmallBundle
from simulators.release_engineer import ReleaseEngineer
from simulators.server_process import SERVER, environment, get, run, serving, wait_until_ready
from sqlalchemy import create_engine
from urllib3.filepost import encode_multipart_formdata

from edge_runtime.errors import InputError, StorageError
from sync_server import migrations
from sync_server.cli import COMMANDS, group, run_command
from sync_server.config import ServerConfig, load_config
from sync_server.embedded_postgres import EmbeddedPostgres
from sync_server.migrations import migrate
from sync_server.repository.online_key import load_or_create, public_pem


@pytest.fixture(scope="module", autouse=True)
def second_server(postgres: EmbeddedPostgres) -> Iterator[subprocess.Popen[str]]:
    """A server on a data folder whose database runs already; it waits ten seconds, while the other tests go on."""
    command = [*SERVER, "run", "--data-dir", str(postgres.folder.parent), "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment()) as process:
        yield process
        process.kill()


def test_settings_in_their_order(tmp_path: Path) -> None:
    assert load_config(environ={}).port == 8080
    (tmp_path / "server.toml").write_text("port = 1\nthreads = 3\nworkers = 7\n")
    environ = {"SYNC_SERVER_PORT": "2", "SYNC_SERVER_THREADS": "4", "DATABASE_URL": "postgresql://a/b"}
    config = load_config(data_dir=tmp_path, environ=environ, port=3, host=None)
    assert (config.port, config.threads, config.workers) == (3, 4, 7)
    assert config.database_url == "postgresql://a/b"
    assert config.data_dir == tmp_path
    assert ServerConfig(host="::1", port=5).address == "http://[::1]:5"
    assert ServerConfig(public_url="https://x.example/").address == "https://x.example"


@pytest.mark.parametrize(
    ("text", "environ", "sentence"),
    [
        ("port = 'x'", {}, "no whole number"),
        ("prot = 1", {}, "no setting"),
        ("data_dir = 'x'", {}, "no setting"),
        ("port =", {}, "cannot be read"),
        ("", {"SYNC_SERVER_PORT": "70000"}, "does not exist"),
        ("", {"SYNC_SERVER_THREADS": "0"}, "at least 1"),
        ("public_url = 'ftp://x'", {}, "no web address"),
        ("database_owner_url = 'postgresql://x/y'", {}, "database_url is not"),
    ],
)
def test_settings_that_make_no_sense(text: str, environ: dict[str, str], sentence: str, tmp_path: Path) -> None:
    (tmp_path / "server.toml").write_text(text)
    with pytest.raises(InputError, match=sentence):
        load_config(data_dir=tmp_path, environ=environ)


def test_a_named_file_must_exist(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        load_config(file=tmp_path / "none.toml", environ={})


def test_help_names_every_command_and_loads_nothing_heavy() -> None:
    shown = CliRunner().invoke(group, ["--help"]).output
    assert all(name in shown for name in COMMANDS)
    program = "import sys, sync_server.cli; print([m for m in ('flask', 'sqlalchemy', 'tuf', 'gunicorn') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    for name in COMMANDS:
        assert CliRunner().invoke(group, [name, "--help"]).exit_code == 0


def test_a_life_of_a_server(tmp_path: Path) -> None:
    with serving(tmp_path, "--workers", "2") as (url, process):
        assert get(f"{url}/health") == 200
        wait_until_ready(url)
        token, _ = run("token", "create", "--data-dir", str(tmp_path), "--kind", "publisher", "--name", "bot")
        assert token.startswith("st_pub_")
        request = urllib.request.Request(f"{url}/api/publish", headers={"Authorization": f"Bearer {token}"})
        with urllib.request.urlopen(request) as answer:
            assert json.load(answer)["targets_version"] is None
        run("token", "revoke", "1", "--data-dir", str(tmp_path))
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(request)
        with caught.value as refusal:
            assert json.load(refusal)["code"] == "token_revoked"
        word = tmp_path / "password"
        word.write_text("a long enough password\n")
        run("operator", "create", "alice", "--password-file", str(word), "--data-dir", str(tmp_path))
        listed = json.loads(run("token", "list", "--json", "--data-dir", str(tmp_path))[0])
        assert [row["revoked_at"] is None for row in listed["tokens"]] == [False]
        port = url.rpartition(":")[2]
        _, sentence = run("run", "--data-dir", str(tmp_path / "other"), "--port", port, code=5)
        assert f"Port {port} on 127.0.0.1 is in use" in sentence
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
    assert not (tmp_path / "postgres" / "cluster" / "postmaster.pid").exists()
    # Without a server, commands start the database for their moment.
    assert "bot" in run("token", "list", "--data-dir", str(tmp_path))[0]
    assert json.loads(run("migrate", "--json", "--data-dir", str(tmp_path))[0])["schema"]


def test_clients_that_fall_silent_do_not_stop_the_server(tmp_path: Path) -> None:
    """Phones lose their network in the middle of a request; and SIGTERM lets requests that are under way end."""
    with serving(tmp_path, "--threads", "2", "--host", "::1", SYNC_SERVER_CLIENT_SECONDS="3") as (url, process):
        token, _ = run("token", "create", "--data-dir", str(tmp_path), "--kind", "publisher", "--name", "bot")
        place = ("::1", int(url.rpartition(":")[2]))
        head = f"POST /api/publish HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nContent-Length: 99\r\n"
        body = "Content-Type: multipart/form-data; boundary=a\r\n\r\n--a"
        with contextlib.ExitStack() as stack:
            for text in ("GET /hea", head + body) * 2:
                silent = stack.enter_context(socket.create_connection(place))
                silent.sendall(text.encode())
            assert get(f"{url}/health") == 200
            wait_until_ready(url)
        with socket.create_connection(place, timeout=20) as last:
            last.sendall(b"GET /health/ready HTTP/1.1\r\nHost: x\r\n")
            time.sleep(0.5)
            process.send_signal(signal.SIGTERM)
            time.sleep(0.5)
            last.sendall(b"\r\n")
            assert last.recv(100).startswith(b"HTTP/1.1 200 OK")
        assert process.wait(30) == 0


def test_a_data_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "postgres").write_text("a file where the folder should be")
    _, sentence = run("run", "--data-dir", str(tmp_path / "a"), "--port", "0", code=6)
    assert "database's folder" in sentence
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "blobs").write_text("")
    _, sentence = run("run", "--data-dir", str(tmp_path / "b"), "--port", "0", code=6)
    assert "blobs cannot be made" in sentence


def test_sentences_without_a_server(tmp_path: Path) -> None:
    data = ("--data-dir", str(tmp_path))
    _, sentence = run("enrolment", "create", "--model", "a", "--channel", "b", *data, code=3)
    assert "exporter publish" in sentence
    _, sentence = run("token", "revoke", "7", *data, code=3)
    assert "no token 7" in sentence
    word = tmp_path / "password"
    word.write_text("short")
    _, sentence = run("operator", "create", "alice", "--password-file", str(word), *data, code=3)
    assert "5 characters" in sentence
    _, sentence = run("operator", "create", "alice", "--password-file", str(tmp_path / "none"), *data, code=3)
    assert "cannot be read" in sentence
    _, sentence = run("token", "list", *data, code=6, DATABASE_URL="postgresql://a@127.0.0.1:1/b")
    assert "cannot be reached" in sentence
    _, sentence = run("run", "--port", "0", *data, code=6, DATABASE_URL="postgresql://a@127.0.0.1:1/b")
    assert "cannot be reached" in sentence
    _, sentence = run("run", "--host", "no.such.host.invalid", *data, code=5)
    assert "not known here" in sentence
    (tmp_path / "file").write_text("")
    _, sentence = run("run", "--data-dir", str(tmp_path / "file" / "x"), "--port", "0", code=6)
    assert "cannot be made" in sentence
    assert run_command(["dance"]) == 2
    shown = json.loads(run("token", "revoke", "7", "--json", *data, code=3)[0])
    assert shown["error"] == "input"


def test_the_online_key_is_made_once_and_kept_private(tmp_path: Path) -> None:
    first, _ = run("online-key", "--data-dir", str(tmp_path))
    assert first == run("online-key", "--data-dir", str(tmp_path))[0]
    path = tmp_path / "keys" / "online.pem"
    assert path.stat().st_mode & 0o777 == 0o600
    assert public_pem(load_or_create(path)).strip() == first
    path.chmod(0o644)
    with pytest.raises(StorageError, match="read by other users"):
        load_or_create(path)
    path.chmod(0o600)
    path.write_text("nonsense")
    with pytest.raises(StorageError, match="cannot be used"):
        load_or_create(path)


def test_a_named_database_with_two_roles(tmp_path: Path) -> None:
    with EmbeddedPostgres(tmp_path / "pg") as postgres:
        environ = {"DATABASE_URL": postgres.app_url, "SYNC_SERVER_DATABASE_OWNER_URL": postgres.owner_url}
        with serving(tmp_path / "data", **environ) as (url, _):
            wait_until_ready(url)
        assert not (tmp_path / "data" / "postgres").exists()
        with pytest.raises(StorageError, match="changed nothing"):
            migrate(postgres.app_url.replace("/stella?", "/postgres?"), app_role=None)


def test_a_database_of_a_newer_program(tmp_path: Path) -> None:
    with EmbeddedPostgres(tmp_path / "pg") as postgres:
        migrate(postgres.owner_url, app_role="stella_app")
        with psycopg.connect(postgres.owner_url.replace("+psycopg", "")) as connection:
            connection.execute("UPDATE alembic_version SET version_num = '9999'")
        with pytest.raises(StorageError, match="does not know"):
            migrate(postgres.owner_url, app_role="stella_app")


def _make_first_schema(owner_url: str) -> None:
    """Make a database as the program's first version left it."""
    alembic = Config()
    alembic.set_main_option("script_location", str(Path(migrations.__file__).parent))
    engine = create_engine(owner_url)
    with engine.begin() as connection:
        alembic.attributes["connection"] = connection
        command.upgrade(alembic, "0001")
    engine.dispose()


def test_a_database_of_the_first_schema_is_brought_forward(tmp_path: Path) -> None:
    """With what it holds; and a server that still runs the older program goes on writing."""
    columns = "id, kind, digest, name, created_at"
    device = "id, installation_id, enrolment_id, kind, model, channel, created_at, last_seen_at"
    with EmbeddedPostgres(tmp_path / "pg") as postgres:
        _make_first_schema(postgres.owner_url)
        with psycopg.connect(postgres.owner_url.replace("+psycopg", "")) as connection:
            connection.execute(f"INSERT INTO access_tokens ({columns}) VALUES (1, 'enr', %s, 'x', now())", (bytes(32),))
            connection.execute("INSERT INTO enrolments VALUES (1, 'm', 'c', 1, 'x')")
            values = "repeat('a', 32), repeat('b', 32), 1, 'edge', 'm', 'c', now(), now()"
            connection.execute(f"INSERT INTO devices ({device}) VALUES ({values})")
            older = "INSERT INTO streams (device_id, stream, held, first_seen_at) VALUES (repeat('a', 32), %s, '{[1,5)}', now())"
            connection.execute(older, ("c" * 32,))
        assert migrate(postgres.owner_url, app_role="stella_app") > "0001"
        with psycopg.connect(postgres.app_url.replace("+psycopg", "")) as connection:
            connection.execute(older, ("d" * 32,))
            found = connection.execute("SELECT held::text, opened_at_ms, last_sent_at_ms FROM streams").fetchall()
    assert found == [("{[1,5)}", 0, 0)] * 2


def test_a_migration_that_fails_leaves_those_before_it(tmp_path: Path) -> None:
    """A table of the third migration's name stands in the way: the second has come, the third has changed nothing."""
    with EmbeddedPostgres(tmp_path / "pg") as postgres:
        _make_first_schema(postgres.owner_url)
        with psycopg.connect(postgres.owner_url.replace("+psycopg", ""), autocommit=True) as owner:
            owner.execute("CREATE TABLE webhook_deliveries (x int)")
            with pytest.raises(StorageError, match="changed nothing, those before it stay"):
                migrate(postgres.owner_url, app_role="stella_app")
            assert owner.execute("SELECT version_num FROM alembic_version").fetchall() == [("0002",)]
            assert owner.execute("SELECT to_regclass('webhooks')").fetchone() == (None,)
            with psycopg.connect(postgres.app_url.replace("+psycopg", "")) as app:  # may use what there is by then
                assert app.execute("SELECT count(*) FROM access_tokens").fetchone() == (0,)
            owner.execute("DROP TABLE webhook_deliveries")
            assert migrate(postgres.owner_url, app_role="stella_app") == migrations.head()


def test_a_migration_does_not_wait_for_a_lock_while_others_queue_behind_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A transaction that has read ``streams`` stays open: the second migration gives up, and goes on once it ends."""
    monkeypatch.setattr(migrations, "LOCK_SECONDS", 0.2)
    monkeypatch.setattr(migrations, "_PAUSE_SECONDS", 0.01)
    with EmbeddedPostgres(tmp_path / "pg") as postgres, ThreadPoolExecutor(1) as pool:
        _make_first_schema(postgres.owner_url)
        with psycopg.connect(postgres.owner_url.replace("+psycopg", "")) as reader:
            reader.execute("SELECT FROM streams")
            with pytest.raises(StorageError, match="others held through 5 tries"):
                migrate(postgres.owner_url, app_role="stella_app")
            assert "try 5 of 5 follows" in caplog.text
            assert reader.execute("SELECT version_num FROM alembic_version").fetchall() == [("0001",)]
            caplog.clear()
            monkeypatch.setattr(migrations, "_PAUSE_SECONDS", 2.0)
            patient = pool.submit(migrate, postgres.owner_url, app_role="stella_app")
            while "try 2 of 5 follows" not in caplog.text:
                time.sleep(0.01)
            reader.rollback()
            assert patient.result(60) == migrations.head()


def _send(url: str, token: str, parts: dict[str, bytes]) -> None:
    body, kind = encode_multipart_formdata({name: (name.rpartition("/")[2], data) for name, data in parts.items()})
    headers = {"Content-Type": kind, "Authorization": f"Bearer {token}"}
    try:
        with urllib.request.urlopen(urllib.request.Request(f"{url}/api/publish", body, headers), timeout=20):
            pass
    except (urllib.error.URLError, OSError) as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()


def test_killed_while_publishing(tmp_path: Path) -> None:
    """SIGKILL at moments spread over a publish: afterwards the repository of before or of after, and a retry works."""
    engineer = ReleaseEngineer(public_pem(load_or_create(tmp_path / "keys" / "online.pem")))
    token, _ = run("token", "create", "--data-dir", str(tmp_path), "--kind", "publisher", "--name", "bot")
    for release, delay in enumerate((0.02, 0.06, 0.15), start=1):
        bundle = SmallBundle(version=f"v{release}", release_number=release).build()
        root = engineer.sign_root() if release == 1 else {}
        parts = {**root, **engineer.sign_targets(bundle)}
        with serving(tmp_path) as (url, process):
            sender = subprocess.Popen(
                [sys.executable, "-c", _SENDER], stdin=subprocess.PIPE, env=environment(URL=url, TOKEN=token)
            )
            assert sender.stdin
            sender.stdin.write(json.dumps({name: data.hex() for name, data in parts.items()}).encode())
            sender.stdin.close()
            time.sleep(0.25 + delay)  # the sender needs about a quarter of a second to start
            process.kill()
            process.wait()
            sender.wait(30)
        with serving(tmp_path) as (url, _):
            found = get(f"{url}/repository/metadata/{release}.targets.json")
            assert found in (200, 404)
            assert get(f"{url}/repository/metadata/timestamp.json") in ((200,) if release > 1 else (200, 404))
            _send(url, token, parts)  # again, whether or not it had arrived
            assert get(f"{url}/repository/metadata/{release}.targets.json") == 200
            folder, _, name = bundle.path.rpartition("/")
            assert get(f"{url}/repository/targets/{folder}/{bundle.digest}.{name}") == 200


_SENDER = """
import json, os, sys, urllib.request
from sqlalchemy import create_engine
from urllib3.filepost import encode_multipart_formdata
parts = {n: (n.rpartition("/")[2], bytes.fromhex(d)) for n, d in json.load(sys.stdin).items()}
body, kind = encode_multipart_formdata(parts)
headers = {"Content-Type": kind, "Authorization": "Bearer " + os.environ["TOKEN"]}
try:
    urllib.request.urlopen(urllib.request.Request(os.environ["URL"] + "/api/publish", body, headers), timeout=20).read()
except OSError:
    pass
"""


def test_processes_that_migrate_at_once_wait_for_each_other(tmp_path: Path) -> None:
    with EmbeddedPostgres(tmp_path / "pg") as postgres, ThreadPoolExecutor(4) as pool:
        done = list(pool.map(lambda _: migrate(postgres.owner_url, app_role="stella_app"), range(4)))
    assert len(set(done)) == 1


def test_the_documented_roles_are_enough(tmp_path: Path) -> None:
    """The SQL of docs/database.md, run as it stands but for the names, makes a database that a server can use."""
    page = (Path(__file__).parents[2] / "docs" / "database.md").read_text("utf-8")
    sql = page.partition("```sql\n")[2].partition("```")[0].replace("stella", "documented").replace("'...'", "'pw'")
    before, _, after = sql.partition("\\connect documented\n")
    with EmbeddedPostgres(tmp_path / "pg") as postgres:
        admin = postgres._url("stella_admin").replace("+psycopg", "")
        for database, statements in (("postgres", before), ("documented", after)):
            with psycopg.connect(admin.replace("/postgres?", f"/{database}?"), autocommit=True) as connection:
                for statement in statements.split(";\n"):
                    connection.execute(statement)
        urls = [f"postgresql://documented_{role}:pw@/documented?host={postgres.cluster}" for role in ("app", "owner")]
        environ = {"DATABASE_URL": urls[0], "SYNC_SERVER_DATABASE_OWNER_URL": urls[1]}
        data = ("--data-dir", str(tmp_path / "data"))
        run("migrate", *data, **environ)
        assert run("token", "create", "--kind", "viewer", "--name", "x", *data, **environ)[0].startswith("st_view_")
        with psycopg.connect(urls[0]) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("DELETE FROM audit_entries")


@pytest.mark.parametrize("head_start", [0.0, 1.0])
def test_a_command_beside_a_server_that_is_just_starting(tmp_path: Path, head_start: float) -> None:
    """`sync-server run &` and the next line of a script begin at the same moment; neither fails."""
    folder = tmp_path / "var"
    words = ["token", "create", "--data-dir", str(folder), "--kind", "viewer", "--name", "x"]
    with ThreadPoolExecutor(1) as pool:

        def later() -> subprocess.CompletedProcess[str]:
            time.sleep(head_start)
            return subprocess.run([*SERVER, *words], capture_output=True, text=True, timeout=90, env=environment())

        command = pool.submit(later)
        with serving(folder):
            done = command.result()
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("st_")


def test_a_second_server_on_one_data_folder(second_server: subprocess.Popen[str]) -> None:
    assert "Another process already runs the database" in second_server.communicate(timeout=60)[1]
    assert second_server.returncode == 6

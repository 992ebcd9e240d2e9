"""Serving the repository: caching, ranges, and python-tuf's own client over a real server process."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from obstore.store import MemoryStore
from prometheus_client import REGISTRY
from simulators.bundles import BuiltBundle, SmallBundle
from simulators.release_engineer import ReleaseEngineer, multipart
from sqlalchemy import func, select
from tuf.api.exceptions import UnsignedMetadataError
from tuf.api.metadata import Metadata, Timestamp
from tuf.ngclient import Updater
from urllib3.filepost import encode_multipart_formdata

from edge_runtime.contract.rollout import parse_rollouts
from edge_runtime.errors import StorageError, TrustError
from sync_server.access.models import LoginAttempt
from sync_server.app_state import get_online_key
from sync_server.blobs import Blobs
from sync_server.config import ServerConfig
from sync_server.db import Database, utc_now
from sync_server.repository import metadata, signing
from sync_server.repository.online_key import load_or_create, public_pem
from sync_server.upkeep import run_once

BUNDLE = SmallBundle().build()


@pytest.fixture
def engineer(app: Flask, client: FlaskClient, auth: Callable[..., dict[str, str]]) -> ReleaseEngineer:
    """A release engineer who has published one bundle."""
    made = ReleaseEngineer(public_pem(load_or_create(app.extensions["config"].online_key_path)))
    parts = {**made.sign_root(), **made.sign_targets(BUNDLE)}
    assert client.post("/api/publish", data=multipart(parts), headers=auth("pub")).status_code == 201
    return made


def _target_url(bundle: BuiltBundle) -> str:
    folder, _, name = bundle.path.rpartition("/")
    return f"/repository/targets/{folder}/{bundle.digest}.{name}"


def test_metadata_and_how_long_caches_keep_it(engineer: ReleaseEngineer, client: FlaskClient) -> None:
    short, long = "public, max-age=60", "public, max-age=31536000, immutable"
    timestamp = client.get("/repository/metadata/timestamp.json")
    snapshot = json.loads(timestamp.data)["signed"]["meta"]["snapshot.json"]["version"]
    root = engineer.roots[1]
    for name, cache in (
        ("timestamp.json", short),
        ("1.root.json", short),
        ("1.targets.json", long),
        (f"{snapshot}.snapshot.json", long),
        (f"root-{hashlib.sha256(root).hexdigest()}.json", long),
    ):
        answer = client.get(f"/repository/metadata/{name}")
        assert (answer.status_code, answer.headers["Cache-Control"]) == (200, cache), name
        assert answer.headers["ETag"] == f'"{hashlib.sha256(answer.data).hexdigest()}"'
        again = client.get(f"/repository/metadata/{name}", headers={"If-None-Match": answer.headers["ETag"]})
        assert (again.status_code, again.data) == (304, b"")
    for name in (
        "2.root.json",
        "root.json",
        "0.root.json",
        "9.targets.json",
        f"root-{'0' * 64}.json",
        "../x",
        "x" * 300,
    ):
        answer = client.get(f"/repository/metadata/{name}")
        assert answer.status_code == 404
        assert answer.content_type == "application/problem+json"
    assert client.get("/repository/metadata/2.root.json").headers["Cache-Control"] == short


def test_targets_whole_and_in_pieces(engineer: ReleaseEngineer, client: FlaskClient) -> None:
    url, size = _target_url(BUNDLE), len(BUNDLE.data)
    whole = client.get(url, buffered=True)
    assert whole.data == BUNDLE.data
    assert whole.headers["Cache-Control"] == "public, max-age=31536000, immutable"
    assert whole.headers["ETag"] == f'"{BUNDLE.digest}"'
    assert whole.headers["Accept-Ranges"] == "bytes"
    rest = client.get(url, buffered=True, headers={"Range": "bytes=100-"})
    assert (rest.status_code, rest.data) == (206, BUNDLE.data[100:])
    assert rest.headers["Content-Range"] == f"bytes 100-{size - 1}/{size}"
    middle = client.get(url, buffered=True, headers={"Range": "bytes=10-19", "If-Range": whole.headers["ETag"]})
    assert (middle.status_code, middle.data) == (206, BUNDLE.data[10:20])
    changed = client.get(url, buffered=True, headers={"Range": "bytes=10-19", "If-Range": '"other"'})
    assert (changed.status_code, changed.data) == (200, BUNDLE.data)
    beyond = client.get(url, buffered=True, headers={"Range": f"bytes={size}-"})
    assert (beyond.status_code, beyond.headers["Content-Range"]) == (416, f"bytes */{size}")
    assert client.get(url, buffered=True, headers={"If-None-Match": whole.headers["ETag"]}).status_code == 304
    head = client.head(url, buffered=True)
    assert (head.data, head.content_length) == (b"", size)


@pytest.mark.parametrize(
    "name",
    [
        "pumps/1.0.0/default.bundle",
        f"pumps/1.0.0/{'0' * 64}.default.bundle",
        f"pumps/2.0.0/{BUNDLE.digest}.default.bundle",
        f"../../{BUNDLE.digest}",
        "..%2f..%2fkeys/online.pem",
    ],
)
def test_no_other_file_is_a_target(name: str, engineer: ReleaseEngineer, client: FlaskClient) -> None:
    assert client.get(f"/repository/targets/{name}").status_code == 404


def test_blobs_of_any_store_are_the_same(engineer: ReleaseEngineer, app: Flask, client: FlaskClient) -> None:
    """What S3 would do, with obstore's store in memory: pieces are read from the store as they are asked for."""
    app.extensions["blobs"] = blobs = Blobs(MemoryStore())
    url = _target_url(BUNDLE)
    with pytest.raises(StorageError):
        blobs.read(BUNDLE.digest)
    assert client.get(url, buffered=True).status_code == 503
    assert blobs.put(BUNDLE.data) == BUNDLE.digest
    assert blobs.read(BUNDLE.digest) == BUNDLE.data
    assert client.get(url, buffered=True).data == BUNDLE.data
    assert client.get(url, buffered=True, headers={"Range": "bytes=5-9"}).data == BUNDLE.data[5:10]


def test_a_changed_blob_is_not_used(engineer: ReleaseEngineer, app: Flask) -> None:
    blobs: Blobs = app.extensions["blobs"]
    path = app.extensions["config"].data_dir / "blobs" / "sha256" / BUNDLE.digest[:2] / BUNDLE.digest
    path.write_bytes(BUNDLE.data[:-1] + b"x")
    with pytest.raises(StorageError, match="was changed"):
        blobs.read(BUNDLE.digest)


def test_signed_again_at_half_time(engineer: ReleaseEngineer, app: Flask, database: Database) -> None:
    with app.app_context():
        key = get_online_key()
    start = utc_now()

    def at(days: float) -> list[str]:
        with database.session() as session:
            return signing.sign_again_if_due(session, key, start + timedelta(days=days))

    assert at(3.4) == []
    assert at(3.6) == ["timestamp"]
    assert at(4) == []
    assert at(15.5) == ["snapshot", "timestamp"]
    with database.session() as session:
        assert metadata.current_timestamp(session).expires - start > timedelta(days=22)
        assert metadata.current_snapshot(session).expires - start > timedelta(days=45)
    run_once(database, lambda: key, ServerConfig())


def test_only_one_process_signs(engineer: ReleaseEngineer, app: Flask, database: Database) -> None:
    with app.app_context():
        key = get_online_key()
    late = utc_now() + timedelta(days=5)
    with database.session() as first, database.session() as second:
        assert signing.sign_again_if_due(first, key, late) == ["timestamp"]
        assert signing.sign_again_if_due(second, key, late) == []


def test_a_lost_online_key_is_told(engineer: ReleaseEngineer, database: Database, tmp_path: Path) -> None:
    other = load_or_create(tmp_path / "other.pem")
    with pytest.raises(TrustError) as caught, database.session() as session:
        signing.sign_again_if_due(session, other, utc_now() + timedelta(days=5))
    assert caught.value.reason == "online_key"


def test_a_part_of_upkeep_that_fails_holds_up_no_other(
    engineer: ReleaseEngineer, database: Database, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = load_or_create(tmp_path / "other.pem")
    with database.session() as session:
        metadata.latest(session, "timestamp").body = b"damaged"  # type: ignore[union-attr]
        session.add(LoginAttempt(username_digest=bytes(32), address="::1", at=utc_now() - timedelta(days=1)))
    run_once(database, lambda: other, ServerConfig())
    assert "upkeep (signing) failed" in caplog.text
    with database.session() as session:
        assert session.scalar(select(func.count()).select_from(LoginAttempt)) == 0


def test_a_fault_in_upkeep_is_told_and_ends_nothing(
    engineer: ReleaseEngineer, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    """A bug, not a refusal: the other parts are done, and the metrics know of both."""

    def broken() -> Any:
        raise TypeError("a bug")

    def figures(part: str) -> tuple[float, float]:
        found = [
            REGISTRY.get_sample_value(f"upkeep_{name}", {"part": part}) or 0.0
            for name in ("failures_total", "last_done_timestamp_seconds")
        ]
        return found[0], found[1]

    with database.session() as session:
        session.add(LoginAttempt(username_digest=bytes(32), address="::1", at=utc_now() - timedelta(days=1)))
    before, swept, begun = figures("signing"), figures("log-ins"), time.time()
    run_once(database, broken, ServerConfig())
    assert "upkeep (signing) met a fault" in caplog.text
    assert "TypeError: a bug" in caplog.text
    assert figures("signing") == (before[0] + 1, before[1])
    assert (figures("log-ins")[0], figures("log-ins")[1] >= begun) == (swept[0], True)
    with database.session() as session:
        assert session.scalar(select(func.count()).select_from(LoginAttempt)) == 0


def test_a_clock_far_ahead_signs_at_once_and_devices_can_follow(
    engineer: ReleaseEngineer, app: Flask, database: Database
) -> None:
    """A server that slept for a month: everything of its own has expired."""
    with app.app_context():
        key = get_online_key()
    later = utc_now() + timedelta(days=31)
    with database.session() as session:
        assert signing.sign_again_if_due(session, key, later) == ["snapshot", "timestamp"]
    with database.session() as session:
        assert metadata.current_timestamp(session).expires > later + timedelta(days=6)
        version = metadata.current_timestamp(session).version
        # And when the clock is right again, versions still only grow.
        signing.sign_timestamp(session, key, utc_now())
        assert metadata.current_timestamp(session).version == version + 1


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A real server process with its own database; returns its address and data folder."""
    folder = tmp_path_factory.mktemp("served")
    command = [sys.executable, "-m", "sync_server", "run", "--data-dir", str(folder), "--port", "0", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        yield json.loads(process.stdout.readline())["address"], folder
        process.terminate()
        assert process.wait(30) == 0


def _command(folder: Path, *words: str) -> str:
    command = [sys.executable, "-m", "sync_server", *words, "--data-dir", str(folder)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def _send(url: str, token: str, parts: dict[str, bytes]) -> None:
    body, kind = encode_multipart_formdata({name: (name.rpartition("/")[2], data) for name, data in parts.items()})
    headers = {"Content-Type": kind, "Authorization": f"Bearer {token}"}
    with urllib.request.urlopen(urllib.request.Request(f"{url}/api/publish", body, headers)) as answer:
        assert answer.status == 201


def _updater(url: str, folder: Path, root: bytes) -> Updater:
    for name in ("metadata", "targets"):
        (folder / name).mkdir(exist_ok=True, parents=True)
    return Updater(
        str(folder / "metadata"),
        f"{url}/repository/metadata/",
        str(folder / "targets"),
        f"{url}/repository/targets/",
        bootstrap=root,
    )


def test_python_tufs_client_follows_a_real_server(served: tuple[str, Path], tmp_path: Path) -> None:
    url, folder = served
    engineer = ReleaseEngineer(_command(folder, "online-key"))
    token = _command(folder, "token", "create", "--kind", "publisher", "--name", "bot")
    _send(url, token, {**engineer.sign_root(), **engineer.sign_targets(BUNDLE)})
    client = _updater(url, tmp_path, engineer.roots[1])
    client.refresh()
    target = client.get_targetinfo(BUNDLE.path)
    assert target is not None
    assert Path(client.download_target(target)).read_bytes() == BUNDLE.data
    # A rollout travels inside the timestamp that refresh() has verified; a later root and release follow.
    change = json.dumps({"action": "start", "model": "pumps", "release": 1, "share": 10_000}).encode()
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {token}"}
    request = urllib.request.Request(f"{url}/api/channels/stable", change, headers, method="PUT")
    with urllib.request.urlopen(request) as answer:
        assert json.load(answer)["release"] == 1
    second = SmallBundle(version="1.1.0", release_number=2).build()
    _send(url, token, {**engineer.sign_root(), **engineer.sign_targets(second)})
    client = _updater(url, tmp_path, engineer.roots[1])
    client.refresh()
    assert client.get_targetinfo(second.path) is not None
    stored = Metadata[Timestamp].from_bytes((tmp_path / "metadata" / "timestamp.json").read_bytes()).signed
    rollout = parse_rollouts(stored.unrecognized_fields)["stable"]
    assert (rollout.release, rollout.previous, rollout.share) == (1, None, 10_000)
    other = ReleaseEngineer(engineer.online_pem)
    other.sign_root()
    stranger = _updater(url, tmp_path / "stranger", other.roots[1])
    with pytest.raises(UnsignedMetadataError):
        stranger.refresh()

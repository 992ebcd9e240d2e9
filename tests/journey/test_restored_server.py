"""A server that burnt down and came back from last night's backup, with its devices in the field meanwhile."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from journey.killing import feed
from journey.stack import BIN, Stack, run
from journey.telemetry import START_S, write_readings

from edge_runtime.edge_db import EdgeDatabase
from edge_runtime.outbox import Outbox


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Stack]:
    """A server of this test's own, with release 1 rolled out."""
    stack = Stack(tmp_path / "stack")
    try:
        stack.open_workshop()
        stack.start()
        stack.make_tokens()
        stack.publish(stack.small_bundle(1))
        stack.roll_out("stable", "pumps", 1)
        yield stack
    finally:
        stack.stop()


def next_sequence(home: Path) -> int:
    with EdgeDatabase(home / "edge.db") as database:
        return Outbox(database).state().next_sequence


def held(stack: Stack, device_id: str) -> str:
    (row,) = stack.sql("SELECT held::text AS held FROM streams WHERE device_id = %s", device_id)
    return str(row["held"])


def command(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([BIN / "edge-runtime", *map(str, words)], capture_output=True, text=True, check=False)


def give(home: Path, file: Path, *, seed: int, start_s: int = START_S) -> None:
    feed(home, write_readings(file, seed=seed, count=400, start_s=start_s))
    run("edge-runtime", "upload", "--home", home)


def test_devices_go_on_after_a_restore(own: Stack, tmp_path: Path) -> None:
    """What the backup held is there, what came after it is lost and known to be, and devices need nobody's help.

    They have seen newer metadata than the backup's, and uploaded results that it does not hold.
    """
    home, newcomer, saved = tmp_path / "device", tmp_path / "newcomer", tmp_path / "backup"
    device_id = own.enrol(home, own.line("pumps", "stable"))
    run("edge-runtime", "sync", "--home", home)
    give(home, tmp_path / "1.csv", seed=1)
    first = next_sequence(home)
    assert held(own, device_id) == f"{{[1,{first})}}"
    run("sync-server", "backup", saved, "--data-dir", own.data_dir)  # while it runs

    second_release = own.publish(own.small_bundle(2))
    own.roll_out("stable", "pumps", 2)
    run("edge-runtime", "sync", "--home", home)
    give(home, tmp_path / "2.csv", seed=2, start_s=START_S + 60 * 400)
    second = next_sequence(home)
    assert second > first
    own.enrol(newcomer, own.line("pumps", "stable"))
    run("edge-runtime", "sync", "--home", newcomer)

    own.stop()
    shutil.rmtree(own.data_dir)
    assert "signed anew" in run("sync-server", "restore", saved, "--data-dir", own.data_dir)
    own.start()

    # 1. The one thing that an operator must do: the exporter still has the release that the backup lacks.
    stale = command("sync", "--home", home)
    assert (stale.returncode, "targets" in stale.stderr) == (4, True), stale.stderr
    run("exporter", "publish", second_release, "--server", own.url, "--token-file", own.token_files["publisher"])
    run("edge-runtime", "sync", "--home", home)

    # 2. Results go on behind a hole, which stays: the device deleted what the server that burnt had acknowledged.
    give(home, tmp_path / "3.csv", seed=3, start_s=START_S + 60 * 800)
    third = next_sequence(home)
    assert held(own, device_id) == f"{{[1,{first}),[{second},{third})}}"

    # 3. Who came after the backup is unknown, is told so, and keeps its results until it is enrolled again.
    feed(newcomer, write_readings(tmp_path / "4.csv", seed=4, count=100))
    refused = command("upload", "--home", newcomer)
    assert (refused.returncode, "not known here" in refused.stderr) == (5, True), refused.stderr
    own.enrol(newcomer, own.line("pumps", "stable"))
    run("edge-runtime", "upload", "--home", newcomer)
    (row,) = own.sql("SELECT held::text AS held FROM streams ORDER BY id DESC LIMIT 1")
    assert row["held"] == f"{{[1,{next_sequence(newcomer)})}}"


def test_a_backup_that_is_none(tmp_path: Path) -> None:
    data, saved, empty = tmp_path / "data", tmp_path / "saved", tmp_path / "empty"
    empty.mkdir()
    run("sync-server", "online-key", "--data-dir", data)
    run("sync-server", "restore", empty, "--data-dir", tmp_path / "new", code=3)
    run("sync-server", "backup", empty, "--data-dir", data, code=3)
    run("sync-server", "backup", saved, "--data-dir", data)  # no server runs: the database is started for it
    run("sync-server", "restore", saved, "--data-dir", data, code=3)
    assert (saved / "keys" / "online.pem").stat().st_mode & 0o777 == 0o600
    run("sync-server", "restore", saved, "--data-dir", tmp_path / "again")
    (saved / "database.dump").write_bytes(b"PGDMP but not really")
    run("sync-server", "restore", saved, "--data-dir", tmp_path / "new", code=6)

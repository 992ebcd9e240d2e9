"""Homes that are not what they seem: restored from a backup, emptied, shared by two processes, copied to two places."""

from __future__ import annotations

import shutil
import subprocess
import threading
from pathlib import Path

from journey.killing import feed, start
from journey.stack import BIN, Stack, run
from journey.stored import assert_rollups_add_up, assert_stored_once, stored
from journey.telemetry import START_S, write_readings

from edge_runtime.edge_db import EdgeDatabase
from edge_runtime.home import Home
from edge_runtime.identity import load_identity
from edge_runtime.outbox import Outbox

# Readings a minute apart; with bursts as they are, the first file causes more than a hundred records.
FIRST, SECOND = 2500, 1000


def upload(home: Path) -> None:
    run("edge-runtime", "upload", "--home", home)


def next_sequence(home: Path) -> int:
    with EdgeDatabase(home / "edge.db") as database:
        return Outbox(database).state().next_sequence


def joined(stack: Stack, home: Path, line: str) -> str:
    device_id = stack.enrol(home, line)
    run("edge-runtime", "sync", "--home", home)
    return device_id


def observed(stack: Stack, device_id: str) -> list[int]:
    rows = stack.sql("SELECT observed_at_ms AS at FROM anomalies WHERE device_id = %s ORDER BY 1", device_id)
    return [row["at"] for row in rows]


def later(path: Path, *, seed: int, count: int = SECOND) -> Path:
    """Write readings of the hours after those of the first file."""
    return write_readings(path, seed=seed, count=count, start_s=START_S + 60 * FIRST)


def test_a_home_restored_from_a_copy_a_hundred_results_old(stack: Stack, tmp_path: Path) -> None:
    """Its next numbers are those of results that the server holds: it must open a new stream and lose nothing."""
    home, backup = tmp_path / "device", tmp_path / "backup"
    device_id = joined(stack, home, stack.line("pumps", "stable"))
    feed(home, write_readings(tmp_path / "1.csv", seed=11, count=100))
    upload(home)
    shutil.copytree(home, backup)
    early = next_sequence(home)
    feed(home, write_readings(tmp_path / "2.csv", seed=12, count=FIRST))
    upload(home)
    assert next_sequence(home) - early >= 100, "the copy must be a hundred results old"
    before = stored(stack, device_id)

    shutil.rmtree(home)
    shutil.copytree(backup, home)
    feed(home, later(tmp_path / "3.csv", seed=13))
    with EdgeDatabase(home / "edge.db") as database:
        new = [record for record in Outbox(database).lease().records if record.table == "anomalies"]
    upload(home)

    after = stored(stack, device_id)
    assert not before.anomalies - after.anomalies, "a result of before was overwritten"
    assert (after.anomalies - before.anomalies).total() == len(new) > 0, "a result of the restored home is missing"
    assert {record.observed_at_ms for record in new} <= set(observed(stack, device_id))
    assert after.sums["windows"] + after.sums["warming_up"] >= before.sums["windows"] + SECOND
    assert_stored_once(stack, device_id)
    assert_rollups_add_up(stack)
    seen = stack.get(f"/api/devices/{device_id}")
    assert len(seen["streams"]) == 2
    assert "stream_forked" in {event["name"] for event in seen["events"]}
    assert seen["cloned_at"] is None, "a restored device is not two devices"
    assert seen["outbox"] == {"records": 0, "dead_letters": 0}


def test_a_restored_home_that_is_fed_the_same_again(stack: Stack, tmp_path: Path) -> None:
    """Its results are the old ones under the old numbers: the server knows them, and there is nothing to add."""
    home, backup = tmp_path / "device", tmp_path / "backup"
    device_id = joined(stack, home, stack.line("pumps", "stable"))
    shutil.copytree(home, backup)
    readings = write_readings(tmp_path / "readings.csv", seed=18)
    feed(home, readings)
    upload(home)
    before = stored(stack, device_id)
    shutil.rmtree(home)
    shutil.copytree(backup, home)
    feed(home, readings)
    upload(home)
    assert stored(stack, device_id) == before
    assert len(stack.get(f"/api/devices/{device_id}")["streams"]) == 1


def test_enrolled_again_into_an_empty_home(stack: Stack, tmp_path: Path) -> None:
    """A new installation is a new device: its results stand beside the old ones."""
    home = tmp_path / "device"
    line = stack.line("pumps", "stable")
    readings = write_readings(tmp_path / "readings.csv", seed=14)
    first = joined(stack, home, line)
    feed(home, readings)
    upload(home)
    expected = stored(stack, first)
    shutil.rmtree(home)
    second = joined(stack, home, line)
    feed(home, readings)
    upload(home)
    assert first != second
    assert stored(stack, first) == expected
    assert stored(stack, second) == expected
    for device_id in (first, second):
        assert_stored_once(stack, device_id)


def test_enrolled_again_in_the_same_home(stack: Stack, tmp_path: Path) -> None:
    """The device stays what it is and gets a new token; what waits is sent with it."""
    home = tmp_path / "device"
    line = stack.line("pumps", "stable")
    device_id = joined(stack, home, line)
    feed(home, write_readings(tmp_path / "readings.csv", seed=15))
    old_token = Home(home).token.read_text()
    assert stack.enrol(home, line) == device_id
    assert Home(home).token.read_text() != old_token
    upload(home)
    assert stored(stack, device_id).anomalies
    assert_stored_once(stack, device_id)


def test_two_processes_with_one_home(stack: Stack, tmp_path: Path) -> None:
    """The second one is told who works there, and changes nothing."""
    home = tmp_path / "device"
    joined(stack, home, stack.line("pumps", "stable"))
    with Home(home).lock("run"):
        for command in ("sync", "upload", "run"):
            done = subprocess.run(
                [BIN / "edge-runtime", command, "--home", home],
                capture_output=True,
                text=True,
                stdin=subprocess.DEVNULL,
            )
            assert done.returncode == 6, done.stderr
            assert f"The home {home} is in use: `edge-runtime run`" in done.stderr
            assert "two devices need two homes" in done.stderr
            assert done.stderr.count("\n") == 1
    run("edge-runtime", "sync", "--home", home)


def test_two_scorers_with_one_home_and_one_file(stack: Stack, tmp_path: Path) -> None:
    """Scoring needs no lock: whoever stores a reading first scores it, the other counts it as known."""
    readings = write_readings(tmp_path / "readings.csv", seed=16)
    line = stack.line("pumps", "stable")
    twin, home = tmp_path / "twin", tmp_path / "device"
    twin_id, device_id = joined(stack, twin, line), joined(stack, home, line)
    feed(twin, readings)
    processes = [start("score", home, "--input", readings) for _ in range(2)]
    outputs: list[bytes] = []
    readers = [threading.Thread(target=lambda p=p: outputs.append(p.communicate()[0])) for p in processes]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join(60)
    assert [process.returncode for process in processes] == [0, 0]
    assert sum(output.count(b"\n") for output in outputs) == 2000, "each reading gets one verdict, from one of them"
    for each in (twin, home):
        upload(each)
    assert stored(stack, device_id) == stored(stack, twin_id)
    assert_stored_once(stack, device_id)


def test_one_home_copied_to_two_places(stack: Stack, tmp_path: Path) -> None:
    """Two machines that take themselves for one device: nothing is lost, and operators are told."""
    original, copy = tmp_path / "original", tmp_path / "copy"
    device_id = joined(stack, original, stack.line("pumps", "stable"))
    feed(original, write_readings(tmp_path / "1.csv", seed=17, count=FIRST))
    upload(original)
    shutil.copytree(original, copy)
    assert load_identity(Home(copy)).device_id == device_id
    sent = stored(stack, device_id).sums
    for number, home in enumerate((original, copy, original, copy)):
        start_s = START_S + 60 * (FIRST + 500 * number)
        feed(home, write_readings(tmp_path / f"{number}-of-two.csv", seed=20 + number, count=500, start_s=start_s))
        upload(home)
    seen = stack.get(f"/api/devices/{device_id}")
    assert seen["cloned_at"] is not None
    assert len(seen["streams"]) == 2
    found = stored(stack, device_id).sums
    taken = found["windows"] + found["warming_up"] - sent["windows"] - sent["warming_up"]
    assert taken == 4 * 500, "a reading of one of the two was lost or counted twice"
    assert_stored_once(stack, device_id)
    assert_rollups_add_up(stack)

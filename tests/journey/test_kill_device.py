"""SIGKILL of the device's process at random moments: every result is stored once, and the active bundle is whole.

After each kill the whole file is fed again. A twin that nobody disturbs gets the same file; in the end the server
must hold the same of both.
"""

from __future__ import annotations

import random
import subprocess
import time
from pathlib import Path

from journey import phones
from journey.killing import (
    Tally,
    assert_whole,
    feed,
    kill_at_work,
    kill_scoring,
    start,
    working_seconds,
)
from journey.phones import Trained
from journey.stack import BIN, Stack, run
from journey.stored import assert_stored_once, stored
from journey.telemetry import write_readings

from edge_runtime.home import Home
from edge_runtime.identity import load_identity

SYNC_KILLS, SCORE_KILLS, UPLOAD_KILLS, RUN_KILLS, ENROL_KILLS = 16, 20, 16, 8, 4
DEVICES = 4
# Few records a request, so that there are many moments between two of them.
BATCH = ("--batch-records", "4")


def test_killed_while_syncing(stack: Stack, tmp_path: Path, dice: random.Random) -> None:
    """Each finished sync is followed by the roll-out of another release, so that there always is one to fetch."""
    readings = write_readings(tmp_path / "readings.csv", seed=1, count=600)
    line = stack.line("pumps", "kills")
    stack.enrol(tmp_path / "twin", line)
    seconds = working_seconds("sync", tmp_path / "twin")
    home = tmp_path / "device"
    device_id = stack.enrol(home, line)
    wanted, tally, seen = 1, Tally(), []
    while tally.landed < SYNC_KILLS and tally.tried < 4 * SYNC_KILLS:
        if assert_whole(home) == wanted:
            wanted = wanted % 3 + 1
            stack.roll_out("kills", "pumps", wanted)
        before = assert_whole(home)
        if not kill_at_work(tally, dice, 1.2 * seconds, "sync", home):
            seconds *= 0.9  # the first one was slow; a few that finish are welcome, they bring the next release
        after = assert_whole(home)
        assert after in (before, wanted), "neither the old bundle nor the new one"
        seen.append((before, after))
        if after is not None:
            feed(home, readings)
    print(tally, seen)
    assert tally.landed >= SYNC_KILLS
    assert any(before == after for before, after in seen), "no kill came before the pointer was flipped"
    run("edge-runtime", "sync", "--home", home)
    assert assert_whole(home) == wanted
    assert len(list((home / "slots").iterdir())) <= 2
    feed(home, readings)
    run("edge-runtime", "upload", "--home", home)
    assert_stored_once(stack, device_id)
    sums = stored(stack, device_id).sums
    assert sums["windows"] + sums["warming_up"] == 600, "a reading was scored twice or not at all"


def test_killed_while_scoring_and_uploading(
    stack: Stack, trained: Trained, tmp_path: Path, dice: random.Random
) -> None:
    """Half of the devices run a graph that averages and raise much, half run a forest with its features and context."""
    lines = {"pumps": stack.line("pumps", "stable"), phones.MODEL: stack.line(phones.MODEL, phones.CHANNEL)}
    scoring, uploading = Tally(), Tally()
    for number in range(DEVICES):
        model = tuple(lines)[number % 2]
        readings = tmp_path / f"{number}.csv"
        if model == "pumps":
            write_readings(readings, seed=number)
        else:
            phones.one_long_life(trained, readings)
        twin, home = tmp_path / f"twin-{number}", tmp_path / f"device-{number}"
        twin_id, device_id = stack.enrol(twin, lines[model]), stack.enrol(home, lines[model])
        for each in (twin, home):
            run("edge-runtime", "sync", "--home", each)
        first_verdict = _seconds_to_first_verdict(twin, readings)
        feed(twin, readings)
        upload_seconds = working_seconds("upload", twin, *BATCH)
        enough = (number + 1) * SCORE_KILLS // DEVICES
        while scoring.landed < enough and scoring.tried < 3 * SCORE_KILLS:
            kill_scoring(scoring, dice, first_verdict, home, readings)
            if dice.random() < 0.4:
                kill_at_work(uploading, dice, upload_seconds, "upload", home, *BATCH)
        feed(home, readings)
        enough = (number + 1) * UPLOAD_KILLS // DEVICES
        while uploading.landed < enough and uploading.tried < 3 * UPLOAD_KILLS:
            if not kill_at_work(uploading, dice, upload_seconds, "upload", home, *BATCH):
                upload_seconds *= 0.7  # each leaves less to send
            feed(home, readings)
        run("edge-runtime", "upload", "--home", home)
        assert_whole(home)
        _assert_equal(stack, device_id, twin_id)
    print("scoring", scoring, "uploading", uploading)
    assert scoring.landed >= SCORE_KILLS
    assert uploading.landed >= UPLOAD_KILLS
    assert scoring.landed - scoring.before_work >= SCORE_KILLS / 3, "too few kills met the scoring itself"


def test_killed_while_it_runs(stack: Stack, tmp_path: Path, dice: random.Random) -> None:
    """The agent syncs, scores and uploads at once; it is fed the whole file each time that it is started."""
    line = stack.line("pumps", "stable")
    readings = write_readings(tmp_path / "readings.csv", seed=31, count=4000)
    twin, home = tmp_path / "twin", tmp_path / "device"
    twin_id, device_id = stack.enrol(twin, line), stack.enrol(home, line)
    run("edge-runtime", "sync", "--home", twin)
    feed(twin, readings)
    run("edge-runtime", "upload", "--home", twin)
    busy = ("--upload-interval-seconds", "0.05", "--sync-interval-seconds", "0.2", *BATCH)
    tally = Tally()
    while tally.landed < RUN_KILLS and tally.tried < 3 * RUN_KILLS:
        kill_at_work(tally, dice, 1.0, "run", home, "--readings", readings, *busy)
        assert_whole(home)
    print(tally)
    with readings.open("rb") as stream:  # standard input ends, and so does the agent, once everything is on the server
        last = subprocess.run([BIN / "edge-runtime", "run", "--home", home, *busy], stdin=stream, capture_output=True)
    assert last.returncode == 0, last.stderr
    _assert_equal(stack, device_id, twin_id)
    assert tally.landed >= RUN_KILLS


def test_killed_while_it_enrols(stack: Stack, tmp_path: Path, dice: random.Random) -> None:
    """However often it begins again, an installation is one device."""
    line = stack.line("pumps", "stable")
    seconds = working_seconds("enroll", tmp_path / "twin", line)
    tally, installations = Tally(), set()
    while tally.landed < ENROL_KILLS and tally.tried < 5 * ENROL_KILLS:
        home = tmp_path / f"device-{tally.tried}"
        kill_at_work(tally, dice, seconds, "enroll", home, line)
        kill_at_work(tally, dice, seconds, "enroll", home, line)
        stack.enrol(home, line)
        run("edge-runtime", "sync", "--home", home)  # root, token and identity fit each other
        installations.add(load_identity(Home(home)).installation_id)
    print(tally)
    rows = stack.sql(
        "SELECT installation_id, count(*) AS n FROM devices WHERE installation_id = ANY(%s) GROUP BY 1",
        list(installations),
    )
    assert {row["installation_id"]: row["n"] for row in rows} == dict.fromkeys(installations, 1)
    assert tally.landed >= ENROL_KILLS


def _assert_equal(stack: Stack, device_id: str, twin_id: str) -> None:
    assert_stored_once(stack, device_id)
    expected, found = stored(stack, twin_id), stored(stack, device_id)
    assert sum(expected.anomalies.values()) > 20
    assert found == expected
    assert found.gaps == 0


def _seconds_to_first_verdict(home: Path, readings: Path) -> float:
    begun = time.monotonic()
    with start("score", home, "--input", readings) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        seconds = time.monotonic() - begun
        process.stdout.read()
        assert process.wait(60) == 0
    return seconds

"""The device's command line: exit codes, sentences, one JSON object, one process at a time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from simulators.bundles import SmallBundle
from simulators.http_door import served
from simulators.repository import Fault, RepositorySimulator

from edge_runtime.cli import COMMANDS, run_command
from edge_runtime.home import Home


@pytest.fixture
def simulator() -> Iterator[RepositorySimulator]:
    simulator = RepositorySimulator()
    simulator.publish(SmallBundle().build())
    simulator.roll_out(1)
    with served(simulator):
        yield simulator


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


class Door:
    """Runs commands on one home."""

    def __init__(self, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.home, self._capsys = home, capsys

    def run(self, command: str, *arguments: str) -> tuple[int, str, str]:
        code = run_command([command, "--home", str(self.home), *arguments])
        captured = self._capsys.readouterr()
        return code, captured.out, captured.err

    def json(self, command: str, *arguments: str) -> dict[str, Any]:
        code, out, err = self.run(command, "--json", *arguments)
        assert code == 0, err
        assert out.count("\n") == 1
        fields = json.loads(out)
        assert isinstance(fields, dict)
        return fields


@pytest.fixture
def door(home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Door:
    for name in [name for name in os.environ if name.startswith("EDGE_RUNTIME_")]:
        monkeypatch.delenv(name)
    return Door(home, capsys)


def test_the_journey(simulator: RepositorySimulator, door: Door) -> None:
    fields = door.json("enroll", str(simulator.enrolment_line()), "--name", "pump 7", "--cohort", "FD001")
    assert fields["device_id"] == "device-1"
    assert fields["cohort"] == "FD001"
    assert door.json("sync")["outcome"] == "activated"
    assert door.json("sync")["outcome"] == "unchanged"
    assert door.json("upload")["acknowledged"] == 1
    assert door.json("upload")["waiting"] == 0
    status = door.json("status")
    assert status["active"]["release"] == 1
    assert status["outbox"]["records"] == 0
    assert status["last_update"]["outcome"] == "activated"
    assert (status["stale"], status["damage"]) == (False, None)


def test_the_server_is_told_how_the_device_is(simulator: RepositorySimulator, door: Door) -> None:
    door.json("enroll", str(simulator.enrolment_line()))
    door.json("sync")
    [device] = simulator.devices.values()
    assert device.statuses[-1]["active"]["release"] == 1
    assert device.statuses[-1]["outbox"]["records"] == 1
    door.json("upload")
    assert device.statuses[-1]["outbox"]["records"] == 0


def test_people_get_sentences(simulator: RepositorySimulator, door: Door) -> None:
    code, out, _ = door.run("enroll", str(simulator.enrolment_line()))
    assert code == 0
    assert "Next: edge-runtime sync" in out
    assert "Release 1" in door.run("sync")[1]
    assert "1 records are on the server" in door.run("upload")[1]
    code, out, err = door.run("status")
    assert (code, err) == (0, "")
    assert "active" in out
    assert "release 1 (1.0.0)" in out
    assert "verified, expires" in out


def test_the_line_can_come_from_standard_input(
    simulator: RepositorySimulator, door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    import io

    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{simulator.enrolment_line()}\n"))
    assert door.run("enroll", "-")[0] == 0


def test_status_shows_damage_and_what_waits(simulator: RepositorySimulator, door: Door) -> None:
    door.run("enroll", str(simulator.enrolment_line()))
    out = door.run("status")[1]
    assert "nothing verified yet" in out
    assert "active     none" in out or "none" in out
    door.run("sync")
    (slot,) = (door.home / "slots").iterdir()
    (slot / "model.onnx").write_bytes(b"rust")
    code, out, _ = door.run("status")
    assert code == 0
    assert "DAMAGED" in out
    assert "1 records wait" in out


def enrolled(simulator: RepositorySimulator, door: Door) -> None:
    assert door.run("enroll", str(simulator.enrolment_line()))[0] == 0


def refused(door: Door, code: int, *arguments: str) -> dict[str, Any]:
    """Run a command that must fail with one sentence, and say the same as JSON."""
    got, out, err = door.run(*arguments)
    assert (got, out) == (code, ""), err
    assert "Traceback" not in err
    assert err.startswith("edge-runtime: ")
    got, out, _ = door.run(arguments[0], "--json", *arguments[1:])
    assert got == code
    fields = json.loads(out)
    assert fields["message"]
    assert fields["advice"]
    assert isinstance(fields, dict)
    return fields


@pytest.mark.parametrize("command", ["sync", "upload", "run", "status"])
def test_a_home_without_a_device_is_refused(door: Door, command: str) -> None:
    assert refused(door, 6, command)["reason"] == "not_enrolled"
    assert not door.home.exists()


def test_an_enrolment_line_that_is_none_is_bad_input(door: Door) -> None:
    refused(door, 3, "enroll", "stella-enroll:1:nonsense")


def test_an_enrolment_line_for_another_root_is_a_matter_of_trust(simulator: RepositorySimulator, door: Door) -> None:
    line = str(simulator.enrolment_line())
    digest = simulator.enrolment_line().root_digest
    assert refused(door, 4, "enroll", line.replace(digest, "0" * 64))["reason"] == "wrong_root"


def test_plain_http_to_another_machine_must_be_allowed(door: Door) -> None:
    line = f"stella-enroll:1:http://192.0.2.1:{'t' * 43}:{'0' * 64}:1"
    assert refused(door, 4, "enroll", line)["reason"] == "insecure_http"


def test_a_revoked_token_is_a_network_error(simulator: RepositorySimulator, door: Door) -> None:
    enrolled(simulator, door)
    door.run("sync")
    for device in simulator.devices.values():
        device.token = "revoked"
    fields = refused(door, 5, "upload")
    assert "revoked" in fields["message"]
    assert "enrol" in fields["advice"]


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (Fault("", "drop"), 5),
        (Fault("", "answer", status=500), 5),
        (Fault("timestamp.json", "answer", status=200, body=b"<html>"), 4),
        (Fault("/targets/", "corrupt", after=99), 4),
    ],
)
def test_a_sync_that_fails_says_why(simulator: RepositorySimulator, door: Door, fault: Fault, code: int) -> None:
    enrolled(simulator, door)
    simulator.faults.append(fault)
    refused(door, code, "sync")
    simulator.faults.clear()
    assert door.json("sync")["outcome"] == "activated"


def test_a_second_process_is_kept_out(simulator: RepositorySimulator, door: Door) -> None:
    enrolled(simulator, door)
    with Home(door.home).lock("run"):
        for command in ("sync", "upload", "run"):
            fields = refused(door, 6, command)
            assert fields["reason"] == "home_in_use"
            assert f"`edge-runtime run` (process {os.getpid()})" in fields["message"]
        assert door.run("status")[0] == 0
    assert door.run("sync")[0] == 0


def test_the_lock_of_a_killed_process_is_gone(home: Path) -> None:
    script = (
        "import os, pathlib, sys; from edge_runtime.home import Home\n"
        "with Home(pathlib.Path(sys.argv[1])).lock('run'):\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    assert subprocess.run([sys.executable, "-c", script, str(home)], check=False).returncode == -9
    with Home(home).lock("sync"):
        pass


def test_settings_come_from_file_environment_and_flag(
    door: Door, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "settings.toml"
    path.write_text("sync_interval_seconds = 'often'\n")
    assert "sync_interval_seconds" in refused(door, 3, "status", "--config", str(path))["message"]
    path.write_text("speed = 3\n")
    assert "Known settings" in refused(door, 3, "status", "--config", str(path))["advice"]
    path.write_text("[broken\n")
    refused(door, 3, "status", "--config", str(path))
    monkeypatch.setenv("EDGE_RUNTIME_BATCH_RECORDS", "0")
    refused(door, 3, "status")


@pytest.mark.parametrize("arguments", [["--speed"], ["dance"], ["enroll"], ["sync", "--log-level", "loud"]])
def test_wrong_usage_is_exit_code_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(arguments) == 2
    assert "Usage:" in capsys.readouterr().err


def test_help_names_every_command_and_loads_nothing_heavy() -> None:
    script = (
        "import sys\n"
        "from edge_runtime.cli import run_command\n"
        "codes = [run_command(['--help'])] + [run_command([name, '--help']) for name in sys.argv[1:]]\n"
        "heavy = {'tuf', 'cryptography', 'onnxruntime', 'numpy', 'urllib3', 'sqlite3'} & set(sys.modules)\n"
        "sys.exit(f'{heavy} were loaded' if heavy else max(codes))\n"
    )
    done = subprocess.run([sys.executable, "-c", script, *COMMANDS], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for name in COMMANDS:
        assert f"Usage: edge-runtime {name}" in done.stdout

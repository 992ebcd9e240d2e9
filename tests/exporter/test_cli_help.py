"""Help is instant and complete: no command's help loads what only its work needs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click
import pytest

from exporter.cli import COMMANDS, LazyGroup, group, run_command

# Each of these costs a tenth of a second and more.
HEAVY = ("sklearn", "pandas", "onnx", "onnxruntime", "pyarrow", "numpy", "tuf", "cryptography", "rich", "urllib3")


def every_command() -> list[list[str]]:
    found = []
    for name in COMMANDS:
        command = group.get_command(click.Context(group), name)
        found.append([name])
        if isinstance(command, click.Group):
            found += [[name, sub] for sub in command.commands]
    return found


@pytest.mark.parametrize("path", every_command(), ids=" ".join)
def test_every_command_and_option_has_help(path: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command([*path, "--help"]) == 0
    assert "Usage: exporter " + " ".join(path) in capsys.readouterr().out
    command: click.Command | None = group
    for name in path:
        assert isinstance(command, click.Group | LazyGroup)
        command = command.get_command(click.Context(command), name)
    assert command is not None
    assert command.help
    for parameter in command.params:
        if isinstance(parameter, click.Option) and not parameter.hidden:
            assert parameter.help, parameter.name


def test_secrets_are_not_offered_as_arguments() -> None:
    for path in every_command():
        command: click.Command | None = group
        for name in path:
            assert isinstance(command, click.Group | LazyGroup)
            command = command.get_command(click.Context(command), name)
        assert command is not None
        for parameter in command.params:
            if parameter.name in ("token", "passphrase"):
                assert isinstance(parameter, click.Option)
                assert parameter.hidden


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from exporter.cli import COMMANDS, run_command\n"
        "for name in ('', *COMMANDS):\n"
        "    assert run_command([*name.split(), '--help']) == 0\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"


def test_usage_errors_exit_2_and_unknown_commands_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["build", "--nonsense"]) == 2
    assert run_command(["nonsense"]) == 2
    assert "No such command" in capsys.readouterr().err


def test_simulate_and_init_work_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fleet = tmp_path / "fleet"
    assert run_command(["simulate", "--out", str(fleet), "--devices", "6", "--days", "2"]) == 0
    assert "readings of 6 devices" in capsys.readouterr().out
    arguments = ["init", str(fleet / "readings.parquet"), "--out", str(tmp_path / "model.toml"), "--model", "m"]
    assert run_command(arguments) == 0
    assert "Context: charging, network_type, screen_on (guessed; you decide)" in capsys.readouterr().out
    assert run_command(arguments) == 3
    assert "exists already" in capsys.readouterr().err
    assert run_command([*arguments, "--overwrite", "--context", "charging"]) == 0
    assert run_command(["simulate", "--out", str(fleet)]) == 3

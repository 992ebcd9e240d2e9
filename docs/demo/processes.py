"""Runs the product's own command lines, as a person would, and says clearly what went wrong when one fails."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

BIN = Path(sys.executable).parent
HOST = "127.0.0.1"
START_SECONDS = 60.0
STOP_SECONDS = 30.0


class DemoError(Exception):
    """A step of the demo failed; the message says which command and how."""


def run(*command: str | Path, show: bool = False) -> str:
    """Run one command of the product and return its standard output.

    Args:
        *command: Program name and arguments.
        show: Let its progress on standard error through.

    Raises:
        DemoError: It left with another code than 0.
    """
    program, *arguments = map(str, command)
    done = subprocess.run(
        [str(BIN / program), *arguments],
        stdout=subprocess.PIPE,
        stderr=None if show else subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        shown = " ".join([program, *arguments])
        raise DemoError(f"`{shown}` left with {done.returncode}:\n{(done.stderr or '')[-2000:]}{done.stdout[-2000:]}")
    return done.stdout


def run_json(*command: str | Path, show: bool = False) -> dict[str, Any]:
    """Run one command with ``--json`` and return the object it printed.

    Raises:
        DemoError: It left with another code than 0, or printed something else.
    """
    text = run(*command, "--json", show=show)
    try:
        value = json.loads(text)
    except ValueError as error:
        raise DemoError(f"`{' '.join(map(str, command))} --json` printed no JSON object: {text[:500]}") from error
    if not isinstance(value, dict):
        raise DemoError(f"`{' '.join(map(str, command))} --json` printed no JSON object.")
    return value


def free_port() -> int:
    """Return a loopback port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


@contextmanager
def server(data_dir: Path, port: int, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run the sync server until the block ends, then stop it as an operator would (SIGTERM).

    Raises:
        DemoError: It does not come up, or does not stop.
    """
    command = [BIN / "sync-server", "run", "--data-dir", data_dir, "--host", HOST, "--port", str(port)]
    with log.open("ab") as output:
        process = subprocess.Popen(
            [str(part) for part in command], stdout=output, stderr=output, stdin=subprocess.DEVNULL
        )
    try:
        _await_ready(process, port, log)
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def get_json(url: str, token: str) -> Any:
    """Return the JSON that a server answers to a GET with a bearer token."""
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})  # noqa: S310 - loopback only
    with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
        return json.load(answer)


def _await_ready(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise DemoError(f"The server left with {process.returncode}; the end of {log}:\n{_tail(log)}")
        try:
            with urllib.request.urlopen(f"http://{HOST}:{port}/health", timeout=2) as answer:
                if answer.status == 200:
                    return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise DemoError(f"The server did not answer within {START_SECONDS:.0f} s; the end of {log}:\n{_tail(log)}")


def _tail(log: Path) -> str:
    return log.read_text(errors="replace")[-2000:] if log.exists() else ""


def is_terminal() -> bool:
    """Say whether a person sits in front: then the dashboard keeps serving."""
    return sys.stdin is not None and sys.stdin.isatty() and os.environ.get("CI") != "true"

"""Real servers as processes of their own, and the commands beside them."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO
from unittest import mock

from sync_server.cli import run_command

SERVER = [sys.executable, "-m", "sync_server"]


def environment(**more: str) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if k != "DATABASE_URL" and not k.startswith("SYNC_SERVER_")}
    return {**kept, **more}


@contextmanager
def serving(
    folder: Path, *words: str, stderr: IO[str] | None = None, **environ: str
) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Run a real server; yields its address and process, and stops it if it still runs."""
    command = [*SERVER, "run", "--data-dir", str(folder), "--port", "0", "--json", *words]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True, env=environment(**environ))
    with process:
        assert process.stdout
        line = process.stdout.readline()
        assert line, "the server printed no address"
        try:
            yield json.loads(line)["address"], process
        finally:
            if process.poll() is None:
                process.terminate()
            process.wait(30)


def run(*words: str, code: int = 0, **environ: str) -> tuple[str, str]:
    """Run a command and return stdout and stderr; ``run`` in a process of its own, since it takes over signals."""
    if words[0] == "run":
        command = [*SERVER, *words]
        done = subprocess.run(command, capture_output=True, text=True, env=environment(**environ), timeout=60)
        assert done.returncode == code, done.stderr
        return done.stdout.strip(), done.stderr.strip()
    out, err = io.StringIO(), io.StringIO()
    with (
        mock.patch.dict(os.environ, environment(**environ), clear=True),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        assert run_command(list(words)) == code, err.getvalue()
    return out.getvalue().strip(), err.getvalue().strip()


def wait_until_ready(url: str, *, seconds: float = 60.0) -> None:
    """Wait until a worker has what requests need: a server answers before the models that it scores with are loaded."""
    deadline = time.monotonic() + seconds
    while (found := get(f"{url}/health/ready")) != 200:
        assert time.monotonic() < deadline, f"the server does not become ready: it answers {found}"
        time.sleep(0.1)


def get(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code

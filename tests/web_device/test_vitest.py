"""The tests in TypeScript belong to all tests: types, then Vitest under the environment's own Node."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from simulators.web_device import WEB, install_packages, node


@pytest.fixture(scope="module", autouse=True)
def _packages() -> None:
    install_packages()


def _run(script: str, *arguments: str) -> None:
    # The fixtures that Vitest asks Python for must come from this very environment.
    environment = {**os.environ, "STELLA_PYTHON": sys.executable, "NO_COLOR": "1"}
    command = [str(node()), str(WEB / "node_modules" / script), *arguments]
    done = subprocess.run(command, cwd=WEB, env=environment, capture_output=True, text=True, check=False, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr


def test_types_are_right() -> None:
    _run("typescript/bin/tsc", "--project", ".")


def test_vitest_passes() -> None:
    _run("vitest/vitest.mjs", "run")

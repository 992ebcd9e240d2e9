"""The base install is the device: the other two programs then say what to install, and nothing ends in a traceback."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

# What no extra brings is hidden from the import system, as in a virtual environment with the base install.
HIDE = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {absent!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Absent())
from {module} import main
sys.argv = {arguments!r}
main()
"""


@pytest.mark.parametrize(
    ("module", "arguments", "absent", "extra"),
    [
        (
            "sync_server.cli",
            ["sync-server", "run", "--data-dir", "var"],
            ["flask", "sqlalchemy"],
            "stella-edge[server]",
        ),
        ("exporter.cli", ["exporter", "simulate", "--out", "fleet"], ["pandas", "pyarrow"], "stella-edge[exporter]"),
    ],
)
def test_a_missing_extra_is_named(
    module: str, arguments: list[str], absent: list[str], extra: str, tmp_path: Path
) -> None:
    code = HIDE.format(module=module, arguments=arguments, absent=absent)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 3
    assert extra in done.stderr
    assert "Traceback" not in done.stderr

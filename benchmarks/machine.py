"""Which machine and which code a figure belongs to, and whether others were using the machine meanwhile."""

from __future__ import annotations

import os
import platform
import resource
import subprocess
import time
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

import psutil  # type: ignore[import-untyped]

REPOSITORY = Path(__file__).resolve().parent.parent
# What the run itself writes does not make the code another one.
_OWN_OUTPUT = ("benchmarks/results/", "docs/benchmarks.md", "docs/performance.md", "docs/capacity.md")
_LIBRARIES = ("numpy", "onnxruntime", "onnx", "scikit-learn", "skl2onnx", "pandas", "pyarrow", "cryptography", "tuf")
# Share of all cores that other processes may take before a run is called noisy.
NOISY_SHARE = 0.05


def describe_machine() -> dict[str, object]:
    """Return processor, cores, memory, system, Python and library versions, JSON-ready; no host or user name."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "libraries": {name: _version(name) for name in _LIBRARIES},
    }


def describe_code() -> dict[str, object]:
    """Return the commit and whether files differ from it; both None outside a git checkout."""
    commit = _git("rev-parse", "HEAD")
    if commit is None:
        return {"commit": None, "dirty": None}
    changed = (_git("status", "--porcelain", "--untracked-files=no") or "").splitlines()
    return {"commit": commit, "dirty": any(not line[3:].startswith(_OWN_OUTPUT) for line in changed)}


@dataclass(slots=True)
class Watch:
    """Measures from its creation on how much of the machine other processes used."""

    _busy: float = field(default_factory=lambda: _busy_seconds())
    _own: float = field(default_factory=lambda: _own_seconds())
    _started: float = field(default_factory=time.monotonic)

    def seconds(self) -> float:
        """Return the wall-clock seconds so far."""
        return time.monotonic() - self._started

    def others_share(self) -> float:
        """Return the share of all cores that others used so far, from 0 to 1."""
        capacity = self.seconds() * (os.cpu_count() or 1)
        others = (_busy_seconds() - self._busy) - (_own_seconds() - self._own)
        return min(max(others / capacity, 0.0), 1.0) if capacity > 0 else 0.0


def _busy_seconds() -> float:
    """Return processor seconds of the whole machine that were not idle, stolen ones included."""
    times = psutil.cpu_times()
    return float(sum(times[:]) - times.idle - getattr(times, "iowait", 0.0) - getattr(times, "guest", 0.0))


def _own_seconds() -> float:
    """Return processor seconds of this process and of its children that have ended."""
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    pairs = (line.partition(":") for line in lines)
    facts = {key.strip(): value.strip() for key, _, value in pairs}
    name = facts.get("model name") or platform.machine()
    # Virtual machines shorten the name; family and model tell the generation.
    return f"{name} (family {facts['cpu family']}, model {facts['model']})" if "cpu family" in facts else name


def _version(library: str) -> str | None:
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return None


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout.rstrip("\n") if done.returncode == 0 else None

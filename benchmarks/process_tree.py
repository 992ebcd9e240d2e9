"""Run a program and keep the most memory that it and all that it started had at one time."""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import psutil

from benchmarks.machine import REPOSITORY

# Between two looks at the memory; arrays that matter live longer.
LOOK_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Finished:
    """A program that has ended well.

    Attributes:
        seconds: From start to end.
        peak_bytes: Largest resident memory of its process tree; pages that processes share count in each.
        answer: The JSON object in the last line of its output.
    """

    seconds: float
    peak_bytes: int
    answer: dict[str, Any]


def run_watched(command: Sequence[str], environment: Mapping[str, str]) -> Finished | None:
    """Run a program to its end; None when it fails (what it said is on standard error).

    Args:
        command: What to run, in the repository.
        environment: All of its environment.
    """
    began, peak = time.perf_counter(), 0
    with tempfile.TemporaryFile("w+") as output:
        child = subprocess.Popen(command, cwd=REPOSITORY, env=dict(environment), stdout=output)
        while child.poll() is None:
            peak = max(peak, _resident(child.pid))
            time.sleep(LOOK_SECONDS)
        seconds = time.perf_counter() - began
        output.seek(0)
        lines = output.read().splitlines()
    return None if child.returncode or not lines else Finished(seconds, peak, json.loads(lines[-1]))


def _resident(pid: int) -> int:
    total = 0
    try:
        root = psutil.Process(pid)
        for process in (root, *root.children(recursive=True)):
            total += process.memory_info().rss
    except psutil.NoSuchProcess:
        return total  # ended while we looked
    return total

"""What the scoring benchmark does in a process of its own: make a rival's file, and watch memory while a side scores.

A library that is not installed, or fails, ends its own process and no other::

    python -m benchmarks.scoring_child make isotree forest.joblib rows.npy isotree.bin
    python -m benchmarks.scoring_child memory isotree isotree.bin rows.npy 1,10,100
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import seconds_of
from benchmarks.machine import REPOSITORY
from benchmarks.scorers import KINDS
from exporter.resident import peak_megabytes, resident_megabytes

LOADS = 5
# Runs of a batch before its memory is read: arenas of allocators have grown by then.
RUNS = 5


def in_child(*arguments: object) -> dict[str, Any] | str:
    """Run this module in a new process.

    Args:
        *arguments: What it does and with what.

    Returns:
        What it printed, or the last line of its complaint.
    """
    command = [sys.executable, "-m", "benchmarks.scoring_child", *map(str, arguments)]
    done = subprocess.run(command, cwd=REPOSITORY, env=os.environ, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines()
        return lines[-1] if lines else f"it ended with {done.returncode}"
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def make(kind: str, forest_file: Path, rows_file: Path, target: Path) -> dict[str, float]:
    """Make a rival's file and try it; returns the seconds of making and of loading it."""
    import joblib

    forest, rows = joblib.load(forest_file), np.load(rows_file)
    side = KINDS[kind]
    if side.make is None:
        raise ValueError(f"{kind} has no file of its own")
    convert, _ = seconds_of(side.make, forest, rows, target)
    side.load(target, 1)(rows[:2])  # imports of the library are no part of loading a model
    loads = [seconds_of(side.load, target, 1)[0] for _ in range(LOADS)]
    return {"convert": convert, "load": statistics.median(loads)}


def memory(kind: str, model: Path, rows_file: Path, batches: Sequence[int]) -> dict[str, Any]:
    """Load a side and score batches of growing size on one thread; returns megabytes before, loaded, at each peak."""
    rows = np.load(rows_file)
    side = KINDS[kind]
    before = resident_megabytes()
    score = side.load(model, 1)
    score(rows[:1])
    loaded = resident_megabytes()
    peaks = []
    for batch in batches:
        for run in range(RUNS):
            score(rows[run : run + batch])
        peaks.append(peak_megabytes())
    return {"before": before, "loaded": loaded, "peaks": peaks}


def main(arguments: Sequence[str]) -> None:
    """Do what the arguments say and print it as JSON."""
    what, kind, *rest = arguments
    if what == "make":
        result: dict[str, Any] = make(kind, *map(Path, rest))
    else:
        result = memory(kind, Path(rest[0]), Path(rest[1]), [int(batch) for batch in rest[2].split(",")])
    print(json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1:])

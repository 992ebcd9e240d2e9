"""Device processes that die by SIGKILL at random moments of their work, and what a device must look like afterwards."""

from __future__ import annotations

import random
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

from journey.stack import BIN, run

from edge_runtime.bundle_store import BundleStore
from edge_runtime.contract.bundle import GOLDEN_NAME, GOLDEN_SPEC_NAME, MODEL_NAME
from edge_runtime.contract.golden import GoldenSpec
from edge_runtime.home import Home
from edge_runtime.scoring import Scorer, check_golden

LONGEST_SECONDS = 60.0


@dataclass
class Tally:
    """How many kills were tried, and how many of them met a process at work."""

    tried: int = 0
    landed: int = 0
    before_work: int = 0
    codes: list[int] = field(default_factory=list)

    def count(self, process: subprocess.Popen[bytes], *, working: bool) -> bool:
        """Note how a process ended that was sent SIGKILL; returns whether the kill met it alive."""
        code = process.wait(LONGEST_SECONDS)
        hit = code == -signal.SIGKILL
        self.tried += 1
        self.landed += hit
        self.before_work += hit and not working
        if not hit:
            self.codes.append(code)
        return hit


def start(command: str, home: Path, *arguments: str | Path) -> subprocess.Popen[bytes]:
    """Start ``edge-runtime COMMAND`` on a home; its standard output can be read."""
    return subprocess.Popen(
        [BIN / "edge-runtime", command, "--home", home, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )


def wait_for_lock(process: subprocess.Popen[bytes], home: Path) -> bool:
    """Wait until a process holds its home's lock: from then on it works; False when it ended before that."""
    lock = Home(home).path / "lock"
    mark = str(process.pid).encode()
    deadline = time.monotonic() + LONGEST_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        if lock.exists() and lock.read_bytes().endswith(mark):
            return True
        time.sleep(0.001)
    return False


def working_seconds(command: str, home: Path, *arguments: str | Path) -> float:
    """Run a command to its end and return how long it held its home."""
    with start(command, home, *arguments) as process:
        assert wait_for_lock(process, home)
        begun = time.monotonic()
        assert process.stdout is not None
        process.stdout.read()
        assert process.wait(LONGEST_SECONDS) == 0
    return time.monotonic() - begun


def kill_at_work(
    tally: Tally, dice: random.Random, seconds: float, command: str, home: Path, *arguments: str | Path
) -> bool:
    """Start a command and kill it at a random moment of the time that its work takes; one in eight before that."""
    with start(command, home, *arguments) as process:
        if early := dice.random() < 1 / 8:
            time.sleep(dice.uniform(0, 0.3))
        else:
            wait_for_lock(process, home)
            time.sleep(dice.uniform(0, seconds))
        process.kill()
        return tally.count(process, working=not early)


def kill_scoring(tally: Tally, dice: random.Random, seconds: float, home: Path, readings: Path) -> bool:
    """Start scoring a whole file and kill it before, between or after verdicts came out."""
    with start("score", home, "--input", readings) as process:
        assert process.stdout is not None
        wanted = dice.choice((0, 0, 1, 120, 250))
        if wanted == 0:
            # Before the first verdict: the process starts, opens its store, and is in its first group.
            time.sleep(dice.uniform(0.3, 1) * seconds)
        lines = 0
        while lines < wanted and process.stdout.readline():
            lines += 1
        time.sleep(dice.uniform(0, 0.02))
        process.kill()
        return tally.count(process, working=lines > 0)


def feed(home: Path, readings: Path) -> None:
    """Score a whole file to its end."""
    run("edge-runtime", "score", "--home", home, "--input", readings, "--quiet")


def assert_whole(home: Path) -> int | None:
    """Check the active bundle: every byte as the pointer says, golden windows pass; returns its release."""
    active = BundleStore(home).active()
    if active is None:
        return None
    spec = GoldenSpec.from_bytes(active.files[GOLDEN_SPEC_NAME])
    check_golden(Scorer(active.files[MODEL_NAME]), spec, active.files[GOLDEN_NAME])
    return active.manifest.release_number

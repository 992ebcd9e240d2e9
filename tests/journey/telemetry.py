"""Telemetry of pumps: calm, with bursts of heat that become incidents."""

from __future__ import annotations

import random
from pathlib import Path

START_S = 1_790_000_000  # September 2026


def write_readings(path: Path, *, seed: int, count: int = 2000, start_s: int = START_S) -> Path:
    """Write readings a minute apart as CSV; about one in eight belongs to a burst."""
    dice = random.Random(seed)
    burst = 0
    lines = ["timestamp,heat,load"]
    for number in range(count):
        burst = burst - 1 if burst else (dice.randint(8, 40) if dice.random() < 0.005 else 0)
        heat = dice.uniform(2, 6) if burst else dice.uniform(-0.5, 0.5)
        cell = "" if dice.random() < 0.02 else f"{heat:.3f}"
        lines.append(f"{start_s + 60 * number},{cell},{dice.uniform(0, 1):.3f}")
    path.write_text("\n".join(lines) + "\n")
    return path

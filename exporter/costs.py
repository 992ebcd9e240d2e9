"""What a graph costs: bytes on disk and in the bundle, seconds to load, microseconds a window in batches.

All graphs take turns in one run, on other windows in every call, after a warm-up: two graphs that are timed one after
the other meet two machines (clock speed, neighbours, caches). One thread, as a device gives to scoring; large batches
run in blocks that fit a cache, as they do in training and on devices. Times are processor time of the calling thread,
which does all the work then, and those of the fastest call: models that are built side by side slow each other's calls,
never speed them up, and a form must not ship on one day and stay on the next.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from exporter.graph.running import Graph, block_slices
from exporter.spec import BATCHES

# Of each graph at each batch: until it has run this long, at least and at most so often.
SECONDS = 0.1
FEWEST, MOST = 3, 1_000
LOADS = 3

Windows = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Cost:
    """What one graph costs.

    Attributes:
        bytes: Size of ``model.onnx`` on disk.
        bytes_deflated: Its size in the bundle (zlib, level 9).
        load_ms: Milliseconds of processor time until a session can score, the fastest of three times.
        window_us: Microseconds of processor time a window, by windows in one call; of the fastest call.
    """

    bytes: int
    bytes_deflated: int
    load_ms: float
    window_us: Mapping[int, float]

    def to_dict(self) -> dict[str, Any]:
        """Return it as one JSON-ready object."""
        return asdict(self) | {"window_us": {str(batch): value for batch, value in self.window_us.items()}}


def measure_costs(
    graphs: Mapping[str, bytes], windows: Windows | Mapping[str, Windows], *, batches: Sequence[int] = BATCHES
) -> dict[str, Cost]:
    """Measure graphs side by side.

    Args:
        graphs: By name; each takes ``window`` and gives ``anomaly_score``.
        windows: (m, W, S) float32 to score, m >= 1; repeated where a batch needs more. By name where shapes differ.
        batches: Windows in one call.

    Returns:
        Costs by name, in the same order.
    """
    loads: dict[str, list[float]] = {name: [] for name in graphs}
    sessions: dict[str, Graph] = {}
    for _ in range(LOADS):
        for name, content in graphs.items():
            began = time.thread_time()
            sessions[name] = Graph(content, threads=1)
            loads[name].append(time.thread_time() - began)
    own = windows if isinstance(windows, Mapping) else dict.fromkeys(graphs, windows)
    seconds = {batch: _seconds(sessions, own, batch) for batch in batches}
    return {
        name: Cost(
            bytes=len(content),
            bytes_deflated=deflated(content),
            load_ms=min(loads[name]) * 1e3,
            window_us={batch: seconds[batch][name] / batch * 1e6 for batch in batches},
        )
        for name, content in graphs.items()
    }


def deflated(content: bytes) -> int:
    """Return the size of a file as it travels in a bundle."""
    return len(zlib.compress(content, 9))


def _seconds(sessions: Mapping[str, Graph], windows: Mapping[str, Windows], batch: int) -> dict[str, float]:
    """Return the seconds of the fastest call by graph; they take turns, and a fast one runs more often in its turn."""
    pools = {name: _pool(own, batch) for name, own in windows.items()}
    calls: dict[str, list[float]] = {name: [] for name in sessions}
    turn = 0
    for round_number in range(MOST):
        busy = [name for name, taken in calls.items() if len(taken) <= FEWEST or sum(taken[1:]) < SECONDS]
        if not busy:
            break
        for name in busy:
            make = partial(_block, pools[name], turn * batch)
            began = time.thread_time()
            sessions[name].run_blocks(make, batch, ["anomaly_score"], values_a_row=pools[name][0].size)
            calls[name].append(time.thread_time() - began)
        turn += 1 + round_number % 2  # not in step with any period of the data
    # The first call of each fills caches and arenas.
    return {name: min(taken[1:]) for name, taken in calls.items()}


def _pool(windows: Windows, batch: int) -> Windows:
    """Return windows of which a batch can take its blocks: as they are, but repeated where they are less than one."""
    block = block_slices(batch, windows[0].size)[0].stop
    return windows if len(windows) >= block else np.resize(windows, (block, *windows.shape[1:]))


def _block(pool: Windows, offset: int, rows: slice) -> Windows:
    """Return a block of a call without copying it: a large batch of large windows would fill the memory."""
    size = rows.stop - rows.start
    start = (offset + rows.start) % (len(pool) - size + 1)
    return pool[start : start + size]

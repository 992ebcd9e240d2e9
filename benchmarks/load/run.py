"""Who visits when: every device once an interval, some of them offline for a while and back all at once.

The order is drawn once, and visits begin at even distances, moved by up to half of one at random; a device that is told
"not now" comes back when the server said, or after the device's own back-off. The generator never has more than a
bounded number of visits under way: a server that is slower than the plan makes them late, and late visits are counted.
"""

from __future__ import annotations

import asyncio
import heapq
import random
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from benchmarks.load.device import Habits, NotNowError, Visits
from benchmarks.load.fleet import Fleet
from benchmarks.load.tally import Tally
from edge_runtime.backoff import retry_delay
from edge_runtime.errors import TransportError

MOST_VISITS_A_SECOND = 5_000.0
MOST_SECONDS = 3_600.0
MOST_UNDER_WAY = 256
# After the planned time: how long devices with unsent records may still try.
DRAIN_SECONDS = 60.0
TELL_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Plan:
    """How long and how often.

    Attributes:
        seconds: How long visits begin.
        poll_every_seconds: Time between two visits of a device.
        offline_share: Share of the devices that are offline for the middle third, and come back within a twentieth.
    """

    seconds: float
    poll_every_seconds: float
    offline_share: float = 0.05


class Run:
    """One run of a fleet against a server.

    Args:
        place: The server's host and port.
        fleet: Who visits.
        habits: How devices behave.
        plan: How often they come.
        tell: Gets a line now and then.
    """

    def __init__(
        self, place: tuple[str, int], fleet: Fleet, habits: Habits, plan: Plan, tell: Callable[[str], None]
    ) -> None:
        self.tally = Tally()
        self._fleet, self._plan, self._tell = fleet, plan, tell
        self._visits = Visits(place, fleet, habits, self.tally)
        self._random = random.Random(fleet.secret)
        self._failures: dict[int, int] = {}
        self._due: list[tuple[float, int]] = []  # retries and returns, by time
        self._tasks: set[asyncio.Task[None]] = set()
        self._busy: set[int] = set()
        self._stopped = False

    def stop(self) -> None:
        """End the run early; what is under way still ends."""
        self._stopped = True

    @property
    def unsettled(self) -> int:
        """Records that no answer has settled: the server may hold them, or not."""
        return sum(map(len, self._visits.devices.pending.values()))

    async def go(self) -> None:
        """Run to the end, then let devices send what they still have.

        Raises:
            TransportError: The server does not even answer before the run.
        """
        try:
            await self._visits.prepare()
        except (NotNowError, OSError) as error:
            raise TransportError(
                "The server does not answer as one that has a release to give.", advice="Start it and publish first."
            ) from error
        self.tally.answers.clear()
        started = time.monotonic()
        await self._plan_visits(started)
        ends = time.monotonic() + DRAIN_SECONDS
        while (self._due or self._tasks) and time.monotonic() < ends and not self._stopped:
            await self._start_due(started, time.monotonic() - started)
            await asyncio.sleep(0.05)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=DRAIN_SECONDS)

    async def _plan_visits(self, started: float) -> None:
        order = np.random.default_rng(int.from_bytes(self._fleet.secret[8:16], "big")).permutation(self._fleet.devices)
        gap = self._plan.poll_every_seconds / self._fleet.devices
        number, told = 0, 0.0
        while not self._stopped:
            planned = (number + self._random.random() - 0.5) * gap
            if planned >= self._plan.seconds:
                return
            elapsed = time.monotonic() - started
            await self._start_due(started, elapsed)
            if elapsed < planned:
                await asyncio.sleep(min(planned - elapsed, 0.05))
                continue
            if elapsed - told >= TELL_SECONDS:
                told = elapsed
                self._tell(self._line(elapsed))
            await self._arrive(int(order[number % len(order)]), planned, started)
            number += 1

    async def _arrive(self, device: int, planned: float, started: float) -> None:
        """Begin a planned visit, unless the device is offline, under way, or waiting for its next try."""
        third = self._plan.seconds / 3
        if third <= planned < 2 * third and self._fleet.draw("offline", device) < self._plan.offline_share:
            self.tally.events["offline"] += 1
            # It finds the network again with all the others that lost it.
            heapq.heappush(self._due, (2 * third + self._random.random() * self._plan.seconds / 20, device))
            return
        if device in self._busy or device in self._failures:
            return
        await self._begin(device, planned, started)

    async def _start_due(self, started: float, elapsed: float) -> None:
        while self._due and self._due[0][0] <= elapsed:
            at, device = heapq.heappop(self._due)
            if device not in self._busy:
                self.tally.events["retries" if device in self._failures else "returned"] += 1
                await self._begin(device, at, started)

    async def _begin(self, device: int, planned: float, started: float) -> None:
        while len(self._tasks) >= MOST_UNDER_WAY:
            await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        self.tally.lag.append(max(0.0, time.monotonic() - started - planned))
        self._busy.add(device)
        task = asyncio.create_task(self._visit(device, started))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _visit(self, device: int, started: float) -> None:
        try:
            await self._visits.visit(device)
            self._failures.pop(device, None)
        except NotNowError as error:
            failures = self._failures[device] = self._failures.get(device, 0) + 1
            delay = retry_delay(failures, error.seconds, self._random.random())
            heapq.heappush(self._due, (time.monotonic() - started + delay, device))
        finally:
            self._busy.discard(device)

    def _line(self, elapsed: float) -> str:
        events = self.tally.events
        return (
            f"{elapsed:5.0f} s  {events['whole_polls']:,} polls, {self.tally.acknowledged.total():,} records held, "
            f"{len(self._tasks)} under way, {len(self._due)} waiting, {self.tally.server_errors} answers of 5xx"
        )

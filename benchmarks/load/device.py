"""One visit of one simulated device: poll, activate what the rollout chose, upload, tell how it is.

What a device keeps between visits is in :class:`Devices`, a few numbers each, so that a million fit; only records
that the server has not acknowledged are kept as they are, as in a device's outbox.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from benchmarks.load.connection import Answer, BrokenAnswerError, Connection, connect
from benchmarks.load.fleet import Fleet
from benchmarks.load.records import HOUR_MS, READINGS_AN_HOUR, Outbox, hour_records
from benchmarks.load.requests import Requests, status_fields
from benchmarks.load.tally import Tally
from benchmarks.load.view import Bundle, Targets, Timestamp
from edge_runtime.backoff import parse_retry_after
from edge_runtime.contract.batch import ResultsAnswer
from edge_runtime.contract.result import AnyRecord
from edge_runtime.update_outcome import UpdateOutcome

# As edge_runtime.config has them.
CONNECT_SECONDS, READ_SECONDS = 10.0, 20.0


@dataclass(frozen=True, slots=True)
class Habits:
    """How the fleet behaves.

    Attributes:
        model: What devices run.
        channel: What they follow.
        etag: Whether polls carry If-None-Match, as browsers' do; python-tuf's do not.
        batch_records: Most records in one upload.
        incident_share: Chance of an incident in a device's hour.
        backlog_share: Share of devices that come from a long time offline at their first visit.
        backlog_hours: The longest such time.
        lost_answers: Share of uploads whose answer is lost on the way, so that the batch is sent again.
        poll_only: Whether devices only poll.
    """

    model: str
    channel: str
    etag: bool = False
    batch_records: int = 2000
    incident_share: float = 0.02
    backlog_share: float = 0.02
    backlog_hours: int = 72
    lost_answers: float = 0.005
    poll_only: bool = False


class NotNowError(Exception):
    """The server asked for patience, or did not answer; carries what it asked for, in seconds, or None."""

    def __init__(self, seconds: float | None) -> None:
        super().__init__("not now")
        self.seconds = seconds


@dataclass(slots=True)
class Devices:
    """What the devices keep, an entry each.

    Attributes:
        sequences: Number of the next record.
        releases: Release that runs, 0 before the first.
        reported: Start of the hour up to which hours were reported, milliseconds.
        timestamps: Which of the known timestamps the device saw last, -1 for none.
        pending: Records not acknowledged yet, by device.
    """

    sequences: npt.NDArray[np.int64]
    releases: npt.NDArray[np.int32]
    reported: npt.NDArray[np.int64]
    timestamps: npt.NDArray[np.int16]
    pending: dict[int, list[AnyRecord]]

    @classmethod
    def new(cls, fleet: Fleet, habits: Habits, now_ms: int) -> Devices:
        """Return devices that reported an hour ago, some much longer ago, and have no release yet."""
        count = fleet.devices
        draws = np.random.default_rng(int.from_bytes(fleet.secret[:8], "big"))
        hours = np.where(
            draws.random(count) < habits.backlog_share, draws.integers(2, habits.backlog_hours + 1, count), 1
        )
        return cls(
            np.ones(count, np.int64), np.zeros(count, np.int32), now_ms // HOUR_MS * HOUR_MS - hours * HOUR_MS,
            np.full(count, -1, np.int16), {},
        )  # fmt: skip


class Visits:
    """Makes visits to one server.

    Args:
        place: Its host and port.
        fleet: Who visits.
        habits: How.
        tally: Where answers are counted.
    """

    def __init__(self, place: tuple[str, int], fleet: Fleet, habits: Habits, tally: Tally) -> None:
        self._place = place
        self._requests = Requests(f"{place[0]}:{place[1]}")
        self._fleet, self._habits, self._tally = fleet, habits, tally
        self._random = random.Random(fleet.secret)
        self._root = 1
        self._known: list[Timestamp] = []
        self._targets: dict[int, Targets] = {}
        self._bundles: dict[int, Bundle] = {}
        self.devices = Devices.new(fleet, habits, time.time_ns() // 1_000_000)

    async def prepare(self) -> None:
        """Let the fleet know the repository as it is: it has been following for a while.

        Raises:
            NotNowError: The server did not answer.
        """
        connection = await connect(*self._place, CONNECT_SECONDS)
        try:
            while (await self._ask(connection, "root", self._requests.root(self._root + 1))).status == 200:
                self._root += 1
            known = self._learn(await self._ask(connection, "timestamp", self._requests.timestamp()))
            timestamp = self._known[known]
            await self._follow(connection, timestamp)
            for device in range(self._fleet.devices):
                bundle = self._choose(device, timestamp)
                if bundle is not None:
                    self.devices.releases[device] = bundle.release
            self.devices.timestamps[:] = known
        finally:
            connection.close()

    async def visit(self, device: int) -> None:
        """Make a whole visit on one connection; what fails is counted, and leaves the device as it was.

        Raises:
            NotNowError: To be tried again.
        """
        try:
            connection = await connect(*self._place, CONNECT_SECONDS)
        except (OSError, TimeoutError) as error:
            self._tally.errors[f"connect: {type(error).__name__}"] += 1
            raise NotNowError(None) from error
        try:
            await self._poll(connection, device)
            if not self._habits.poll_only:
                await self._upload(connection, device)
                await self._report(connection, device)
        finally:
            connection.close()
        self._tally.events["visits"] += 1

    async def _poll(self, connection: Connection, device: int) -> None:
        """Do what python-tuf's refresh does: a newer root, the timestamp, and the rest where that names a new one."""
        while (await self._ask(connection, "root", self._requests.root(self._root + 1))).status == 200:
            self._root += 1
        seen = int(self.devices.timestamps[device])
        etag = self._known[seen].etag if self._habits.etag and seen >= 0 else ""
        answer = await self._ask(connection, "timestamp", self._requests.timestamp(etag))
        if answer.status == 200:
            known = self._learn(answer)
            timestamp = self._known[known]
            if seen < 0 or self._known[seen].snapshot != timestamp.snapshot:
                await self._follow(connection, timestamp)
            if known != seen:
                await self._activate(connection, device, timestamp)
                self.devices.timestamps[device] = known
        self._tally.events["whole_polls"] += 1

    def _learn(self, answer: Answer) -> int:
        """Return the number of a timestamp, read when it is new."""
        etag = answer.header("etag")
        for number in range(len(self._known) - 1, -1, -1):
            if self._known[number].etag == etag:
                return number
        self._known.append(Timestamp.parse(answer.body, etag))
        return len(self._known) - 1

    async def _follow(self, connection: Connection, timestamp: Timestamp) -> None:
        """Fetch snapshot and targets, as a device does whose own are older."""
        snapshot = await self._ask(connection, "snapshot", self._requests.metadata(timestamp.snapshot, "snapshot"))
        version = int(json.loads(snapshot.body)["signed"]["meta"]["targets.json"]["version"])
        targets = await self._ask(connection, "targets", self._requests.metadata(version, "targets"))
        if timestamp.snapshot not in self._targets:
            self._targets[timestamp.snapshot] = Targets.parse(targets.body)

    def _choose(self, device: int, timestamp: Timestamp) -> Bundle | None:
        habits, fleet = self._habits, self._fleet
        bundle = self._targets[timestamp.snapshot].choose(
            timestamp, model=habits.model, channel=habits.channel, device_id=fleet.device_id(device),
            cohort=fleet.cohort(device), active=int(self.devices.releases[device]),
        )  # fmt: skip
        if bundle is not None:
            self._bundles[bundle.release] = bundle
        return bundle

    async def _activate(self, connection: Connection, device: int, timestamp: Timestamp) -> None:
        """Fetch the bundle that the rollout gives the device, and record that it is active."""
        bundle = self._choose(device, timestamp)
        if bundle is None:
            return
        await self._ask(connection, "bundle", self._requests.target(bundle.url_path))
        self.devices.releases[device] = bundle.release
        self._tally.events["activated"] += 1
        outcome = UpdateOutcome("activated", None, bundle.release, _now_ms(), f"Release {bundle.release} is active.")
        self._store(device, [outcome.to_event(bundle.digest)])

    def _store(self, device: int, records: Sequence[AnyRecord]) -> None:
        """Put records without a number into the device's outbox."""
        first = int(self.devices.sequences[device])
        numbered = [replace(record, sequence=first + place) for place, record in enumerate(records)]
        self.devices.sequences[device] = first + len(records)
        self.devices.pending.setdefault(device, []).extend(numbered)

    def _score(self, device: int) -> None:
        """Fill the outbox with what the device found since it last reported: whole hours, and the one so far."""
        bundle = self._bundles.get(int(self.devices.releases[device]))
        now, reported = _now_ms(), int(self.devices.reported[device])
        if bundle is None:
            return
        outbox, records = Outbox(), []
        while reported < now:
            newest = min(reported + HOUR_MS - HOUR_MS // READINGS_AN_HOUR, now)
            share = self._habits.incident_share
            records += hour_records(
                outbox, bundle.digest, reported, newest, incident_share=share, draw=self._random
            )  # fmt: skip
            reported += HOUR_MS
        self.devices.reported[device] = now // HOUR_MS * HOUR_MS
        self._store(device, records)

    async def _upload(self, connection: Connection, device: int) -> None:
        """Send the outbox, oldest first; an answer that is lost makes the device send the batch again."""
        self._score(device)
        while pending := self.devices.pending.get(device):
            batch = pending[: self._habits.batch_records]
            answer = await self._send(connection, device, batch)
            if self._random.random() < self._habits.lost_answers:
                self._tally.events["lost_answers"] += 1
                self._tally.repeated += len(batch)
                answer = await self._send(connection, device, batch)
            self._settle(device, batch, answer)

    async def _send(self, connection: Connection, device: int, batch: Sequence[AnyRecord]) -> ResultsAnswer:
        fleet = self._fleet
        request = self._requests.results(fleet.token(device), fleet.stream(device), _now_ms(), batch)
        answer = await self._ask(connection, "results", request)
        if answer.status != 200:
            self._tally.errors[f"results: status {answer.status}"] += 1
            raise NotNowError(None)
        return ResultsAnswer.from_dict(json.loads(answer.body))

    def _settle(self, device: int, batch: Sequence[AnyRecord], answer: ResultsAnswer) -> None:
        """Delete what the server holds, and give up what it refuses, as a device's outbox does."""
        held = [record for record in batch if any(first <= record.sequence <= last for first, last in answer.held)]
        self._tally.acknowledge(held)
        self._tally.refused.update(refusal.reason for refusal in answer.refused)
        settled = {record.sequence for record in held} | {refusal.sequence for refusal in answer.refused}
        left = [record for record in self.devices.pending[device] if record.sequence not in settled]
        if len(left) == len(self.devices.pending[device]):
            raise NotNowError(None)  # neither held nor refused: a device sends it again later
        if left:
            self.devices.pending[device] = left
        else:
            del self.devices.pending[device]

    async def _report(self, connection: Connection, device: int) -> None:
        bundle = self._bundles.get(int(self.devices.releases[device]))
        fields = status_fields(
            bundle=bundle.digest if bundle else None, release=bundle.release if bundle else 0,
            version=bundle.version if bundle else "", cohort=self._fleet.cohort(device),
            records=len(self.devices.pending.get(device, ())), at_ms=_now_ms(),
            readings=READINGS_AN_HOUR * int(self.devices.sequences[device]),
        )  # fmt: skip
        await self._ask(connection, "status", self._requests.status(self._fleet.token(device), fields))

    async def _ask(self, connection: Connection, what: str, request: bytes) -> Answer:
        """Send a request, count its answer, and turn 429 and 5xx into "not now"."""
        began = time.perf_counter()
        try:
            answer = await connection.exchange(request, READ_SECONDS)
        except (BrokenAnswerError, TimeoutError, OSError) as error:
            self._tally.errors[f"{what}: {type(error).__name__} {str(error)[:80]}"] += 1
            raise NotNowError(None) from error
        self._tally.answered(what, answer.status, time.perf_counter() - began)
        if answer.status == 429 or answer.status >= 500:
            asked = answer.header("retry-after")
            raise NotNowError(parse_retry_after(asked, time.time()) if asked else None)
        return answer


def _now_ms() -> int:
    return time.time_ns() // 1_000_000

"""A device enrolled with a simulated server, ready to sync."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from simulators.repository import RepositorySimulator, SimulatedDevice

from edge_runtime.contract.result import AnyRecord, Event
from edge_runtime.device import EnrolledDevice as Device
from edge_runtime.device import device_with
from edge_runtime.enrolment import Wishes, enrol
from edge_runtime.files import FileSystem
from edge_runtime.home import Home
from edge_runtime.sync import SyncReport, synchronise


@dataclass
class EventList:
    """Keeps what a sync reports."""

    events: list[Event] = field(default_factory=list)

    def append(self, records: Iterable[AnyRecord]) -> None:
        self.events += [record for record in records if isinstance(record, Event)]


@dataclass
class EnrolledDevice:
    """A device, its server, and what it reported."""

    server: RepositorySimulator
    device: Device
    sink: EventList = field(default_factory=EventList)

    @classmethod
    def make(cls, home: Path, server: RepositorySimulator, **wishes: str | None) -> EnrolledDevice:
        enrol(Home(home), server.enrolment_line(), server, FileSystem(), Wishes(**wishes))  # type: ignore[arg-type]
        return cls(server, device_with(Home(home), server))

    @property
    def seen(self) -> SimulatedDevice:
        """What the server knows of it."""
        return self.server.devices[self.device.identity.installation_id]

    def sync(self) -> SyncReport:
        return synchronise(self.device, self.sink)

    def active_release(self) -> int | None:
        """The release that is active, every byte of it checked."""
        active = self.device.store.active()
        return None if active is None else active.manifest.release_number

"""What the tests of the device share."""

from __future__ import annotations

from pathlib import Path

import pytest
from simulators.enrolled import EnrolledDevice
from simulators.repository import RepositorySimulator
from simulators.sync_scenes import FIRST


@pytest.fixture
def enrolled(tmp_path: Path) -> EnrolledDevice:
    """A device that runs release 1."""
    server = RepositorySimulator()
    server.publish(FIRST)
    server.roll_out(1)
    device = EnrolledDevice.make(tmp_path / "home", server)
    assert device.sync().error is None
    assert device.active_release() == 1
    device.sink.events.clear()
    return device

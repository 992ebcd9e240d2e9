"""Two releases, and what tests of a sync do with them: offer one, and see one refused."""

from __future__ import annotations

from typing import Any

from simulators.bundles import BuiltBundle, SmallBundle
from simulators.enrolled import EnrolledDevice

from edge_runtime.sync import SyncReport
from edge_runtime.update_outcome import load_outcome

FIRST = SmallBundle().build()
SECOND = SmallBundle(version="2.0.0", release_number=2, bias=0.5).build()


def offer(enrolled: EnrolledDevice, bundle: BuiltBundle, **changes: Any) -> None:
    """Publish a bundle and roll it out to everybody."""
    enrolled.server.publish(bundle)
    enrolled.server.roll_out(bundle.what.release_number, previous=1, **changes)


def refused(enrolled: EnrolledDevice, reason: str, release: int | None = 2) -> SyncReport:
    """Sync, and check that it was refused for a reason, remembered, reported once, and changed nothing."""
    before = enrolled.device.store.pointer()
    report = enrolled.sync()
    assert report.error is not None
    assert report.error.advice
    assert (report.outcome.reason, report.outcome.release) == (reason, release)
    assert enrolled.device.store.pointer() == before
    assert enrolled.active_release() == 1
    assert load_outcome(enrolled.device.home) == report.outcome
    if not (reason == "download_failed" and release is None):
        (event,) = enrolled.sink.events
        assert event.name == f"update_{report.outcome.outcome}"
        assert event.detail["reason"] == reason
        assert event.bundle == FIRST.digest
    events = len(enrolled.sink.events)
    enrolled.sync()
    assert len(enrolled.sink.events) == events  # the same news is told once
    return report

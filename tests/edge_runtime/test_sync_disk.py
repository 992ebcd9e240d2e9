"""Sync and the disk: full, damaged, not permitted, and what a kill left on it."""

from __future__ import annotations

import dataclasses
import errno
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from simulators.enrolled import EnrolledDevice
from simulators.repository import Fault
from simulators.sync_scenes import FIRST, SECOND, offer, refused

from edge_runtime.bundle_store import BundleStore
from edge_runtime.device import EnrolledDevice as Device
from edge_runtime.errors import StorageError
from edge_runtime.files import FileSystem


def on_disk(enrolled: EnrolledDevice, disk: FileSystem) -> Device:
    """The same device, its bundles on another disk."""
    device = enrolled.device
    return dataclasses.replace(device, store=BundleStore(device.home.path, disk))


def test_a_full_disk_is_noticed_before_the_download(enrolled: EnrolledDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    offer(enrolled, SECOND)
    usage = shutil.disk_usage(enrolled.device.home.path)
    monkeypatch.setattr("edge_runtime.sync.shutil.disk_usage", lambda path: usage._replace(free=1_000_000))
    report = refused(enrolled, "disk_full")
    assert report.error is not None
    assert report.error.exit_code == 6
    assert not [r for r in enrolled.server.requests if SECOND.digest in r.path]


def test_a_disk_that_fills_up_keeps_the_bundle(enrolled: EnrolledDevice) -> None:
    class FullDisk(FileSystem):
        def write(self, path: Path, data: bytes, mode: int = 0o644) -> None:
            if "slots" in path.parts:
                raise StorageError("The disk is full.", advice="Free some space.", reason="disk_full")
            super().write(path, data, mode)

    offer(enrolled, SECOND)
    enrolled.device = on_disk(enrolled, FullDisk())
    refused(enrolled, "disk_full")


@pytest.mark.parametrize("damage", ["model", "slot", "pointer"])
def test_a_damaged_bundle_is_repaired_by_a_sync(enrolled: EnrolledDevice, damage: str) -> None:
    store = enrolled.device.store
    if damage == "model":
        (store.slot(FIRST.digest) / "model.onnx").write_bytes(b"rust")
    elif damage == "slot":
        shutil.rmtree(store.slot(FIRST.digest))
    else:
        store.pointer_path.write_bytes(b"")
    with pytest.raises(StorageError):
        enrolled.active_release()
    assert enrolled.sync().outcome.outcome == "activated"
    assert enrolled.active_release() == 1


def test_keep_what_you_have_repairs_too(enrolled: EnrolledDevice) -> None:
    offer(enrolled, SECOND, share=0)
    enrolled.server.roll_out(2, previous=None, share=0)
    (enrolled.device.store.slot(FIRST.digest) / "model.onnx").write_bytes(b"rust")
    assert enrolled.sync().outcome.outcome == "activated"
    assert enrolled.active_release() == 1


def test_what_was_begun_and_withdrawn_is_forgotten(enrolled: EnrolledDevice) -> None:
    offer(enrolled, SECOND)
    enrolled.server.faults.append(Fault("/targets/", "cut", times=1, after=1000))
    enrolled.sync()
    assert enrolled.device.home.staging.exists()
    enrolled.server.roll_out(1)
    assert enrolled.sync().outcome.outcome == "unchanged"
    assert not enrolled.device.home.staging.exists()


class ClingingDisk(FileSystem):
    """A disk that refuses to remove slots."""

    def remove(self, path: Path) -> None:
        if path.parent.name == "slots" and path.exists():
            raise StorageError(f"{path} cannot be removed.", advice="Look at its owner.", reason="not_permitted")
        super().remove(path)


def slots(enrolled: EnrolledDevice) -> set[str]:
    return {path.name for path in (enrolled.device.home.path / "slots").iterdir()}


def test_slots_that_a_kill_left_go_with_the_next_sync(enrolled: EnrolledDevice) -> None:
    """Killed while it wrote a bundle, or before it removed the oldest: no activation need follow for months."""
    offer(enrolled, SECOND)
    enrolled.sync()
    for name in ("0" * 64, f".{'1' * 64}.new"):
        (enrolled.device.home.path / "slots" / name).mkdir()
        (enrolled.device.home.path / "slots" / name / "model.onnx").write_bytes(b"half of it")
    assert enrolled.sync().outcome.outcome == "unchanged"
    assert slots(enrolled) == {FIRST.digest, SECOND.digest}


def test_a_slot_that_cannot_be_removed_keeps_no_release_out(
    enrolled: EnrolledDevice, caplog: pytest.LogCaptureFixture
) -> None:
    (enrolled.device.home.path / "slots" / ("0" * 64)).mkdir()
    enrolled.device = on_disk(enrolled, ClingingDisk())
    assert enrolled.sync().outcome.outcome == "unchanged"
    assert "cannot be removed" in caplog.text
    offer(enrolled, SECOND)
    assert enrolled.sync().outcome.outcome == "activated"
    assert enrolled.active_release() == 2


def test_an_activation_whose_record_was_lost_to_a_kill_is_told_by_the_next_sync(enrolled: EnrolledDevice) -> None:
    offer(enrolled, SECOND)
    before = enrolled.device.home.last_update.read_bytes()
    enrolled.sync()
    # SIGKILL between the flip of the pointer and the record of it leaves the new pointer and the old memory.
    enrolled.sink.events.clear()
    enrolled.device.home.last_update.write_bytes(before)
    enrolled.sync()
    assert [(event.name, event.bundle) for event in enrolled.sink.events] == [("update_activated", SECOND.digest)]
    enrolled.sync()
    assert len(enrolled.sink.events) == 1


def test_a_folder_of_slots_that_cannot_be_read_is_named(
    enrolled: EnrolledDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, iterdir = enrolled.device.home.path / "slots", Path.iterdir

    def denied(path: Path) -> Iterator[Path]:
        if path == folder:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return iterdir(path)

    monkeypatch.setattr(Path, "iterdir", denied)
    report = refused(enrolled, "storage_failed", release=None)
    assert str(folder) in str(report.error)

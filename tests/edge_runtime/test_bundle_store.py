"""Slots and pointer: whole after a crash at any step, and a changed byte is noticed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from simulators.bundles import SmallBundle
from simulators.disk import Crash, RecordingDisk

from edge_runtime.bundle_store import BundleStore
from edge_runtime.contract.bundle import Bundle, open_bundle
from edge_runtime.errors import StorageError
from edge_runtime.files import FileSystem


def bundle(release: int) -> Bundle:
    return open_bundle(SmallBundle(version=f"{release}.0", release_number=release, bias=release / 10).build().data)


OLD, NEW, NEWER = bundle(1), bundle(2), bundle(3)


def store_with(home: Path, *bundles: Bundle, files: FileSystem | None = None) -> BundleStore:
    home.mkdir(exist_ok=True)
    store = BundleStore(home, files)
    for each in bundles:
        store.install(each)
    return store


def releases(store: BundleStore) -> tuple[int, int | None]:
    pointer = store.pointer()
    assert pointer is not None
    return pointer.active.release_number, pointer.previous.release_number if pointer.previous else None


def test_an_empty_home_has_no_bundle(tmp_path: Path) -> None:
    assert BundleStore(tmp_path).active() is None


def test_an_installed_bundle_is_opened_as_it_was(tmp_path: Path) -> None:
    active = store_with(tmp_path, OLD).active()
    assert active is not None
    assert active.digest == OLD.digest
    assert active.manifest == OLD.manifest
    assert active.files == dict(OLD.files)


def test_the_previous_bundle_is_kept_and_older_ones_go(tmp_path: Path) -> None:
    store = store_with(tmp_path, OLD, NEW, NEWER)
    assert releases(store) == (3, 2)
    assert {path.name for path in (tmp_path / "slots").iterdir()} == {NEW.digest, NEWER.digest}


def test_going_back_swaps_active_and_previous(tmp_path: Path) -> None:
    store = store_with(tmp_path, OLD, NEW)
    pointer = store.pointer()
    assert pointer is not None
    assert pointer.previous is not None
    store.activate(pointer.previous)
    assert releases(store) == (1, 2)


def test_repairing_the_active_bundle_keeps_the_previous_one(tmp_path: Path) -> None:
    store = store_with(tmp_path, OLD, NEW)
    (store.slot(NEW.digest) / "model.onnx").unlink()
    store.install(NEW)
    assert releases(store) == (2, 1)
    assert store.active() is not None


def test_every_byte_is_synced_before_a_name_relies_on_it(tmp_path: Path) -> None:
    disk = RecordingDisk(tmp_path)
    store = store_with(tmp_path, OLD, files=disk)
    disk.settle()
    store.install(NEW)
    beside, slot = f"slots/.{NEW.digest}.new", f"slots/{NEW.digest}"
    position = {step: number for number, step in enumerate(disk.steps)}
    for name in NEW.files:
        assert position["write", f"{beside}/{name}"] < position["sync_file", f"{beside}/{name}"]
        assert position["sync_file", f"{beside}/{name}"] < position["sync_folder", beside]
    ordered = [
        ("sync_folder", beside),
        ("rename", slot),
        ("sync_folder", "slots"),
        ("write", ".active.json.new"),
        ("sync_file", ".active.json.new"),
        ("rename", "active.json"),
    ]
    assert [position[step] for step in ordered] == sorted(position[step] for step in ordered)
    assert disk.steps[-1] == ("sync_folder", ".")


def test_old_slots_go_only_after_the_pointer_is_on_disk(tmp_path: Path) -> None:
    disk = RecordingDisk(tmp_path)
    store = store_with(tmp_path, OLD, NEW, files=disk)
    disk.settle()
    store.install(NEWER)
    removed = disk.steps.index(("remove", f"slots/{OLD.digest}"))
    assert disk.steps.index(("rename", "active.json")) < disk.steps.index(("sync_folder", "."), removed - 1) < removed


def steps_of_an_update(tmp_path: Path) -> int:
    disk = RecordingDisk(tmp_path)
    store = store_with(tmp_path, OLD, files=disk)
    disk.settle()
    store.install(NEW)
    return len(disk.steps)


def test_a_crash_at_any_step_leaves_the_old_bundle_or_the_new_one_whole(tmp_path: Path) -> None:
    seen = set()
    for step in range(steps_of_an_update(tmp_path / "counted")):
        home = tmp_path / str(step)
        disk = RecordingDisk(home)
        store = store_with(home, OLD, files=disk)
        disk.settle()
        disk.crash_before = step
        with pytest.raises(Crash):
            store.install(NEW)
        # A killed process leaves everything it did; a lost power may leave any mixture of what was not synced.
        left = [shutil.copytree(home, tmp_path / f"{step}-killed")]
        left += [disk.after_power_loss(tmp_path / f"{step}-lost-{seed}", seed) for seed in range(8)]
        for remains in left:
            after = BundleStore(remains)
            active = after.active()
            assert active is not None
            expected = {OLD.digest: OLD, NEW.digest: NEW}[active.digest]
            assert active.files == dict(expected.files)
            seen.add(active.digest)
            after.install(NEW)  # and the next sync gets there
            assert after.pointer() is not None
            assert releases(after)[0] == 2
    assert seen == {OLD.digest, NEW.digest}


@pytest.mark.parametrize("name", sorted(OLD.files))
def test_a_changed_byte_in_any_file_is_noticed(tmp_path: Path, name: str) -> None:
    store = store_with(tmp_path, OLD)
    path = store.slot(OLD.digest) / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(StorageError, match=f"damaged: {name} was changed") as caught:
        store.active()
    assert caught.value.fields["reason"] == "slot_damaged"
    assert "sync" in caught.value.advice


def test_a_missing_and_an_extra_file_are_noticed(tmp_path: Path) -> None:
    store = store_with(tmp_path, OLD)
    (store.slot(OLD.digest) / "extra").write_bytes(b"")
    with pytest.raises(StorageError, match="other files"):
        store.active()
    shutil.rmtree(store.slot(OLD.digest))
    with pytest.raises(StorageError, match="damaged"):
        store.active()


@pytest.mark.parametrize(
    "text",
    [b"", b"\0" * 40, b"[]", b"{}", b'{"format": 2}', b"[" * 100_000],
)
def test_a_damaged_pointer_is_named(tmp_path: Path, text: bytes) -> None:
    store = store_with(tmp_path, OLD)
    store.pointer_path.write_bytes(text)
    with pytest.raises(StorageError, match="does not say which bundle is active"):
        store.active()
    store.install(NEW)
    assert releases(store) == (2, None)


def test_a_pointer_cannot_name_a_file_outside_its_slot(tmp_path: Path) -> None:
    store = store_with(tmp_path, OLD)
    fields = json.loads(store.pointer_path.read_bytes())
    fields["active"]["files"]["../../secret"] = "0" * 64
    store.pointer_path.write_text(json.dumps(fields))
    with pytest.raises(StorageError, match="damaged"):
        store.active()


def test_a_full_disk_leaves_the_active_bundle(tmp_path: Path) -> None:
    class FullDisk(FileSystem):
        def write(self, path: Path, data: bytes, mode: int = 0o644) -> None:
            if path.name == "model.onnx":
                raise StorageError("The disk is full.", reason="disk_full")
            super().write(path, data, mode)

    store_with(tmp_path, OLD)
    with pytest.raises(StorageError, match="full"):
        BundleStore(tmp_path, FullDisk()).install(NEW)
    active = BundleStore(tmp_path).active()
    assert active is not None
    assert active.digest == OLD.digest

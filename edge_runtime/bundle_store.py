"""Bundles on disk: one slot a bundle, one pointer file that says which is active and which was before.

A slot is written beside, synced and renamed before the pointer names it; the pointer is replaced in one step. A
crash at any moment leaves the old bundle active or the new one, whole. Opening a slot checks every file against the
digests that the pointer keeps, so that a byte that changed on disk is noticed before it scores.

Example::

    active = BundleStore(Path("/var/lib/stella-edge")).active()
    if active is not None:
        model = active.files[MODEL_NAME]
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edge_runtime.contract.archive import MANIFEST_NAME
from edge_runtime.contract.bundle import Bundle
from edge_runtime.contract.manifest import Manifest
from edge_runtime.errors import ContractError, StorageError
from edge_runtime.files import FileSystem, generation, translated, write_atomically

log = logging.getLogger(__name__)

POINTER_FORMAT = 1
POINTER_NAME = "active.json"
SLOTS_NAME = "slots"


@dataclass(frozen=True, slots=True)
class SlotEntry:
    """What the pointer says of a bundle.

    Attributes:
        digest: SHA-256 of the bundle, 64 hex digits, and the name of its slot.
        model: Its model.
        version: Its label.
        release_number: What orders releases.
        cohort: The cohort it was made for, or None.
        files: SHA-256 of every file in the slot, by name.
    """

    digest: str
    model: str
    version: str
    release_number: int
    cohort: str | None
    files: Mapping[str, str]

    @classmethod
    def of(cls, bundle: Bundle) -> SlotEntry:
        """Describe an opened bundle."""
        manifest = bundle.manifest
        files = {name: hashlib.sha256(content).hexdigest() for name, content in sorted(bundle.files.items())}
        return cls(bundle.digest, manifest.model, manifest.version, manifest.release_number, manifest.cohort, files)


@dataclass(frozen=True, slots=True)
class Pointer:
    """The two bundles that a device keeps.

    Attributes:
        active: The one it scores with.
        previous: The one before it, or None.
    """

    active: SlotEntry
    previous: SlotEntry | None


@dataclass(frozen=True, slots=True)
class ActiveBundle:
    """The bundle a device scores with.

    It holds the very bytes that were checked, so that neither a change on disk nor an update that removes the slot
    reaches a process that has opened it.

    Attributes:
        digest: SHA-256 of the bundle, 64 hex digits: what results carry.
        manifest: What it is.
        files: Its files' bytes, by name.
    """

    digest: str
    manifest: Manifest
    files: Mapping[str, bytes]


class BundleStore:
    """The slots of one device.

    Args:
        home: The device's home folder.
        files: The disk; tests put a recorder or one that loses power here.
    """

    def __init__(self, home: Path, files: FileSystem | None = None) -> None:
        self._home = home
        self._files = files or FileSystem()

    @property
    def pointer_path(self) -> Path:
        """The file whose replacement activates a bundle."""
        return self._home / POINTER_NAME

    def generation(self) -> tuple[int, int] | None:
        """Return what changes whenever another bundle becomes active, for a process that goes on for long."""
        return generation(self.pointer_path)

    def slot(self, digest: str) -> Path:
        """Return the folder of a bundle."""
        return self._home / SLOTS_NAME / digest

    def pointer(self) -> Pointer | None:
        """Read which bundles are kept, without opening them.

        Raises:
            StorageError: The pointer is damaged or cannot be read.
        """
        with translated(self.pointer_path):
            try:
                data = self.pointer_path.read_bytes()
            except FileNotFoundError:
                return None
        try:
            fields = json.loads(data)
            if fields["format"] != POINTER_FORMAT:
                raise ValueError("another format")
            previous = fields["previous"]
            return Pointer(_entry(fields["active"]), None if previous is None else _entry(previous))
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise StorageError(
                f"{self.pointer_path} is damaged: it does not say which bundle is active.",
                advice="Run `edge-runtime sync`: it downloads the release again and writes the file anew.",
                reason="slot_damaged",
            ) from error

    def active(self) -> ActiveBundle | None:
        """Open the active bundle and check every byte of it.

        Returns:
            The bundle, or None when the device has none yet.

        Raises:
            StorageError: A file of it is missing or changed (reason ``slot_damaged``).
        """
        pointer = self.pointer()
        return None if pointer is None else self.open(pointer.active)

    def open(self, entry: SlotEntry) -> ActiveBundle:
        """Open a slot and check every file in it.

        Raises:
            StorageError: A file is missing, changed or not listed (reason ``slot_damaged``).
        """
        folder = self.slot(entry.digest)
        paths = {name: folder / name for name in entry.files}
        try:
            present = {path.name for path in folder.iterdir()}
            contents = {name: path.read_bytes() for name, path in paths.items()}
        except OSError as error:
            raise _damaged(folder, f"{error.strerror or error}") from error
        for name, content in contents.items():
            if hashlib.sha256(content).hexdigest() != entry.files[name]:
                raise _damaged(folder, f"{name} was changed")
        if present != set(paths):
            raise _damaged(folder, f"it holds other files than the bundle: {', '.join(sorted(present ^ set(paths)))}")
        try:
            manifest = Manifest.from_bytes(contents[MANIFEST_NAME])
        except (ContractError, KeyError) as error:
            raise _damaged(folder, "manifest.json cannot be read") from error
        return ActiveBundle(entry.digest, manifest, contents)

    def install(self, bundle: Bundle) -> None:
        """Write a verified bundle to its slot and make it the active one.

        1. Every file into a folder beside, each synced, then the folder. 2. The folder gets its final name, and the
        name is synced. 3. The pointer is replaced. 4. Slots that nothing names any more go.

        Args:
            bundle: Opened, its signature checked, its golden windows passed.

        Raises:
            StorageError: Disk full or not permitted; the active bundle is as it was.
        """
        entry = SlotEntry.of(bundle)
        slots = self._home / SLOTS_NAME
        beside = slots / f".{entry.digest}.new"
        self._files.make_folder(slots)
        self._files.remove(beside)
        self._files.make_folder(beside)
        for name in entry.files:  # 1
            self._files.write(beside / name, bundle.files[name])
            self._files.sync_file(beside / name)
        self._files.sync_folder(beside)
        # A slot of that name is left from a crash or damaged: a whole one would have been activated, not installed.
        self._files.remove(self.slot(entry.digest))
        self._files.rename(beside, self.slot(entry.digest))  # 2
        self._files.sync_folder(slots)
        self._files.sync_folder(self._home)
        self.activate(entry)  # 3, 4

    def activate(self, entry: SlotEntry) -> None:
        """Make a bundle whose slot is on disk the active one; the one before becomes ``previous``.

        Raises:
            StorageError: The pointer could not be replaced; the active bundle is as it was.
        """
        former = self._former()
        previous = former.active if former is not None else None
        if previous is not None and former is not None and previous.digest == entry.digest:
            previous = former.previous  # a repair of the active one
        fields = {
            "format": POINTER_FORMAT,
            "active": asdict(entry),
            "previous": None if previous is None else asdict(previous),
        }
        write_atomically(self._files, self.pointer_path, json.dumps(fields, indent=1, sort_keys=True).encode())
        self.prune()

    def prune(self) -> None:
        """Remove slots that the pointer does not name: older bundles, and what a crash left.

        A slot that cannot be removed stays, and the log says so: it must not keep a release out.

        Raises:
            StorageError: The pointer is damaged or the folder of slots cannot be read; nothing is removed then.
        """
        pointer = self.pointer()
        slots = self._home / SLOTS_NAME
        if pointer is None or not slots.is_dir():
            return
        kept = {entry.digest for entry in (pointer.active, pointer.previous) if entry is not None}
        with translated(slots):
            unnamed = sorted(folder for folder in slots.iterdir() if folder.name not in kept)
        for folder in unnamed:
            try:
                self._files.remove(folder)
            except StorageError as error:
                log.warning("an older bundle stays: %s", error)

    def _former(self) -> Pointer | None:
        try:
            return self.pointer()
        except StorageError:
            return None  # a damaged pointer names nothing worth keeping


def _entry(fields: Mapping[str, Any]) -> SlotEntry:
    files = dict(fields["files"])
    digest = fields["digest"]
    # Names become paths: only what a bundle may hold is believed, wherever the file came from.
    if not (isinstance(digest, str) and len(digest) == 64 and digest.isalnum()):
        raise ValueError("digest")
    if not all(isinstance(name, str) and "/" not in name and not name.startswith(".") for name in files):
        raise ValueError("files")
    return SlotEntry(
        digest, str(fields["model"]), str(fields["version"]), int(fields["release_number"]), fields["cohort"], files
    )


def _damaged(folder: Path, what: str) -> StorageError:
    return StorageError(
        f"The active bundle in {folder} is damaged: {what}.",
        advice="Run `edge-runtime sync`: it downloads the release again.",
        reason="slot_damaged",
        path=str(folder),
    )

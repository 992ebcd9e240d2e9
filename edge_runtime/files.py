"""The few file operations whose order decides what survives a loss of power.

Everything the device must not lose half of (slots, the pointer to the active one, identity, token, the pinned root)
is written through a :class:`FileSystem`. The operations are single steps on purpose: a test records them, checks
their order, and plays a crash between any two.

Example::

    write_atomically(FileSystem(), Path("device.json"), b"{}")
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from edge_runtime.errors import StorageError

FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


def storage_error(error: OSError, path: Path) -> StorageError:
    """Say in one sentence what the disk refused.

    Args:
        error: What the operating system raised.
        path: The file or folder it was about.

    Returns:
        A StorageError whose field ``reason`` is ``disk_full`` or ``storage_failed``.
    """
    if error.errno in FULL:
        return StorageError(
            f"The disk that holds {path} is full.",
            advice="Free some space on it and run the command again; nothing was changed.",
            reason="disk_full",
            path=str(path),
        )
    return StorageError(
        f"{path} could not be read or written: {error.strerror or error}.",
        advice="Check that the folder exists and that this user may write to it.",
        reason="storage_failed",
        path=str(path),
    )


@contextlib.contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turn every OSError of the block into the sentence of :func:`storage_error`.

    Raises:
        StorageError: The block raised an OSError.
    """
    try:
        yield
    except OSError as error:
        raise storage_error(error, path) from error


def generation(path: Path) -> tuple[int, int] | None:
    """Return what changes whenever a file is replaced, None while there is none: for processes that go on for long."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns


class FileSystem:
    """Single durable steps on the real disk; tests put a recorder or a disk that loses power in its place."""

    def make_folder(self, path: Path) -> None:
        """Create a folder and its parents for this user only; an existing one is fine.

        Raises:
            StorageError: The folder cannot be created.
        """
        with translated(path):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)

    def write(self, path: Path, data: bytes, mode: int = 0o644) -> None:
        """Write a whole file; it is on disk only after :meth:`sync_file` and :meth:`sync_folder`.

        Raises:
            StorageError: The file cannot be written.
        """
        with translated(path):
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
            with open(descriptor, "wb") as file:  # noqa: PTH123 - pathlib cannot create with a mode
                # The mode above counts for new files only; a token must not inherit an old, wider one.
                os.fchmod(descriptor, mode)
                file.write(data)

    def sync_file(self, path: Path) -> None:
        """Wait until the bytes of a file are on disk.

        Raises:
            StorageError: The disk refused.
        """
        with translated(path):
            self._sync(path, os.O_RDONLY)

    def sync_folder(self, path: Path) -> None:
        """Wait until the names in a folder (new, renamed, removed) are on disk.

        Raises:
            StorageError: The disk refused.
        """
        with translated(path):
            self._sync(path, os.O_RDONLY | os.O_DIRECTORY)

    def rename(self, source: Path, target: Path) -> None:
        """Give a file or folder its final name in one step, in place of a file that held it.

        Raises:
            StorageError: The disk refused.
        """
        with translated(target):
            source.replace(target)

    def remove(self, path: Path) -> None:
        """Remove a file or a whole folder; one that is gone already is fine.

        Raises:
            StorageError: The disk refused.
        """
        with translated(path), contextlib.suppress(FileNotFoundError):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()

    @staticmethod
    def _sync(path: Path, flags: int) -> None:
        descriptor = os.open(path, flags | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_atomically(files: FileSystem, path: Path, data: bytes, mode: int = 0o644) -> None:
    """Replace a file so that a crash at any moment leaves the old bytes or the new ones, whole.

    Order: write beside it, fsync the file, rename over the old one, fsync the folder. Without the first fsync a
    rename can outlive the bytes; without the second the rename itself can be lost.

    Raises:
        StorageError: Disk full, not permitted, or gone; the old file is unchanged.
    """
    beside = path.with_name(f".{path.name}.new")
    files.write(beside, data, mode)
    files.sync_file(beside)
    files.rename(beside, path)
    files.sync_folder(path.parent)

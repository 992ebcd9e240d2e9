"""Whole files in and out, with sentences instead of OSError."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Collection, Mapping
from pathlib import Path

from edge_runtime.errors import InputError, StorageError


def read_bytes(path: Path, *, most: int = 256 * 2**20) -> bytes:
    """Return the content of a file.

    Args:
        path: The file.
        most: Largest size that is read, in bytes.

    Raises:
        InputError: Missing, unreadable, a folder, or larger than ``most``.
    """
    try:
        with path.open("rb") as stream:
            data = stream.read(most + 1)
    except OSError as error:
        raise InputError(
            f"{path} cannot be read: {error.strerror or error}.", advice="Check the name.", path=str(path)
        ) from error
    if len(data) > most:
        raise InputError(f"{path} is larger than {most} bytes.", advice="Check that it is the right file.")
    return data


def check_folder(folder: Path) -> None:
    """Refuse a folder that could not be written, before work is done for it. Nothing is made.

    Args:
        folder: There already, or to be made.

    Raises:
        StorageError: It, or the nearest folder above it that is there, is no folder or not writable.
    """
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise StorageError(
            f"{folder} could not be written: {there} is {'not writable' if there.is_dir() else 'no folder'}.",
            advice="Name another folder with --out, or check its permissions.",
            path=str(folder),
        )


def path_from(folder: Path, path: Path) -> str:
    """Return how a settings file in a folder names a path: relative where it lies within, else absolute."""
    try:
        return path.resolve().relative_to(folder.resolve()).as_posix()
    except ValueError:
        return path.resolve().as_posix()


def write_bytes(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Write a file whole or not at all, making its folder; an existing one is replaced in one step.

    Args:
        path: The file.
        data: Its content.
        mode: Its permissions.

    Raises:
        StorageError: Disk full, not permitted, or gone; an old file is unchanged.
    """
    beside: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        beside = Path(name)
        with open(descriptor, "wb") as stream:  # noqa: PTH123 - it is a descriptor
            os.fchmod(descriptor, mode)
            stream.write(data)
            stream.flush()
            os.fsync(descriptor)
        beside.replace(path)
    except OSError as error:
        if beside is not None:
            with contextlib.suppress(OSError):
                beside.unlink()
        raise StorageError(
            f"{path} could not be written: {error.strerror or error}.",
            advice="Check free space and permissions.",
            path=str(path),
        ) from error


def write_folder(
    folder: Path, files: Mapping[str, bytes], *, overwrite: bool, instead_of: Collection[str] = ()
) -> None:
    """Write several files that belong together: none of them appears before all of them are on the disk.

    Args:
        folder: Made when it is not there.
        files: Contents by name.
        overwrite: Whether files of these names may be replaced.
        instead_of: Names that may be there from an earlier time and go when they are not among the files.

    Raises:
        InputError: A file is there already and may not be replaced.
        StorageError: Disk full, not permitted, or gone.
    """
    check_folder(folder)
    there = sorted(name for name in {*files, *instead_of} if (folder / name).exists())
    if there and not overwrite:
        raise InputError(
            f"{folder} holds {', '.join(there)} already.",
            advice="Name another folder with --out, or give --overwrite.",
            path=str(folder),
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".", dir=folder) as name:
            for file, content in files.items():
                write_bytes(Path(name, file), content)
            for file in there:
                (folder / file).unlink()
            for file in files:
                Path(name, file).replace(folder / file)
    except OSError as error:
        raise StorageError(
            f"{folder} could not be written: {error.strerror or error}.",
            advice="Check free space and permissions.",
            path=str(folder),
        ) from error

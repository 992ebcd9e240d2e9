"""Files with secrets that the server makes for itself: mode 0600, written once, whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from edge_runtime.errors import StorageError


def create_once(path: Path, body: bytes) -> None:
    """Write a file beside its place and link it there, which only the first of several processes can.

    Raises:
        OSError: The folder or the file cannot be made.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle, name = tempfile.mkstemp(dir=path.parent)  # 0600 from the start
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(body)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(name, path)
        except FileExistsError:
            return
    finally:
        Path(name).unlink()


def check_private(path: Path, what: str) -> None:
    """Check that only its owner may read a file.

    Args:
        path: The file.
        what: What it is, to begin a sentence with: ``The online key``.

    Raises:
        StorageError: Others may read it.
        OSError: It cannot be looked at.
    """
    if path.stat().st_mode & 0o077:
        raise StorageError(f"{what} {path} can be read by other users.", advice=f"Run: chmod 600 {path}")

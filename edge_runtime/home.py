"""The folder that a device lives in, and the lock that keeps a second process from writing to it.

Example::

    home = Home(Path("/var/lib/stella-edge"))
    with home.lock("sync"):
        ...
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edge_runtime.errors import StorageError
from edge_runtime.files import FileSystem, translated


@dataclass(frozen=True, slots=True)
class Home:
    """Where each of a device's files lies below its home folder."""

    path: Path

    @property
    def device(self) -> Path:
        """Identity, server, channel and cohort of the enrolled device."""
        return self.path / "device.json"

    @property
    def installation(self) -> Path:
        """The id this installation made for itself before it first spoke to a server."""
        return self.path / "installation.json"

    @property
    def token(self) -> Path:
        """The device token, readable by this user only."""
        return self.path / "device.token"

    @property
    def trust(self) -> Path:
        """TUF state: the pinned root and the metadata verified last."""
        return self.path / "trust"

    @property
    def staging(self) -> Path:
        """Downloads that are not complete or not verified yet."""
        return self.path / "staging"

    @property
    def last_update(self) -> Path:
        """How the last sync ended, as reported to the server."""
        return self.path / "last_update.json"

    @property
    def database(self) -> Path:
        """SQLite: recent readings, outbox, dead letters, counters."""
        return self.path / "edge.db"

    def create(self) -> None:
        """Create the home folder when it is missing.

        Raises:
            StorageError: It cannot be created.
        """
        if not self.path.is_dir():
            FileSystem().make_folder(self.path)
            FileSystem().sync_folder(self.path.parent)

    @contextlib.contextmanager
    def lock(self, command: str) -> Iterator[None]:
        """Hold the home for one process; the operating system lets go when the process dies, however it dies.

        Args:
            command: What this process is about to do; a second process names it in its refusal.

        Raises:
            StorageError: Another process holds the home (reason ``home_in_use``), or the folder cannot be written.
        """
        import fcntl  # POSIX only; imported here so that `--help` works anywhere

        self.create()
        path = self.path / "lock"
        with translated(path):
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise self._in_use(path) from error
            with translated(path):
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, f"{command} {os.getpid()}".encode(), 0)
            yield
        finally:
            os.close(descriptor)

    def _in_use(self, path: Path) -> StorageError:
        with contextlib.suppress(OSError, ValueError):
            command, process = path.read_text().split()
            return StorageError(
                f"The home {self.path} is in use: `edge-runtime {command}` (process {process}) is working in it.",
                advice="Wait until it has finished or stop it; two devices need two homes (--home).",
                reason="home_in_use",
                path=str(self.path),
            )
        return StorageError(
            f"The home {self.path} is in use by another process.",
            advice="Wait until it has finished or stop it; two devices need two homes (--home).",
            reason="home_in_use",
            path=str(self.path),
        )

"""Bundles by their digest: written once, never changed, in a local folder or in S3.

A blob is written before the transaction that lists it; one that a failed publish leaves behind is harmless, because
its name is its content, and the next try finds it there.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_runtime.errors import InputError, StorageError
from sync_server.errors import RequestError

if TYPE_CHECKING:
    from sync_server.config import ServerConfig

log = logging.getLogger(__name__)

# The library tries for three minutes, and each request that waits holds a thread. Its timeouts of one try (5 s to
# connect, 30 s in all) stay: setting them here would drop what the AWS_* environment says.
_RETRIES: Any = {"max_retries": 2, "retry_timeout": timedelta(seconds=10)}
_NO_BUCKET = "NoSuchBucket"


class Blobs:
    """Content-addressed blobs behind obstore.

    Args:
        store: Any obstore store.
        folder: The store's folder when it is a local one, for fsync; None otherwise.
    """

    def __init__(self, store: Any, folder: Path | None = None) -> None:
        self._store = store
        self._folder = folder

    @classmethod
    def from_config(cls, config: ServerConfig) -> Blobs:
        """Open the store that the settings name.

        Raises:
            InputError: The address is of no store that exists.
            StorageError: The folder cannot be made.
        """
        from obstore.exceptions import BaseError
        from obstore.store import LocalStore, from_url

        if config.blobs_url is None:
            folder = config.data_dir / "blobs"
            try:
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            except OSError as error:
                raise StorageError(
                    f"The folder {folder} cannot be made: {error.strerror}.", advice="Make the data folder writable."
                ) from error
            return cls(LocalStore(folder), folder)
        try:
            return cls(from_url(config.blobs_url, retry_config=_RETRIES))
        except (BaseError, ValueError) as error:
            raise InputError(
                f"The blob store {config.blobs_url} cannot be opened: {error}.",
                advice="Write it as s3://bucket/prefix, with credentials in the AWS_* environment.",
            ) from error

    @staticmethod
    def _key(digest: str) -> str:
        return f"sha256/{digest[:2]}/{digest}"

    def put(self, data: bytes) -> str:
        """Store bytes durably and return their SHA-256 in hex; storing them twice is nothing new.

        Raises:
            RequestError: 507, the disk is full.
            StorageError: The store does not answer.
        """
        import obstore
        from obstore.exceptions import BaseError

        digest = hashlib.sha256(data).hexdigest()
        try:
            # Overwriting is by rename, so a reader sees the old or the new file, which are the same bytes.
            obstore.put(self._store, self._key(digest), data)
            if self._folder is not None:
                _sync_file(self._folder / self._key(digest))
        except (BaseError, OSError) as error:
            # obstore hands the system's own words on, with its number: 28 is ENOSPC.
            if getattr(error, "errno", None) == errno.ENOSPC or "os error 28" in str(error):
                raise RequestError(
                    507, "disk_full", f"The bundle {digest[:12]} does not fit on the server's disk.",
                    advice="Make room on the server, then publish again; nothing was changed.",
                ) from error  # fmt: skip
            raise _explained(f"The bundle {digest[:12]} could not be stored", error) from error
        return digest

    def open(self, digest: str) -> Any:
        """Return a seekable binary reader of a blob: the file itself where there is one, so that sendfile works.

        Raises:
            StorageError: The blob is missing or the store does not answer.
        """
        import obstore
        from obstore.exceptions import BaseError

        try:
            if self._folder is not None:
                return (self._folder / self._key(digest)).open("rb")
            return _Reader(obstore.open_reader(self._store, self._key(digest)))
        except (BaseError, OSError) as error:
            if isinstance(error, FileNotFoundError) and _NO_BUCKET not in str(error):
                raise StorageError(
                    f"The bundle {digest[:12]} is not in the blob store.",
                    advice="Restore the blobs from the same backup as the database.",
                ) from error
            raise _explained(f"The bundle {digest[:12]} could not be read", error) from error

    def check(self) -> None:
        """See that the store answers, by listing what is not there; a lost folder or bucket shows as well.

        Raises:
            StorageError: It does not; the message names no address, since strangers may read it.
        """
        import obstore
        from obstore.exceptions import BaseError

        try:
            if self._folder is not None:
                next(self._folder.iterdir(), None)
            else:
                next(iter(obstore.list(self._store, "check/")), None)
        except (BaseError, OSError) as error:
            log.warning("%s", _explained("The blob store is not ready", error))
            raise StorageError("The blob store is not ready; the server's log says why.") from error

    def read(self, digest: str) -> bytes:
        """Return a blob's bytes.

        Raises:
            StorageError: The blob is missing, or is not what its name says.
        """
        reader = self.open(digest)
        try:
            data = bytes(reader.read())
        finally:
            reader.close()
        if hashlib.sha256(data).hexdigest() != digest:
            raise StorageError(
                f"The bundle {digest[:12]} in the blob store was changed.", advice="Restore it from a backup."
            )
        return data


def _explained(what: str, error: Exception) -> StorageError:
    """Return an error that says what an operator can do; the library's own goes on for a page."""
    from obstore.exceptions import PermissionDeniedError, UnauthenticatedError

    if _NO_BUCKET in str(error):
        return StorageError(f"{what}: the bucket does not exist.", advice="Make it, or correct the setting blobs_url.")
    if isinstance(error, PermissionDeniedError | UnauthenticatedError):
        return StorageError(
            f"{what}: the credentials are refused.",
            advice="Check the AWS_* environment; the server needs to get, put and list objects.",
        )
    return StorageError(f"{what}: {str(error).splitlines()[0]}.", advice="Check the blob store and the way to it.")


class _Reader:
    """obstore's reader with plain ``bytes``, which is all that WSGI servers take."""

    def __init__(self, reader: Any) -> None:
        self._reader = reader
        self.seek, self.tell, self.close = reader.seek, reader.tell, reader.close

    def seekable(self) -> bool:
        """Say that it can seek, for Range requests."""
        return True

    def read(self, size: int | None = None) -> bytes:
        """Read up to ``size`` bytes, all without it."""
        return bytes(self._reader.read(size))


def _sync_file(path: Path) -> None:
    """Flush a file and the folders that name it, so that a power loss after the commit finds it whole."""
    for place in (path, path.parent, path.parent.parent):
        handle = os.open(place, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

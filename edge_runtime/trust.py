"""What a device believes: The Update Framework's metadata, refreshed and read.

Trust begins with one root whose digest came with the enrolment line; it is pinned by that digest and every refresh
starts from it. python-tuf verifies; this module adds our transport below it, our sentences above it, the oldest
targets version a device accepts, and the two fields that TUF itself does not know: ``custom`` of each target and
``rollouts`` of timestamp.json. It never decides what runs: :mod:`edge_runtime.sync` does.

Example::

    view = refresh(home, identity, transport, FileSystem())
    rollout = view.rollouts.get(identity.channel)
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuf.api import exceptions
from tuf.api.metadata import Metadata, Root, Targets, Timestamp
from tuf.ngclient import FetcherInterface, Updater

from edge_runtime.contract.release import TargetCustom, custom_of, floor_of
from edge_runtime.contract.rollout import Rollout, parse_rollouts
from edge_runtime.contract.routes import METADATA
from edge_runtime.errors import ContractError, TrustError
from edge_runtime.files import FileSystem, translated, write_atomically
from edge_runtime.freshness import METADATA_FOLDER
from edge_runtime.home import Home
from edge_runtime.identity import Identity
from edge_runtime.transport import Answer, Request, Transport, refusal
from edge_runtime.trust_refusals import translated_tuf

# As python-tuf bounds a root (UpdaterConfig.root_max_length).
MAX_ROOT_BYTES = 512_000


@dataclass(frozen=True, slots=True)
class Target:
    """One bundle as the verified targets.json lists it.

    Attributes:
        path: ``MODEL/VERSION/COHORT.bundle``.
        length: Bytes.
        sha256: Digest, 64 hex digits; also the bundle's name in results and slots.
        custom: What the release keys bind to it.
    """

    path: str
    length: int
    sha256: str
    custom: TargetCustom

    @property
    def url_path(self) -> str:
        """Path below ``/repository/targets/``, with the digest in front of the file's name (consistent snapshots)."""
        folder, _, name = self.path.rpartition("/")
        return f"{folder}/{self.sha256}.{name}"


@dataclass(frozen=True, slots=True)
class View:
    """The repository as one refresh verified it.

    Attributes:
        targets: Readable targets by path; those without our custom field are left out.
        rollouts: The rollout of each channel.
        targets_version: Version of targets.json.
        fields: What targets.json says beside TUF's own fields.
    """

    targets: Mapping[str, Target]
    rollouts: Mapping[str, Rollout]
    targets_version: int
    fields: Mapping[str, Any]

    @property
    def customs(self) -> dict[str, TargetCustom]:
        """The custom field of every target, as ``choose_target`` takes it."""
        return {path: target.custom for path, target in self.targets.items()}

    def floor(self, model: str) -> int:
        """Return the release number below which no device may run a model.

        Raises:
            ContractError: The signed field breaks its format.
        """
        return floor_of(self.fields, model)


def refresh(home: Home, identity: Identity, transport: Transport, files: FileSystem) -> View:
    """Fetch and verify root, timestamp, snapshot and targets, and read them.

    1. The pinned root is the one enrolment named. 2. python-tuf verifies the chain from it: signatures, versions that
    only grow, expiry. 3. Targets are no older than the enrolment line allows. 4. What was verified reaches the disk.

    Args:
        home: The device's home.
        identity: Who it is.
        transport: Where the repository is.
        files: The disk.

    Raises:
        TrustError: Refused; reason ``metadata_expired``, ``metadata_rollback``, ``metadata_unsigned``,
            ``metadata_mismatch``, ``metadata_too_large``, ``metadata_invalid`` or ``trust_damaged``.
        TransportError: The repository could not be reached, or did not answer as one.
        StorageError: The metadata could not be stored.
    """
    root = load_pinned_root(home, identity.root_sha256)  # 1
    folder = home.trust / METADATA_FOLDER
    files.make_folder(folder)
    with translated_tuf(transport.server_url), translated(folder):
        updater = Updater(str(folder), METADATA, fetcher=TransportFetcher(transport), bootstrap=root)
        updater.refresh()  # 2
        view = read_view(folder)
    if view.targets_version < identity.targets_version:  # 3
        raise TrustError(
            f"{transport.server_url} shows targets version {view.targets_version}; "
            f"this device was enrolled at {identity.targets_version} and takes no older one.",
            reason="metadata_rollback",
            advice="Restore the server's repository from its newest copy.",
        )
    _sync(folder, files)  # 4
    return view


def read_view(folder: Path) -> View:
    """Read timestamp.json and targets.json that a refresh has just verified and stored.

    Raises:
        TrustError: A signed field of ours breaks its format (reason ``metadata_invalid``).
    """
    timestamp = Metadata[Timestamp].from_bytes((folder / "timestamp.json").read_bytes()).signed
    targets = Metadata[Targets].from_bytes((folder / "targets.json").read_bytes()).signed
    listed = {}
    for path, file in targets.targets.items():
        digest = file.hashes.get("sha256")
        # A target of another kind or a later format is not for this device, and no reason to refuse the others.
        with contextlib.suppress(ContractError):
            custom = custom_of(path, file.unrecognized_fields)
            if digest is not None:
                listed[path] = Target(path, file.length, digest, custom)
    try:
        rollouts = parse_rollouts(timestamp.unrecognized_fields)
    except ContractError as error:
        raise TrustError(
            f"The rollouts in timestamp.json cannot be read: {error.message}",
            reason="metadata_invalid",
            advice="Update edge-runtime, or correct the rollout on the server.",
        ) from error
    return View(listed, rollouts, targets.version, targets.unrecognized_fields)


def check_root(data: bytes, digest: str) -> None:
    """Check that bytes are the root metadata with a digest, and a root that signs itself.

    Raises:
        TrustError: Another digest (reason ``wrong_root``), or no valid root (``metadata_invalid``).
    """
    if hashlib.sha256(data).hexdigest() != digest:
        raise TrustError(
            "The server's root of trust is not the one that the enrolment line names.",
            reason="wrong_root",
            advice="Get a new line from the operator; if it happens again, something between you and the server lies.",
            expected=digest,
            got=hashlib.sha256(data).hexdigest(),
        )
    with translated_tuf("the server"):
        metadata = Metadata[Root].from_bytes(data)
        if not isinstance(metadata.signed, Root):
            raise exceptions.RepositoryError(f"it is {metadata.signed.type} metadata, not root")
        metadata.signed.verify_delegate(Root.type, metadata.signed_bytes, metadata.signatures)


def pin_root(home: Home, data: bytes, digest: str, files: FileSystem) -> None:
    """Store the root under its digest; device.json says which one counts, so writing it changes nothing by itself.

    Raises:
        StorageError: It could not be written.
    """
    path = _pinned_path(home, digest)
    files.make_folder(path.parent)
    write_atomically(files, path, data)
    # The folders above may be new: without their names on disk the file is lost with all that it holds.
    files.sync_folder(home.trust)
    files.sync_folder(home.path)


def load_pinned_root(home: Home, digest: str) -> bytes:
    """Read the pinned root and check that it still has its digest.

    Raises:
        TrustError: It is missing or changed (reason ``trust_damaged``).
    """
    path = _pinned_path(home, digest)
    try:
        data = path.read_bytes()
    except OSError:
        data = b""
    if hashlib.sha256(data).hexdigest() != digest:
        raise TrustError(
            f"The pinned root of trust {path} is missing or was changed.",
            reason="trust_damaged",
            advice="Restore the file from a copy, or enrol the device again with a new line.",
        )
    return data


class TransportFetcher(FetcherInterface):
    """Lets python-tuf download through our transport, so that one place bounds and explains every answer."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def _fetch(self, url: str) -> Iterator[bytes]:
        request = Request("GET", url)
        with self._transport.exchange(request) as answer:
            if answer.status != 200:
                raise _not_there(self._transport, request, answer)
            yield from answer.chunks


def _not_there(transport: Transport, request: Request, answer: Answer) -> Exception:
    # 404 is how TUF learns that there is no newer root; 403 is the same from some object stores.
    error = refusal(transport, request, answer)
    return exceptions.DownloadHTTPError(str(error), answer.status) if answer.status in (403, 404) else error


def _pinned_path(home: Home, digest: str) -> Path:
    return home.trust / "pinned" / f"{digest}.root.json"


def _sync(folder: Path, files: FileSystem) -> None:
    # python-tuf renames without fsync: an empty timestamp.json after a power loss would forget the highest version.
    for name in ("timestamp.json", "snapshot.json", "targets.json"):
        files.sync_file(folder / name)
    files.sync_folder(folder)
    files.sync_folder(folder.parent)

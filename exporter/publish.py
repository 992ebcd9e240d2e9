"""Send a release folder to the server.

Publishing may be repeated: when the server holds the very metadata already, that is success. What the server answers
is checked against what was sent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Root, Targets

from edge_runtime.contract import routes
from edge_runtime.contract.release import custom_of
from edge_runtime.contract.rollout import Rollout
from edge_runtime.errors import ContractError, InputError, TransportError, TrustError
from exporter.files import read_bytes, write_bytes
from exporter.release import check_bundles, summarise
from exporter.release_rules import InUse
from exporter.repository import TARGETS, Repository, load_repository
from exporter.server import Answer, Server
from exporter.tuf_files import METADATA, metadata_files, verify


@dataclass(frozen=True, slots=True)
class ServerState:
    """What the server holds, as far as publishing is concerned.

    Attributes:
        root_version: Newest root, or 0 before the first publish.
        targets_version: Newest targets, or 0 before the first publish.
        online_key: The server's online public key in PEM.
        channels: The rollout of each channel that has one.
    """

    root_version: int
    targets_version: int
    online_key: str
    channels: dict[str, Rollout]

    @property
    def in_use(self) -> InUse:
        """Model and release number of everything that a channel runs or may go back to."""
        return frozenset(
            (rollout.model, number)
            for rollout in self.channels.values()
            for number in (rollout.release, rollout.previous)
            if number is not None
        )


@dataclass(frozen=True, slots=True)
class Published:
    """What the server took: its versions now, the paths added and withdrawn, and whether it held all of it before."""

    targets_version: int
    root_version: int
    added: tuple[str, ...]
    withdrawn: tuple[str, ...]
    held_already: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return the outcome as one JSON-ready object."""
        return {
            "targets_version": self.targets_version,
            "root_version": self.root_version,
            "added": list(self.added),
            "withdrawn": list(self.withdrawn),
            "held_already": self.held_already,
        }


def server_state(server: Server) -> ServerState:
    """Ask the server what it holds.

    Raises:
        TransportError: No answer, a refusal, or an answer that makes no sense.
    """
    value = server.get(routes.PUBLISH).json("GET /api/publish")
    try:
        channels = value.get("channels") or {}
        return ServerState(
            root_version=int(value.get("root_version") or 0),
            targets_version=int(value.get("targets_version") or 0),
            online_key=str(value.get("online_key") or ""),
            channels={name: Rollout.from_dict(entry) for name, entry in channels.items() if entry},
        )
    except (ContractError, TypeError, ValueError, AttributeError) as error:
        raise TransportError(
            f"The server's publishing state makes no sense: {error}.", advice="Update exporter and server together."
        ) from error


def publish_release(server: Server, folder: Path) -> Published:
    """Send a release folder.

    1. The folder verifies as a whole: root chain, targets signatures, bundles. 2. The server knows an older state of
    the same repository. 3. One request carries everything. 4. The answer is checked.

    Args:
        server: The server, with a publisher token.
        folder: A signed release folder.

    Returns:
        What the server took.

    Raises:
        InputError: The folder holds no release.
        TrustError: Signatures are missing, or the server has another online key than root names.
        TransportError: No answer, or a refusal; the status tells which.
    """
    release = load_repository(folder)  # 1
    summarise(folder)
    if release.targets is None:
        raise InputError(f"{folder} holds no release.", advice="Make one with 'exporter release prepare'.")
    check_bundles(folder, release.targets.signed)
    state = server_state(server)  # 2
    if _held(server, state, release):
        version = release.targets.signed.version
        return Published(version, state.root_version, (), (), held_already=True)
    _check_online_key(state, release)
    parts = _parts(folder, release, after_root=state.root_version)
    body, content_type = _multipart(parts)
    try:
        answer = server.send("POST", routes.PUBLISH, body, content_type)  # 3
    except TransportError as error:
        # A first attempt may have arrived although its answer was lost; then the second one conflicts with it.
        if error.status == 409 and _held(server, server_state(server), release):
            return Published(release.targets.signed.version, release.root.version, (), (), held_already=True)
        raise
    return _outcome(answer, release)  # 4


def update_repository(server: Server, repository: Repository) -> Repository:
    """Bring a repository folder to what the server holds: newer roots and targets, each verified before it is written.

    Bundles are not fetched: publishing needs what targets.json says about them, not the files.

    Raises:
        TransportError: The server does not answer or lacks a file.
        TrustError: What it sent does not verify, or its list is older than the folder's.
    """
    state = server_state(server)
    ours = 0 if repository.targets is None else repository.targets.signed.version
    if state.targets_version < ours:
        raise TrustError(
            f"The server holds targets {state.targets_version}, this folder {ours}.",
            reason="server_rolled_back",
            advice="Find out why before publishing: the server may have been restored from an old copy.",
        )
    # Roots of ours that the server lacks wait for the next release; its list is signed under the newest it has.
    known: Root = repository.roots[max(1, min(state.root_version, len(repository.roots))) - 1].signed
    for version in range(len(repository.roots) + 1, state.root_version + 1):
        path, root = _fetch(server, repository.folder, f"{version}.root.json", Root, version)
        verify(root, "root", [known, root.signed], path)
        write_bytes(path, root.to_bytes())
        known = root.signed
    if state.targets_version > ours:
        version = state.targets_version
        path, targets = _fetch(server, repository.folder, f"{version}.targets.json", Targets, version)
        verify(targets, "targets", [known], path)
        for name, target in targets.signed.targets.items():
            custom_of(name, target.unrecognized_fields)
        write_bytes(path, targets.to_bytes())
    return load_repository(repository.folder, strict=False)


def _held(server: Server, state: ServerState, release: Repository) -> bool:
    """Say whether the server holds exactly the targets metadata of a release."""
    if release.targets is None or state.targets_version != release.targets.signed.version:
        return False
    path = f"{routes.METADATA}{state.targets_version}.targets.json"
    try:
        return bool(Metadata[Targets].from_bytes(server.get(path).body).signed == release.targets.signed)
    except RepositoryError:
        return False


def _check_online_key(state: ServerState, release: Repository) -> None:
    if not state.online_key:
        return
    from exporter.keys import PublicKey

    key = _online_key(state.online_key)
    if PublicKey(None, key).tuf.keyid not in release.root.roles["timestamp"].keyids:
        raise TrustError(
            "The server signs with another online key than root names.",
            reason="wrong_online_key",
            advice="Print its key with 'sync-server online-key'; 'exporter repository renew --online-key' names it.",
        )


def _online_key(pem: str) -> Any:
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(pem.encode())
    except ValueError:
        key = None
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise TransportError("The server's online key cannot be read.", advice="Update exporter and server together.")
    return key


def _parts(folder: Path, release: Repository, *, after_root: int) -> list[tuple[str, bytes]]:
    files = metadata_files(folder)
    parts = [
        (f"{METADATA}/{path.name}", read_bytes(path))
        for (role, version), path in sorted(files.items())
        if role == "root" and version > after_root
    ]
    assert release.targets is not None  # noqa: S101
    targets = files["targets", release.targets.signed.version]
    parts.append((f"{METADATA}/{targets.name}", read_bytes(targets)))
    for path in sorted((folder / TARGETS).rglob("*.bundle")):
        name = path.relative_to(folder / TARGETS).as_posix()
        if name in release.targets.signed.targets:
            parts.append((f"{TARGETS}/{name}", read_bytes(path)))
    return parts


def _multipart(parts: Sequence[tuple[str, bytes]]) -> tuple[bytes, str]:
    from urllib3.fields import RequestField
    from urllib3.filepost import encode_multipart_formdata

    fields = []
    for name, content in parts:
        field = RequestField(name=name, data=content, filename=name.rsplit("/", 1)[-1])
        field.make_multipart(content_type="application/octet-stream")
        fields.append(field)
    return encode_multipart_formdata(fields)


def _outcome(answer: Answer, release: Repository) -> Published:
    value = answer.json("POST /api/publish")
    assert release.targets is not None  # noqa: S101
    if value.get("targets_version") != release.targets.signed.version:
        raise TransportError(
            f"The server says that it holds targets {value.get('targets_version')} now, not the ones sent.",
            status=answer.status,
            advice="Look at 'GET /api/publish' and at the server's log.",
        )
    added, withdrawn = (tuple(str(path) for path in value.get(name) or ()) for name in ("added", "withdrawn"))
    root_version = int(value.get("root_version") or release.root.version)
    return Published(release.targets.signed.version, root_version, added, withdrawn)


def _fetch(server: Server, folder: Path, name: str, kind: Any, version: int) -> tuple[Path, Any]:
    path = folder / METADATA / name
    try:
        metadata = Metadata.from_bytes(server.get(f"{routes.METADATA}{name}").body)
    except RepositoryError as error:
        raise TrustError(f"The server's {name} is not TUF metadata.", reason="bad_metadata") from error
    if metadata.signed.type != kind.type or metadata.signed.version != version:
        raise TrustError(f"The server's {name} is not what its name says.", reason="bad_metadata")
    return path, metadata

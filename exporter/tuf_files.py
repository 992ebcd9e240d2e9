"""TUF metadata as files ``metadata/N.ROLE.json``: read, verified, signed, written. Knows no releases."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Root, Targets

from edge_runtime.errors import TrustError
from exporter.files import read_bytes, write_bytes
from exporter.keys import ReleaseKey

METADATA = "metadata"
T = TypeVar("T", Root, Targets)
_VERSIONED = re.compile(r"([1-9][0-9]{0,8})\.(root|targets)\.json")


def read_metadata(path: Path, kind: type[T]) -> Metadata[T]:
    """Read one metadata file without verifying it.

    Raises:
        TrustError: Not metadata of that kind, or another version than its name says; reason ``bad_metadata``.
        InputError: The file cannot be read.
    """
    try:
        metadata: Metadata[T] = Metadata.from_bytes(read_bytes(path))
    except RepositoryError as error:
        raise _bad(path, "is not TUF metadata") from error
    name = _VERSIONED.fullmatch(path.name)
    if metadata.signed.type != kind.type or name is None or metadata.signed.version != int(name.group(1)):
        raise _bad(path, "is not what its name says")
    return metadata


def verify(metadata: Metadata[Root] | Metadata[Targets], role: str, roots: Sequence[Root], path: Path) -> None:
    """Check that enough keys of each of some roots signed.

    Raises:
        TrustError: Too few valid signatures; reason ``bad_metadata``.
    """
    for root in roots:
        result = root.get_verification_result(role, metadata.signed_bytes, metadata.signatures)
        if not result:
            raise TrustError(
                f"{path.name} carries {len(result.signed)} of {result.threshold} needed {role} signatures.",
                reason="bad_metadata",
                advice=f"Add one with 'exporter sign {path.parent.parent} --key FILE'.",
                path=str(path),
            )


def sign_metadata(
    metadata: Metadata[Root] | Metadata[Targets], role: str, roots: Sequence[Root], signers: Sequence[ReleaseKey]
) -> list[ReleaseKey]:
    """Add the signature of every given key that one of some roots names for a role.

    Args:
        metadata: What to sign.
        role: ``root`` or ``targets``.
        roots: Roots that name the keys; a new root is signed by keys of the old and the new one.
        signers: Private keys at hand.

    Returns:
        The keys that signed.
    """
    from securesystemslib.signer import CryptoSigner

    allowed = {key_id for root in roots for key_id in root.roles[role].keyids}
    signed = []
    for key in signers:
        tuf_key = key.public.tuf
        if tuf_key.keyid in allowed:
            metadata.sign(CryptoSigner(key.private, tuf_key), append=True)
            signed.append(key)
    return signed


def write_metadata(folder: Path, metadata: Metadata[Root] | Metadata[Targets]) -> Path:
    """Write metadata as ``metadata/N.ROLE.json``, whole or not at all.

    Raises:
        StorageError: It cannot be written.
    """
    path = folder / METADATA / f"{metadata.signed.version}.{metadata.signed.type}.json"
    write_bytes(path, metadata.to_bytes())
    return path


def metadata_files(folder: Path) -> dict[tuple[str, int], Path]:
    """Return the metadata files of a folder by role and version; other names are ignored."""
    return listing(folder)[1]


def listing(folder: Path) -> tuple[dict[str, int], dict[tuple[str, int], Path]]:
    """Return the newest version of each role (0: none) and the files by role and version."""
    newest = {"root": 0, "targets": 0}
    files = {}
    for path in sorted((folder / METADATA).glob("*.json")):
        if name := _VERSIONED.fullmatch(path.name):
            version, role = int(name.group(1)), name.group(2)
            files[role, version] = path
            newest[role] = max(newest[role], version)
    return newest, files


def _bad(path: Path, what: str) -> TrustError:
    return TrustError(
        f"{path} {what}.",
        reason="bad_metadata",
        advice="Restore it from the server with 'exporter repository update', or from a colleague.",
        path=str(path),
    )

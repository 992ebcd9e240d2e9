"""The online key: ECDSA P-256, in one file that only its owner may read. It signs snapshot and timestamp, nothing else.

The release engineer puts its public half into root (``exporter repository create --online-key``); a server whose key
is not the one in root cannot sign anything that a device accepts.
"""

from __future__ import annotations

from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from securesystemslib.exceptions import FormatError
from securesystemslib.signer import CryptoSigner, Key, SSlibKey
from tuf.api.metadata import Root

from edge_runtime.errors import StorageError, TrustError
from sync_server.private_files import check_private, create_once

ONLINE_ROLES = ("snapshot", "timestamp")
OFFLINE_ROLES = ("root", "targets")


def load_or_create(path: Path) -> ec.EllipticCurvePrivateKey:
    """Return the key, made on first use; processes that start together agree on one.

    Raises:
        StorageError: The file cannot be read or written, is open to others, or holds no P-256 key.
    """
    try:
        if not path.exists():
            _create(path)
    except OSError as error:
        raise _unusable(path, error) from error
    return load(path)


def load(path: Path) -> ec.EllipticCurvePrivateKey:
    """Return the key of a file that is there.

    Raises:
        StorageError: The file is missing, cannot be read, is open to others, or holds no P-256 key.
    """
    try:
        check_private(path, "The online key")
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError) as error:
        raise _unusable(path, error) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise StorageError(f"The online key {path} is no ECDSA P-256 key.", advice="Use the one this server made.")
    return key


def _unusable(path: Path, error: Exception) -> StorageError:
    return StorageError(
        f"The online key {path} cannot be used: {error}.", advice="Restore it from the backup of this server."
    )


def _create(path: Path) -> None:
    body = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    create_once(path, body)


def public_pem(key: ec.EllipticCurvePrivateKey) -> str:
    """Return the public half as PEM, which ``exporter repository create`` wants."""
    return (
        key.public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        .decode()
    )


def _same_key(entry: Key, key: ec.EllipticCurvePrivateKey) -> bool:
    """Whether a key of root is ours; compared as points, since texts of one key can differ."""
    try:
        listed = serialization.load_pem_public_key(str(entry.keyval["public"]).encode())
    except (ValueError, KeyError):
        return False
    return (
        isinstance(listed, ec.EllipticCurvePublicKey) and listed.public_numbers() == key.public_key().public_numbers()
    )


def check_root_names(root: Root, key: ec.EllipticCurvePrivateKey) -> None:
    """Check that root gives our key snapshot and timestamp, alone, and nothing more.

    Raises:
        TrustError: With reason ``online_key``.
    """
    ours = {keyid for keyid, entry in root.keys.items() if _same_key(entry, key)}
    for role in ONLINE_ROLES:
        listed = root.roles[role]
        if len(ours) != 1 or set(listed.keyids) != ours or listed.threshold != 1:
            raise TrustError(
                f"Root version {root.version} does not give {role} exactly this server's online key.",
                reason="online_key",
                advice="Put the output of: sync-server online-key into root, for snapshot and timestamp.",
            )
    for role in OFFLINE_ROLES:
        if ours & set(root.roles[role].keyids):
            raise TrustError(
                f"Root version {root.version} gives this server's online key the role {role}.",
                reason="online_key",
                advice="Root and targets need keys of their own that never are on a server.",
            )


def signer_for(root: Root, key: ec.EllipticCurvePrivateKey) -> CryptoSigner:
    """Return what signs with our key under the id that root gives it.

    Raises:
        TrustError: The key in root is not ours, see :func:`check_root_names`.
    """
    check_root_names(root, key)
    entry = root.keys[root.roles["timestamp"].keyids[0]]
    if not isinstance(entry, SSlibKey):
        raise TrustError("Root lists the online key in an unknown form.", reason="online_key")
    try:
        return CryptoSigner(key, entry)
    except (FormatError, ValueError) as error:
        raise TrustError(
            f"Root lists the online key with a scheme that it cannot sign: {error}.",
            reason="online_key",
            advice="Use the scheme ecdsa-sha2-nistp256.",
        ) from error

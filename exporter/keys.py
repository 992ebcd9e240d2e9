"""Release keys: ECDSA P-256, one key a file, one role a key.

The private key is PKCS#8 under a passphrase in a file of mode 0600; the public one lies beside it as ``NAME.pub`` and
may travel. The role stands in the text before the PEM block (RFC 7468 section 2 allows it). It guards against mixing
up files; what a key may do is decided by root.json alone. Nothing here ever overwrites a file.

Example::

    key = create_key(Path("targets.key"), "targets", b"correct horse")
    key = load_key(Path("targets.key"), lambda: b"correct horse")
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

from edge_runtime.errors import InputError, StorageError, TrustError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey, EllipticCurvePublicKey
    from securesystemslib.signer import SSlibKey

Role = Literal["root", "targets"]
ROLES: tuple[Role, ...] = ("root", "targets")
PUBLIC_SUFFIX = ".pub"
_HEADER = "Stella Edge release key\nrole: {role}\n"
_ROLE = re.compile(r"^role: (root|targets)$", re.MULTILINE)
_BLOCK = re.compile(rb"-----BEGIN ([A-Z ]+)-----")
# A key file has 400 bytes; anything much larger is another file.
_MAX_KEY_BYTES = 16_384


@dataclass(frozen=True, slots=True)
class ReleaseKey:
    """A private key with the role its file names (None in files made elsewhere)."""

    role: Role | None
    private: EllipticCurvePrivateKey

    @property
    def public(self) -> PublicKey:
        """The public half."""
        return PublicKey(self.role, self.private.public_key())


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A public key with the role its file names (None in files made elsewhere)."""

    role: Role | None
    key: EllipticCurvePublicKey

    @property
    def text(self) -> str:
        """The key as targets.json names a signer: base64 of DER SubjectPublicKeyInfo."""
        from edge_runtime.contract.signature import public_key_text

        return public_key_text(self.key)

    @property
    def tuf(self) -> SSlibKey:
        """The key as TUF metadata holds it; its id is a digest of it."""
        from securesystemslib.signer import SSlibKey

        return SSlibKey.from_crypto(self.key)

    @property
    def pem(self) -> bytes:
        """The key as a PEM block."""
        from cryptography.hazmat.primitives import serialization

        return self.key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def create_key(path: Path, role: Role, passphrase: bytes | None) -> ReleaseKey:
    """Make a key and write ``path`` (private, mode 0600) and ``path.pub``.

    Args:
        path: File of the private key.
        role: What it is for.
        passphrase: Encrypts the private key; None leaves it open, which is for demos.

    Returns:
        The key.

    Raises:
        InputError: One of the files exists, or the passphrase is empty.
        StorageError: The files cannot be written.
    """
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    if passphrase is not None and not passphrase:
        raise InputError("The passphrase is empty.", advice="Give one, or say --no-passphrase for a demo.")
    encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if passphrase is not None:
        encryption = serialization.BestAvailableEncryption(passphrase)
    key = ReleaseKey(role, ec.generate_private_key(ec.SECP256R1()))
    pem = key.private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
    header = _HEADER.format(role=role).encode()
    public_path = path.with_name(path.name + PUBLIC_SUFFIX)
    for existing in (path, public_path):
        if existing.exists():
            raise _exists(existing)
    _write_new(path, header + pem, 0o600)
    _write_new(public_path, header + key.public.pem, 0o644)
    return key


def load_key(path: Path, passphrase: Callable[[], bytes]) -> ReleaseKey:
    """Read a private key.

    Args:
        path: File of the private key.
        passphrase: Called only when the key is encrypted.

    Returns:
        The key.

    Raises:
        InputError: Not a readable file, more than one key in it, no private key, or another kind of key.
        TrustError: The passphrase is wrong; reason ``wrong_passphrase``.
    """
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    data, role = _read(path)
    encrypted = b"ENCRYPTED PRIVATE KEY" in data
    secret = passphrase() if encrypted else None
    try:
        private = serialization.load_pem_private_key(data, secret)
    except (ValueError, TypeError) as error:
        if encrypted:
            raise TrustError(
                f"The passphrase does not open {path}.",
                reason="wrong_passphrase",
                advice="Try again; a lost passphrase cannot be recovered, only the key replaced.",
                path=str(path),
            ) from error
        raise _not_a_key(path, "a private key") from error
    if not isinstance(private, ec.EllipticCurvePrivateKey) or not isinstance(private.curve, ec.SECP256R1):
        raise _not_a_key(path, "an ECDSA P-256 key")
    return ReleaseKey(role, private)


def load_public_key(path: Path) -> PublicKey:
    """Read a public key: a ``.pub`` file, or any PEM SubjectPublicKeyInfo such as the server's online key.

    Raises:
        InputError: Not a readable file, more than one key in it, no public key, or another kind of key.
    """
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    data, role = _read(path)
    try:
        public = serialization.load_pem_public_key(data)
    except ValueError as error:
        raise _not_a_key(path, "a public key") from error
    if not isinstance(public, ec.EllipticCurvePublicKey) or not isinstance(public.curve, ec.SECP256R1):
        raise _not_a_key(path, "an ECDSA P-256 key")
    return PublicKey(role, public)


def require_role(key: ReleaseKey | PublicKey, role: Role, path: Path) -> None:
    """Refuse a key file that says it is for another role.

    Raises:
        InputError: It says so.
    """
    if key.role is not None and key.role != role:
        raise InputError(
            f"{path} is a {key.role} key, not a {role} key.",
            advice=f"Give the {role} key; the roles are kept apart so that one stolen file is not both.",
            path=str(path),
        )


def _read(path: Path) -> tuple[bytes, Role | None]:
    try:
        with path.open("rb") as stream:
            data = stream.read(_MAX_KEY_BYTES + 1)
    except OSError as error:
        raise InputError(
            f"The key file {path} cannot be read: {error.strerror or error}.",
            advice="Check the name, or make a key with 'exporter keys create'.",
            path=str(path),
        ) from error
    blocks = _BLOCK.findall(data)
    if len(blocks) != 1 or len(data) > _MAX_KEY_BYTES:
        raise InputError(
            f"{path} holds {len(blocks)} keys; a key file holds exactly one.",
            advice="Keep one key a file, and root and targets keys apart.",
            path=str(path),
        )
    named = _ROLE.search(data.split(b"-----BEGIN", 1)[0].decode("utf-8", "replace"))
    return data, cast("Role", named.group(1)) if named else None


def _write_new(path: Path, data: bytes, mode: int) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(path, error) from error
    try:
        # O_EXCL: two runs at once cannot overwrite each other's key either.
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    except FileExistsError as error:
        raise _exists(path) from error
    except OSError as error:
        raise _unwritable(path, error) from error
    try:
        with open(descriptor, "wb") as stream:  # noqa: PTH123 - pathlib cannot create with a mode
            stream.write(data)
            stream.flush()
            os.fsync(descriptor)
    except OSError as error:
        with contextlib.suppress(OSError):
            path.unlink()
        raise _unwritable(path, error) from error


def _exists(path: Path) -> InputError:
    return InputError(
        f"{path} exists already; a key is never overwritten.",
        advice="Name another file; move the old key away only when nothing depends on it.",
        path=str(path),
    )


def _unwritable(path: Path, error: OSError) -> StorageError:
    return StorageError(
        f"The key could not be written to {path}: {error.strerror or error}.",
        advice="Check the folder, its permissions and free space.",
        path=str(path),
    )


def _not_a_key(path: Path, what: str) -> InputError:
    return InputError(
        f"{path} does not hold {what}.",
        advice="Release keys are ECDSA P-256 in PEM; make one with 'exporter keys create'.",
        path=str(path),
    )

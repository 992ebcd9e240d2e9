"""A release engineer in memory: offline keys, root and targets metadata made with python-tuf, and what gets published."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from securesystemslib.signer import CryptoSigner, SSlibKey
from simulators.bundles import BuiltBundle
from tuf.api.metadata import Metadata, Root, TargetFile, Targets

from edge_runtime.contract.release import CUSTOM_FIELD, FLOOR_FIELD

Parts = dict[str, bytes]


def in_days(days: float) -> datetime:
    return (datetime.now(UTC) + timedelta(days=days)).replace(microsecond=0)


@dataclass
class ReleaseEngineer:
    """Holds the keys of root and targets, and a repository's history; every part of it may be bent by a test."""

    online_pem: str
    root_keys: list[CryptoSigner] = field(default_factory=lambda: [CryptoSigner.generate_ecdsa()])
    targets_keys: list[CryptoSigner] = field(default_factory=lambda: [CryptoSigner.generate_ecdsa()])

    def __post_init__(self) -> None:
        self.root = Root(expires=in_days(730), consistent_snapshot=True)
        for signer in self.root_keys:
            self.root.add_key(signer.public_key, "root")
        for signer in self.targets_keys:
            self.root.add_key(signer.public_key, "targets")
        self.online = self.key_of(self.online_pem)
        for role in ("snapshot", "timestamp"):
            self.root.add_key(self.online, role)
        self.targets = Targets(expires=in_days(365))
        self.root.version = self.targets.version = 0  # signing counts up first
        self.roots: dict[int, bytes] = {}

    @staticmethod
    def key_of(pem: str) -> SSlibKey:
        key = load_pem_public_key(pem.encode())
        assert isinstance(key, ec.EllipticCurvePublicKey)
        return SSlibKey.from_crypto(key)

    def sign_root(self, *more: CryptoSigner) -> Parts:
        """Sign the next root, and return its part."""
        self.root.version += 1
        body = self.sealed(self.root, [*self.root_keys, *more])
        self.roots[self.root.version] = body
        return {f"metadata/{self.root.version}.root.json": body}

    def sign_targets(self, *bundles: BuiltBundle, **floor: int) -> Parts:
        """List bundles on top of those that are listed, sign, and return the parts."""
        for bundle in bundles:
            self.list(bundle)
        if floor:
            self.targets.unrecognized_fields[FLOOR_FIELD] = floor
        self.targets.version += 1
        parts = {f"targets/{bundle.path}": bundle.data for bundle in bundles}
        return {f"metadata/{self.targets.version}.targets.json": self.sealed(self.targets, self.targets_keys), **parts}

    def list(self, bundle: BuiltBundle, **custom: Any) -> None:
        """List a bundle, with changes to its custom field."""
        unrecognized = {CUSTOM_FIELD: {**bundle.custom.to_dict(), **custom}}
        digest = hashlib.sha256(bundle.data).hexdigest()
        self.targets.targets[bundle.path] = TargetFile(len(bundle.data), {"sha256": digest}, bundle.path, unrecognized)

    @staticmethod
    def sealed(signed: Any, signers: Any) -> bytes:
        metadata = Metadata(signed)
        for number, signer in enumerate(signers):
            metadata.sign(signer, append=number > 0)
        return bytes(metadata.to_bytes())


def multipart(parts: Parts) -> dict[str, Any]:
    """Return parts as Flask's test client wants them."""
    return {name: (io.BytesIO(body), name.rpartition("/")[2]) for name, body in parts.items()}

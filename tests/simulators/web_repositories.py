"""Repositories for the tests of the browser's library, good ones and attacks, as JSON that Vitest reads.

Signed by python-tuf's own classes, so that the library in TypeScript verifies what a real server would show it. A scene
is what a repository shows at one moment: its metadata and target files by name, in base64.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from securesystemslib.signer import CryptoSigner
from simulators.bundles import BuiltBundle, SmallBundle
from simulators.repository import RepositorySimulator
from tuf.api.metadata import Key, Metadata, MetaFile

from edge_runtime.contract import signature
from edge_runtime.contract.archive import pack, unpack

FIRST = SmallBundle().build()
SECOND = SmallBundle(version="2.0.0", release_number=2, bias=0.5).build()


class Scenes:
    """What the repository of one test shows, moment after moment; its first release is rolled out when it begins."""

    def __init__(self) -> None:
        self.server = RepositorySimulator()
        self.server.publish(FIRST)
        self.server.roll_out(1)
        self.line = str(self.server.enrolment_line())
        self.moments: dict[str, Any] = {}
        self.show("first")

    def show(self, moment: str) -> None:
        """Keep what the server shows now."""
        self.moments[moment] = {"metadata": _encoded(self.server.metadata), "targets": _encoded(self.server.files)}

    def to_dict(self) -> dict[str, Any]:
        """Return the enrolment line and the moments, JSON-ready."""
        return {"line": self.line, "moments": self.moments}


def scenes() -> dict[str, Any]:
    """Every scene by name."""
    builders = (_updates, _rotations, _foreign_keys, _threshold, _rollbacks, _hashes, _offers)
    return {builder.__name__[1:]: builder().to_dict() for builder in builders}


def _updates() -> Scenes:
    it = Scenes()
    it.server.publish(SECOND)
    it.server.roll_out(2, previous=1)
    it.show("second")
    it.server.roll_out(2, previous=1, state="rolled_back")
    it.show("rolled back")
    it.server.publish(floor={"pumps": 2})
    it.show("below the floor")
    return it


def _rotations() -> Scenes:
    it = Scenes()
    for role in ("online", "targets", "root"):
        it.server.rotate(role)
        it.show(role)
    return it


def _foreign_keys() -> Scenes:
    it = Scenes()
    stranger = CryptoSigner.generate_ecdsa()
    it.server.publish(SECOND)
    before = it.server.signers["online"]
    it.server.signers["online"] = stranger
    it.server.sign_timestamp()
    it.show("timestamp by a stranger")
    it.server.signers["online"] = before
    it.server.sign_targets(stranger)
    it.show("targets by a stranger")
    it.server.root.version += 1
    it.server._sign_root([stranger])
    it.show("root by a stranger")
    return it


def _threshold() -> Scenes:
    """Two targets keys must sign; one does, or does under two ids."""
    it = Scenes()
    second = CryptoSigner.generate_ecdsa()
    server = it.server
    server.root.add_key(second.public_key, "targets")
    server.root.roles["targets"].threshold = 2
    server.root.version += 1
    server._sign_root([server.signers["root"]])
    server.sign_targets()
    it.show("one signature")
    name = f"{server.targets.version}.targets.json"
    metadata = Metadata(server.targets)
    metadata.sign(server.signers["targets"])
    metadata.sign(second, append=True)
    server.metadata[name] = metadata.to_bytes()
    it.show("two signatures")
    server.root.keys["twin"] = Key.from_dict("twin", server.signers["targets"].public_key.to_dict())
    server.root.roles["targets"].keyids = [server.signers["targets"].public_key.keyid, "twin"]
    server.root.version += 1
    server._sign_root([server.signers["root"]])
    alone = json.loads(Metadata(server.targets).to_bytes())
    signature = Metadata(server.targets).sign(server.signers["targets"]).signature
    alone["signatures"] = [
        {"keyid": keyid, "sig": signature} for keyid in (server.signers["targets"].public_key.keyid, "twin")
    ]
    server.metadata[name] = json.dumps(alone).encode()
    it.show("one key under two ids")
    return it


def _rollbacks() -> Scenes:
    it = Scenes()
    server = it.server
    server.publish(SECOND)
    it.show("second")
    server.snapshot.version -= 2
    server.sign_snapshot()
    it.show("snapshot of an older number")
    server.snapshot.version += 5
    server.snapshot.meta["targets.json"] = MetaFile(server.targets.version - 1)
    server._write(f"{server.snapshot.version}.snapshot.json", server.snapshot, server.signers["online"])
    server.sign_timestamp()
    it.show("targets of an older number")
    name = f"{server.snapshot.version}.snapshot.json"
    server.metadata[name] = server.metadata[f"{server.snapshot.version - 5}.snapshot.json"]
    it.show("mix and match")
    return it


def _hashes() -> Scenes:
    it = Scenes()
    server = it.server
    for moment in ("right", "wrong hash", "wrong length"):
        server.sign_targets()
        data = server.metadata[f"{server.targets.version}.targets.json"]
        shown = data if moment != "wrong hash" else data[:-1] + b" "
        server.snapshot.version += 1
        digest = hashlib.sha256(data).hexdigest()
        length = len(data) - (moment == "wrong length")
        server.snapshot.meta["targets.json"] = MetaFile(server.targets.version, length, {"sha256": digest})
        server._write(f"{server.snapshot.version}.snapshot.json", server.snapshot, server.signers["online"])
        server.sign_timestamp()
        server.metadata[f"{server.targets.version}.targets.json"] = shown
        it.show(moment)
    return it


def _offers() -> Scenes:
    """Bundles that may not run, each rolled out to everybody; the moment is the reason."""
    it = Scenes()
    for reason, bundle in _refused_bundles():
        it.server.publish(bundle)
        it.server.roll_out(bundle.what.release_number, previous=1)
        it.show(reason)
        it.server.withdraw(bundle)
    it.server.roll_out(9, previous=1)
    it.show("release_missing")
    it.server.roll_out(1, model="fridges")
    it.show("wrong_model")
    return it


def _refused_bundles() -> Iterator[tuple[str, BuiltBundle]]:
    base = SmallBundle(version="2.0.0", release_number=2)
    good = base.build()
    yield "golden_failed", replace(base, golden_shift=0.5).build()
    yield "below_goals", replace(base, below_goals=("It misses one.",)).build()
    yield "wrong_channel", replace(base, channels=("beta",)).build()
    stranger = ec.generate_private_key(ec.SECP256R1())
    yield "bad_signature", replace(base.build(stranger), key=good.key)
    changed = good.files | {"MODEL_CARD.md": b"# another\n"}
    yield "bad_bundle", BuiltBundle(base, pack(changed), changed, good.key)
    yield "newer_format", _with_manifest(good, lambda manifest: manifest | {"format": 2})
    yield "newer_runtime", _with_manifest(good, lambda m: m | {"runtime": {"onnxruntime": ">=99.1"}})


def _with_manifest(bundle: BuiltBundle, change: Callable[[dict[str, Any]], dict[str, Any]]) -> BuiltBundle:
    files = {name: content for name, content in unpack(bundle.data).items() if name != "model.sig"}
    files["manifest.json"] = json.dumps(change(json.loads(files["manifest.json"]))).encode()
    files["model.sig"] = signature.sign(files, bundle.key)
    return BuiltBundle(bundle.what, pack(files), files, bundle.key)


def _encoded(files: dict[str, bytes]) -> dict[str, str]:
    return {name: base64.b64encode(data).decode() for name, data in files.items()}

"""A server in memory behind the Transport protocol: a real TUF repository, enrolment, ingest, and every misdeed.

It signs with fresh P-256 keys through python-tuf's own metadata classes, so that devices verify what a real server
would show them. ``faults`` say what goes wrong with which request.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from securesystemslib.signer import CryptoSigner
from simulators.bundles import BuiltBundle
from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, TargetFile, Targets, Timestamp

from edge_runtime.contract.batch import Refusal, ResultsAnswer, decode_batch, ranges
from edge_runtime.contract.enrolment import EnrolmentLine
from edge_runtime.contract.problem import MEDIA_TYPE, Problem
from edge_runtime.contract.release import CUSTOM_FIELD, FLOOR_FIELD
from edge_runtime.contract.result import AnyRecord, record_digest
from edge_runtime.contract.rollout import FIELD, Rollout
from edge_runtime.contract.routes import DEVICE_STATUS, DEVICES, METADATA, RESULTS, TARGETS
from edge_runtime.errors import TransportError
from edge_runtime.transport import Answer, Request

CHUNK = 1024
Handled = tuple[int, dict[str, str], bytes]


@dataclass
class Fault:
    """Something that goes wrong with requests whose path holds ``match``.

    Kinds: ``drop`` (no connection), ``cut`` (the answer breaks off after ``after`` bytes), ``corrupt`` (one bit flips
    at byte ``after``), ``endless`` (the answer never ends), ``answer`` (``status``, ``headers``, ``body`` instead),
    ``lost`` (the request is served, its answer is lost).
    """

    match: str
    kind: str
    times: int = 1_000_000
    after: int = 0
    status: int = 500
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass
class SimulatedDevice:
    """What the server knows of a device."""

    device_id: str
    token: str
    body: dict[str, Any]
    held: dict[str, dict[int, bytes]] = field(default_factory=dict)
    records: list[tuple[str, AnyRecord]] = field(default_factory=list)
    statuses: list[dict[str, Any]] = field(default_factory=list)


class RepositorySimulator:
    """One server."""

    server_url = "https://fleet.example"

    def __init__(self, model: str = "pumps", channel: str = "stable") -> None:
        self.model, self.channel = model, channel
        self.enrolment_tokens = {secrets.token_urlsafe(32)}
        self.devices: dict[str, SimulatedDevice] = {}
        self.faults: list[Fault] = []
        self.requests: list[Request] = []
        self.ranges_honoured = True
        self.files: dict[str, bytes] = {}
        self.rollouts: dict[str, Rollout] = {}
        self.refuse: Callable[[AnyRecord], str | None] = lambda record: None
        self.signers = {role: CryptoSigner.generate_ecdsa() for role in ("root", "targets", "online")}
        self.lifetimes = {"timestamp": timedelta(days=7), "snapshot": timedelta(days=30)}
        self.metadata: dict[str, bytes] = {}
        root = Root(expires=_in(timedelta(days=730)), consistent_snapshot=True)
        root.add_key(self.signers["root"].public_key, "root")
        root.add_key(self.signers["targets"].public_key, "targets")
        for role in ("snapshot", "timestamp"):
            root.add_key(self.signers["online"].public_key, role)
        self.root = root
        self.targets = Targets(expires=_in(timedelta(days=365)))
        self.snapshot = Snapshot()
        self.timestamp = Timestamp()
        self._sign_root([self.signers["root"]])
        self.publish()

    # What a release engineer and the server do.

    def publish(self, *bundles: BuiltBundle, floor: dict[str, int] | None = None) -> None:
        """List bundles in a new targets.json, and sign snapshot and timestamp over it."""
        for bundle in bundles:
            unrecognized = {CUSTOM_FIELD: bundle.custom.to_dict()}
            hashes = {"sha256": bundle.digest}
            self.targets.targets[bundle.path] = TargetFile(len(bundle.data), hashes, bundle.path, unrecognized)
            folder, _, name = bundle.path.rpartition("/")
            self.files[f"{folder}/{bundle.digest}.{name}"] = bundle.data
        if floor is not None:
            self.targets.unrecognized_fields[FLOOR_FIELD] = floor
        self.sign_targets()

    def withdraw(self, bundle: BuiltBundle) -> None:
        """List a bundle no longer."""
        del self.targets.targets[bundle.path]
        self.sign_targets()

    def roll_out(self, release: int, previous: int | None = None, **changes: Any) -> None:
        """Start or change the rollout of the channel."""
        fields: dict[str, Any] = {"share": 10_000, "state": "running", "salt": "0" * 32, "model": self.model, "id": 1}
        self.rollouts[self.channel] = Rollout(release=release, previous=previous, **{**fields, **changes})
        self.sign_timestamp()

    def sign_targets(self, signer: CryptoSigner | None = None) -> None:
        self.targets.version += 1
        self._write(f"{self.targets.version}.targets.json", self.targets, signer or self.signers["targets"])
        self.sign_snapshot()

    def sign_snapshot(self) -> None:
        self.snapshot.version += 1
        self.snapshot.expires = _in(self.lifetimes["snapshot"])
        self.snapshot.meta["targets.json"] = MetaFile(self.targets.version)
        self._write(f"{self.snapshot.version}.snapshot.json", self.snapshot, self.signers["online"])
        self.sign_timestamp()

    def sign_timestamp(self) -> None:
        self.timestamp.version += 1
        self.timestamp.expires = _in(self.lifetimes["timestamp"])
        self.timestamp.snapshot_meta = MetaFile(self.snapshot.version)
        self.timestamp.unrecognized_fields[FIELD] = {name: r.to_dict() for name, r in self.rollouts.items()}
        self._write("timestamp.json", self.timestamp, self.signers["online"])

    def rotate(self, role: str) -> None:
        """Give a role (``root``, ``targets`` or ``online``) a new key, in a new root signed by old and new root keys."""
        old_root = self.signers["root"]
        old, new = self.signers[role], CryptoSigner.generate_ecdsa()
        self.signers[role] = new
        for name in ("snapshot", "timestamp") if role == "online" else (role,):
            self.root.revoke_key(old.public_key.keyid, name)
            self.root.add_key(new.public_key, name)
        self.root.version += 1
        self._sign_root([old_root, self.signers["root"]])
        self.sign_targets()

    def enrolment_line(self) -> EnrolmentLine:
        """What an operator hands to a device."""
        root = self.metadata[f"{self.root.version}.root.json"]
        token = next(iter(self.enrolment_tokens))
        return EnrolmentLine(self.server_url, token, hashlib.sha256(root).hexdigest(), self.targets.version)

    def state(self) -> dict[str, bytes]:
        """Copy of what the repository shows now, for a later replay through ``metadata``."""
        return dict(self.metadata)

    def _sign_root(self, signers: list[CryptoSigner]) -> None:
        metadata = Metadata(self.root)
        for number, signer in enumerate(signers):
            metadata.sign(signer, append=number > 0)
        data = metadata.to_bytes()
        self.metadata[f"{self.root.version}.root.json"] = data
        self.metadata[f"root-{hashlib.sha256(data).hexdigest()}.json"] = data

    def _write(self, name: str, signed: Targets | Snapshot | Timestamp, signer: CryptoSigner) -> None:
        metadata = Metadata(signed)  # type: ignore[type-var]
        metadata.sign(signer)
        self.metadata[name] = metadata.to_bytes()

    # What a device sees.

    @contextlib.contextmanager
    def exchange(self, request: Request) -> Iterator[Answer]:
        """Serve a request, unless a fault says otherwise."""
        self.requests.append(request)
        fault = self._fault(request.path)
        if fault is not None and fault.kind == "drop":
            raise TransportError(
                f"{request.method} {request.path} failed: dropped.", advice="Try again.", never_sent=True
            )
        if fault is not None and fault.kind == "answer":
            status, headers, body = fault.status, fault.headers, fault.body
        else:
            status, headers, body = self._serve(request)
        if fault is not None and fault.kind == "lost":
            raise TransportError(f"{request.method} {request.path} failed: the answer was lost.", advice="Try again.")
        yield Answer(status, {name.lower(): value for name, value in headers.items()}, _chunks(body, fault))

    def _fault(self, path: str) -> Fault | None:
        for fault in self.faults:
            if fault.match in path and fault.times > 0:
                fault.times -= 1
                return fault
        return None

    def _serve(self, request: Request) -> Handled:
        path = request.path
        if request.method == "GET" and path.startswith(METADATA):
            return _file(self.metadata.get(path.removeprefix(METADATA)))
        if request.method == "GET" and path.startswith(TARGETS):
            return self._target(self.files.get(path.removeprefix(TARGETS)), request)
        if request.method == "POST" and path == DEVICES:
            return self._enrol(request)
        if request.method == "POST" and path in (RESULTS, DEVICE_STATUS):
            device = next((d for d in self.devices.values() if d.token == _token(request)), None)
            if device is None:
                return problem(401, "token_revoked", "This token was revoked.")
            return self._results(device, request) if path == RESULTS else self._status(device, request)
        return problem(404, "not_found", "There is nothing here.")

    def _target(self, data: bytes | None, request: Request) -> Handled:
        wanted = request.headers.get("Range")
        if data is None or wanted is None or not self.ranges_honoured:
            return _file(data)
        start = int(wanted.removeprefix("bytes=").removesuffix("-"))
        if start >= len(data):
            return 416, {"Content-Range": f"bytes */{len(data)}"}, b""
        return 206, {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"}, data[start:]

    def _enrol(self, request: Request) -> Handled:
        if _token(request) not in self.enrolment_tokens:
            return problem(401, "token_unknown", "This enrolment token is not known.")
        body = json.loads(request.body or b"")
        known = self.devices.get(body["installation_id"])
        token = f"st_dev_{secrets.token_urlsafe(32)}"
        if known is not None:
            known.token = token
        else:
            number = len(self.devices) + 1
            self.devices[body["installation_id"]] = SimulatedDevice(f"device-{number}", token, body)
        device = self.devices[body["installation_id"]]
        answer = {"device_id": device.device_id, "token": token, "model": self.model, "channel": self.channel}
        return 200 if known else 201, {"Content-Type": "application/json"}, json.dumps(answer).encode()

    def _results(self, device: SimulatedDevice, request: Request) -> Handled:
        batch = decode_batch(gzip.decompress(request.body or b""))
        held, refused, stored = [], list(batch.refused), 0
        numbers = device.held.setdefault(batch.stream, {})
        for record in batch.records:
            digest = record_digest(record)
            reason = self.refuse(record)
            if reason is not None:
                refused.append(Refusal(record.sequence, reason, "The simulator refuses it."))
            elif numbers.setdefault(record.sequence, digest) != digest:
                refused.append(Refusal(record.sequence, "sequence_reused", "Another record has this number."))
            else:
                held.append(record.sequence)
                if (batch.stream, record) not in device.records:
                    device.records.append((batch.stream, record))
                    stored += 1
        answer = ResultsAnswer(stored, ranges(held), tuple(refused))
        return 200, {"Content-Type": "application/json"}, json.dumps(answer.to_dict()).encode()

    def _status(self, device: SimulatedDevice, request: Request) -> Handled:
        device.statuses.append(json.loads(request.body or b""))
        return 204, {}, b""


def problem(status: int, code: str, detail: str) -> Handled:
    """A problem+json answer."""
    body = Problem(status, code, code.replace("_", " "), detail).to_dict()
    return status, {"Content-Type": MEDIA_TYPE}, json.dumps(body).encode()


def _file(data: bytes | None) -> Handled:
    return problem(404, "not_found", "There is no such file.") if data is None else (200, {}, data)


def _token(request: Request) -> str:
    return request.headers.get("Authorization", "").removeprefix("Bearer ")


def _in(lifetime: timedelta) -> datetime:
    return (datetime.now(UTC) + lifetime).replace(microsecond=0)


def _chunks(body: bytes, fault: Fault | None) -> Iterator[bytes]:
    kind = fault.kind if fault is not None else ""
    after = fault.after if fault is not None else 0
    if kind == "corrupt":
        body = body[:after] + bytes([body[after] ^ 1]) + body[after + 1 :]
    if kind == "cut":
        body = body[:after]
    for start in range(0, len(body), CHUNK):
        yield body[start : start + CHUNK]
    if kind == "cut":
        raise TransportError("The connection broke off.", advice="Try again.")
    while kind == "endless":
        yield b" " * CHUNK

"""What a publish must be before anything of it is kept. Pure: bytes and stored state in, verdict or error out.

The same checks that a device makes, made first here, and those that only the server can make. Their numbers stand in
the code:

1. Roots follow the stored one without a hole; each is signed by the one before it and by itself.
2. The newest root has not expired, names top-level roles only, wants consistent snapshots, and gives snapshot and
   timestamp exactly our online key, which has no part in root and targets.
3. targets.json carries the signatures that root asks for, is the next version, has not expired, delegates nothing.
4. At most 1,000 targets; each with a SHA-256 alone, a custom field, and the path that its custom field implies; one
   version a release number and one release number a version.
5. A bundle is what targets.json says: length and hash, format, manifest against custom, model.sig under its signer.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from cryptography.hazmat.primitives.asymmetric import ec
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Root, TargetFile, Targets

from edge_runtime.contract.bundle import Bundle, check_custom, check_signature, open_bundle
from edge_runtime.contract.names import target_path
from edge_runtime.contract.release import TargetCustom, custom_of, floors
from edge_runtime.errors import ContractError, TrustError
from sync_server.errors import RequestError
from sync_server.repository.metadata import parse
from sync_server.repository.online_key import check_root_names

MAX_TARGETS = 1_000


@dataclass(frozen=True, slots=True)
class Listing:
    """What a verified targets.json lists.

    Attributes:
        targets: The metadata itself.
        customs: Each target's custom field, by path.
        floors: The lowest release number that may run, by model.
    """

    targets: Targets
    customs: Mapping[str, TargetCustom]
    floors: Mapping[str, int]

    def digest(self, path: str) -> str:
        """SHA-256 of a target, hex."""
        return self.targets.targets[path].hashes["sha256"]

    def releases(self) -> set[tuple[str, int]]:
        """Every (model, release number) that is listed."""
        return {(custom.model, custom.release_number) for custom in self.customs.values()}


def verify_roots(
    stored: Metadata[Root] | None,
    sent: Sequence[tuple[int, bytes]],
    key: ec.EllipticCurvePrivateKey,
    *,
    now: datetime,
) -> Metadata[Root]:
    """Check the chain of roots (steps 1 and 2) and return the newest.

    Args:
        stored: The newest root that is stored, None at the first publish.
        sent: (version by file name, bytes) in ascending order.
        key: The server's online key.
        now: The server's clock.

    Raises:
        RequestError: 409 with ``expected`` when a root is not the next one.
        TrustError: A signature is missing, or root names other keys or roles than it must.
        ContractError: A file is not root metadata.
    """
    newest = stored
    for version, body in sent:
        root = parse(body, Root, f"{version}.root.json")
        expected = 1 if newest is None else newest.signed.version + 1
        if version != expected or root.signed.version != version:
            raise RequestError(
                409, "wrong_version", f"Root version {version} was sent, version {expected} is next.",
                advice="Publish from a repository folder that is up to date.", expected=expected,
            )  # fmt: skip
        for judge in (newest or root, root):  # 1
            _check_signatures(judge.signed, "root", root, f"{version}.root.json")
        newest = root
    if newest is None:
        raise RequestError(
            409, "no_repository", "This server has no root yet.", advice="Publish 1.root.json with the first release."
        )
    if newest.signed.expires <= now:  # 2
        raise TrustError(
            f"Root version {newest.signed.version} expired on {newest.signed.expires:%Y-%m-%d}.",
            reason="expired",
            advice="Sign a new root.",
        )
    if not newest.signed.consistent_snapshot:
        raise TrustError("Root does not ask for consistent snapshots.", reason="bad_root", advice="Sign a new root.")
    check_root_names(newest.signed, key)
    return newest


def _check_signatures(root: Root, role: str, metadata: Metadata[Root] | Metadata[Targets], what: str) -> None:
    """Check that as many keys of the role signed as root asks for."""
    try:
        root.verify_delegate(role, metadata.signed_bytes, metadata.signatures)
    except RepositoryError as error:
        raise TrustError(
            f"{what} is not signed as root version {root.version} asks for the role {role}.",
            reason="bad_signature",
            advice="Sign it with the keys that root names, and with as many as its threshold asks for.",
        ) from error


def verify_targets(root: Root, body: bytes, *, expected: int | None, now: datetime) -> Listing:
    """Check targets.json (steps 3 and 4).

    Args:
        root: The newest root.
        body: The file.
        expected: The version it must have; None takes any, for a stored one that a new root must still accept.
        now: The server's clock.

    Raises:
        RequestError: 409 with ``expected`` when it is not the next version.
        TrustError: Signatures are missing, or it has expired.
        ContractError: It lists what devices would refuse.
    """
    metadata = parse(body, Targets, "targets.json")
    targets = metadata.signed
    if expected is not None and targets.version != expected:
        raise RequestError(
            409, "wrong_version", f"Targets version {targets.version} was sent, version {expected} is next.",
            advice="Bring the repository folder up to date, then publish again.", expected=expected,
        )  # fmt: skip
    _check_signatures(root, "targets", metadata, f"{targets.version}.targets.json")  # 3
    if targets.expires <= now:
        raise TrustError(
            f"Targets version {targets.version} expired on {targets.expires:%Y-%m-%d}.",
            reason="expired",
            advice="Sign the targets again.",
        )
    if targets.delegations is not None:
        raise ContractError("targets.json delegates; only top-level roles are supported.")
    if len(targets.targets) > MAX_TARGETS:
        raise ContractError(
            f"targets.json lists {len(targets.targets)} targets; at most {MAX_TARGETS} are allowed.",
            advice="Withdraw old releases, for example with: exporter publish --keep 2",
        )
    customs = {path: _check_target(path, target) for path, target in targets.targets.items()}  # 4
    _check_numbers(customs)
    return Listing(targets, customs, floors(targets.unrecognized_fields))


def _check_target(path: str, target: TargetFile) -> TargetCustom:
    """Check one entry of targets.json on its own."""
    custom = custom_of(path, target.unrecognized_fields)
    if path != target_path(custom.model, custom.version, custom.cohort):
        raise ContractError(f"Target {path} does not have the path that its custom field implies.", path=path)
    digest = target.hashes.get("sha256", "")
    # Another hash beside it could become the prefix that clients ask for (python-tuf takes the first).
    if set(target.hashes) != {"sha256"} or len(digest) != 64 or set(digest) - set("0123456789abcdef"):
        raise ContractError(f"Target {path} must carry a SHA-256 in hex and no other hash.", path=path)
    return custom


def _check_numbers(customs: Mapping[str, TargetCustom]) -> None:
    """Check that version labels and release numbers of a model stand for each other."""
    numbers: dict[tuple[str, str], int] = {}
    labels: dict[tuple[str, int], str] = {}
    for path, custom in customs.items():
        number = numbers.setdefault((custom.model, custom.version), custom.release_number)
        label = labels.setdefault((custom.model, custom.release_number), custom.version)
        if (label, number) != (custom.version, custom.release_number):
            raise ContractError(
                f"Target {path}: version {custom.version} and release {custom.release_number} of {custom.model} are "
                "also used apart.",
                advice="Give each version one release number of its own.",
            )


def verify_bundle(path: str, data: bytes, target: TargetFile, custom: TargetCustom) -> Bundle:
    """Check that a bundle is what targets.json says (step 5).

    Raises:
        TrustError: Length, hash, manifest or signature differ.
        ContractError: It is no bundle.
    """
    if len(data) != target.length or hashlib.sha256(data).hexdigest() != target.hashes["sha256"]:
        raise TrustError(
            f"The file sent for {path} is not the one that targets.json lists.",
            reason="bad_bundle",
            advice="Publish again from a complete repository folder.",
        )
    try:
        bundle = open_bundle(data)
    except ContractError as error:
        raise ContractError(f"{path}: {error.message}", advice=error.advice, path=path) from error
    try:
        check_custom(bundle, custom)
        check_signature(bundle, custom.signer)
    except TrustError as error:
        raise TrustError(f"{path}: {error.message}", reason=error.reason, advice=error.advice) from error
    return bundle

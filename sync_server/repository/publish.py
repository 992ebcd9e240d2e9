"""Publishing: a release engineer's metadata and bundles, verified whole and taken over in one transaction.

Blobs are written first; they are content-addressed, so what a failed publish leaves there harms nobody and helps the
next one. Everything else, snapshot and timestamp included, is one transaction under the repository lock: a server
killed at any moment serves the repository of before or of after.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy import select
from sqlalchemy.orm import Session
from tuf.api.metadata import Metadata, Root, TargetFile

from edge_runtime.contract.release import TargetCustom
from sync_server.access.audit import audit
from sync_server.blobs import Blobs
from sync_server.db import lock_for_transaction
from sync_server.errors import RequestError
from sync_server.repository import metadata, signing, verify
from sync_server.repository.models import StoredBundle
from sync_server.rollouts.models import rollouts_by_channel
from sync_server.webhooks.service import enqueue


@dataclass(frozen=True, slots=True)
class Publication:
    """What was sent.

    Attributes:
        roots: (version, bytes) in ascending order.
        targets: (version by file name, bytes), None when only root changes.
        bundles: Reads the bundle of a target path.
    """

    roots: Sequence[tuple[int, bytes]]
    targets: tuple[int, bytes] | None
    bundles: Mapping[str, Callable[[], bytes]]


@dataclass(frozen=True, slots=True)
class Published:
    """What became of it; ``repeated`` means that all of it was there already."""

    targets_version: int
    root_version: int
    added: list[str]
    withdrawn: list[str]
    repeated: bool = False


def publish(
    session: Session,
    blobs: Blobs,
    key: ec.EllipticCurvePrivateKey,
    sent: Publication,
    *,
    actor: str,
    now: datetime,
) -> Published:
    """Verify a publication against the stored root and take it over.

    Args:
        session: The open transaction.
        blobs: Where bundles go.
        key: The online key.
        sent: What was sent.
        actor: Who sent it, for the audit trail.
        now: The server's clock.

    Returns:
        What changed. Sending the newest publication again changes nothing and says so.

    Raises:
        RequestError: 409 when it does not follow what is stored, or withdraws a release that a channel needs; 422 when
            a bundle is missing or nobody asked for it.
        TrustError: A signature, hash or key is wrong.
        ContractError: A file breaks its format.
        StorageError: A bundle could not be stored.
    """
    lock_for_transaction(session, metadata.LOCK)
    repeated = _repeated(session, sent)
    if repeated is not None:
        return repeated
    stored_root = _stored_root(session)
    root = verify.verify_roots(stored_root, sent.roots, key, now=now)
    before = _before(session, stored_root)
    listing = _listing(session, root.signed, sent, now)
    added = _take_bundles(session, blobs, listing, sent, now)
    withdrawn = sorted(set(before) - set(listing.customs))
    _check_channels(session, listing)
    for version, body in sent.roots:
        metadata.store(session, "root", version, body, now)
    if sent.targets is not None:
        metadata.store(session, "targets", listing.targets.version, sent.targets[1], now)
    signing.sign_snapshot(session, key, now)
    detail = {"root_version": root.signed.version, "added": added, "withdrawn": withdrawn}
    audit(session, actor, "repository.publish", f"targets {listing.targets.version}", detail)
    enqueue(session, "repository.published", f"targets:{listing.targets.version}", detail)
    if stored_root is None:
        audit(session, actor, "repository.first_root", hashlib.sha256(sent.roots[0][1]).hexdigest())
    return Published(listing.targets.version, root.signed.version, added, withdrawn)


def _stored_root(session: Session) -> Metadata[Root] | None:
    row = metadata.latest(session, "root")
    return None if row is None else metadata.parse(row.body, Root, "the stored root")


def _before(session: Session, root: Metadata[Root] | None) -> list[str]:
    """The paths that are listed now."""
    return [] if root is None else list(metadata.current_targets(session).targets)


def _repeated(session: Session, sent: Publication) -> Published | None:
    """Recognise the publication whose answer was lost on the way: every file is the stored one, byte for byte."""
    if sent.targets is None:
        return None
    newest = metadata.latest(session, "targets")
    files = [("targets", *sent.targets), *(("root", version, body) for version, body in sent.roots)]
    for role, version, body in files:
        row = metadata.at_version(session, role, version)
        if row is None or row.body != body:
            return None
    if newest is None or newest.version != sent.targets[0]:
        return None
    return Published(newest.version, metadata.current_root(session).version, [], [], repeated=True)


def _listing(session: Session, root: Root, sent: Publication, now: datetime) -> verify.Listing:
    """Verify the targets that were sent, or that the stored ones still hold under a new root."""
    row = metadata.latest(session, "targets")
    if sent.targets is not None:
        version, body = sent.targets
        # A server that lost its database takes the repository as it stands, root chain included.
        expected = version if row is None else row.version + 1
        if version != expected:
            raise RequestError(
                409, "wrong_version", f"Targets version {version} was sent, version {expected} is next.",
                advice="Bring the repository folder up to date, then publish again.", expected=expected,
            )  # fmt: skip
        return verify.verify_targets(root, body, expected=expected, now=now)
    if row is None or not sent.roots:
        raise RequestError(422, "nothing_sent", "The request holds no targets.json.", advice="Run: exporter publish")
    return verify.verify_targets(root, row.body, expected=None, now=now)


def _take_bundles(
    session: Session, blobs: Blobs, listing: verify.Listing, sent: Publication, now: datetime
) -> list[str]:
    """Verify and store the bundles that are new, and check that the others are still what was published."""
    unasked = sorted(set(sent.bundles) - set(listing.customs))
    if unasked:
        raise RequestError(
            422, "not_listed", f"{unasked[0]} was sent, but targets.json does not list it.",
            advice="Publish from a repository folder that is whole.",
        )  # fmt: skip
    known = _known(session, listing)
    _check_history(session, listing)
    added = []
    for path in sorted(listing.customs):
        target, custom = listing.targets.targets[path], listing.customs[path]
        row = known.get(listing.digest(path))
        if row is None and path not in sent.bundles:
            raise RequestError(
                422, "bundle_missing", f"targets.json lists {path}, but its file was not sent.",
                advice="Publish from a repository folder that is whole.",
            )  # fmt: skip
        if row is not None and _is_as_published(row, path, target, custom):
            continue
        data = sent.bundles[path]() if path in sent.bundles else blobs.read(listing.digest(path))
        bundle = verify.verify_bundle(path, data, target, custom)
        blobs.put(data)
        if row is None:
            row = StoredBundle(digest=bundle.digest, published_at=now)
            session.add(row)
            added.append(path)
        row.path, row.model, row.version, row.cohort = path, custom.model, custom.version, custom.cohort
        row.release_number, row.size, row.signer = custom.release_number, target.length, custom.signer
        row.size_unpacked = custom.size_unpacked
        row.manifest = bundle.manifest.to_dict()
    session.flush()
    return added


def _known(session: Session, listing: verify.Listing) -> dict[str, StoredBundle]:
    digests = [listing.digest(path) for path in listing.customs]
    rows = session.scalars(select(StoredBundle).where(StoredBundle.digest.in_(digests)))
    return {row.digest: row for row in rows}


def _is_as_published(row: StoredBundle, path: str, target: TargetFile, custom: TargetCustom) -> bool:
    """Whether all that targets.json says of a known bundle, channels aside, was verified when it came."""
    said = (path, target.length, custom.size_unpacked, custom.release_number, custom.signer)
    return said == (row.path, row.size, row.size_unpacked, row.release_number, row.signer)


def _check_history(session: Session, listing: verify.Listing) -> None:
    """Refuse another file under a path that had one: results name bundles by digest, people by version."""
    rows = session.execute(
        select(StoredBundle.path, StoredBundle.digest).where(StoredBundle.path.in_(list(listing.customs)))
    )
    for path, digest in rows:
        if digest != listing.digest(path):
            raise RequestError(
                409, "bundle_changed", f"{path} was published before with other content.",
                advice="Publish it as a new version.",
            )  # fmt: skip


def _check_channels(session: Session, listing: verify.Listing) -> None:
    """Refuse to withdraw a release that a channel runs or may go back to; roll the channel on first."""
    releases = listing.releases()
    for channel, rollout in rollouts_by_channel(session).items():
        current = None if rollout.state == "rolled_back" else rollout.release
        for number in (current, rollout.previous):
            if number is not None and (rollout.model, number) not in releases:
                raise RequestError(
                    409, "release_in_use",
                    f"Channel {channel} needs release {number} of {rollout.model}, which would be withdrawn.",
                    advice="Keep it listed, or roll the channel to another release first.",
                )  # fmt: skip

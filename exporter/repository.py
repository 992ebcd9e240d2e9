"""The TUF repository as release engineers keep it: a folder with signed root and targets metadata and the bundles.

::

    FOLDER/metadata/1.root.json ...    root, signed with root keys; names every key and how many must sign
    FOLDER/metadata/N.targets.json     what may run, signed with targets keys
    FOLDER/targets/MODEL/VERSION/...   the bundles

The server adds snapshot and timestamp with its own online key, whose public half root names here. Private keys never
lie in this folder. Everything read from it is verified against root, since folders travel too.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tuf.api.metadata import Metadata, Root, Targets

from edge_runtime.contract.release import TargetCustom, custom_of, floors
from edge_runtime.errors import InputError
from exporter.keys import PublicKey, ReleaseKey
from exporter.tuf_files import METADATA, listing, read_metadata, sign_metadata, verify, write_metadata

# contract.md, Trust: freshness and size.
ROOT_LIFETIME = timedelta(days=730)
TARGETS_LIFETIME = timedelta(days=365)
WARN_AHEAD = timedelta(days=60)
MAX_TARGETS = 1000
TARGETS = "targets"


@dataclass(frozen=True, slots=True)
class Repository:
    """Verified metadata of a repository folder.

    Attributes:
        folder: Where it lies.
        roots: Every root, oldest first.
        targets: The newest targets, or None before the first release.
    """

    folder: Path
    roots: tuple[Metadata[Root], ...]
    targets: Metadata[Targets] | None

    @property
    def root(self) -> Root:
        """The newest root."""
        return self.roots[-1].signed

    @property
    def customs(self) -> dict[str, TargetCustom]:
        """What is listed: the custom field of every target, by path."""
        return {} if self.targets is None else customs_of(self.targets.signed)

    @property
    def floors(self) -> dict[str, int]:
        """The lowest release number that may run, by model."""
        return {} if self.targets is None else floors(self.targets.signed.unrecognized_fields)

    def next_release_number(self, model: str) -> int:
        """Return the number after the highest one listed for a model; 1 for the first."""
        numbers = [custom.release_number for custom in self.customs.values() if custom.model == model]
        return 1 + max(numbers, default=self.floors.get(model, 1) - 1)

    def warnings(self, now: datetime) -> list[str]:
        """Return a sentence for each metadata file that expires within 60 days."""
        found: list[tuple[str, datetime]] = [("root", self.root.expires)]
        if self.targets is not None:
            found.append(("targets", self.targets.signed.expires))
        return [
            f"{role} metadata expires on {expires:%Y-%m-%d}; sign it anew before, or devices stop updating."
            for role, expires in found
            if expires - now < WARN_AHEAD
        ]


def customs_of(targets: Targets) -> dict[str, TargetCustom]:
    """Return the custom field of every target, by path.

    Raises:
        ContractError: A custom field is missing or breaks its format.
    """
    return {path: custom_of(path, target.unrecognized_fields) for path, target in targets.targets.items()}


def create_repository(
    folder: Path,
    *,
    root_keys: Sequence[PublicKey],
    targets_keys: Sequence[PublicKey],
    online_key: PublicKey,
    signers: Sequence[ReleaseKey],
    root_threshold: int = 1,
    targets_threshold: int = 1,
    now: datetime,
) -> Metadata[Root]:
    """Write the first root of a new repository.

    Args:
        folder: A folder that holds no repository yet.
        root_keys: Who may sign root.
        targets_keys: Who may sign releases.
        online_key: The server's key for snapshot and timestamp.
        signers: Private root keys at hand; with fewer than the threshold, ``exporter sign FOLDER`` adds the others.
        root_threshold: How many root keys must sign.
        targets_threshold: How many targets keys must sign.
        now: When root's two years begin.

    Returns:
        The root metadata as written.

    Raises:
        InputError: There is a repository already, a key plays two parts, or a threshold cannot be met.
        StorageError: The folder cannot be written.
    """
    if any((folder / METADATA).glob("*.json")):
        raise InputError(
            f"{folder} holds a repository already.",
            advice="Use another folder; an existing root is changed by 'exporter repository renew' only.",
            path=str(folder),
        )
    root = Root(expires=_whole_seconds(now + ROOT_LIFETIME), consistent_snapshot=True)
    set_keys(root, root_keys, targets_keys, online_key)
    set_thresholds(root, root_threshold, targets_threshold)
    metadata = Metadata(root)
    sign_metadata(metadata, "root", [root], signers)
    write_metadata(folder, metadata)
    return metadata


def renew_root(
    repository: Repository,
    *,
    signers: Sequence[ReleaseKey],
    now: datetime,
    online_key: PublicKey | None = None,
    root_keys: Sequence[PublicKey] = (),
    targets_keys: Sequence[PublicKey] = (),
) -> Metadata[Root]:
    """Write the next root: two more years, and other keys where some are given.

    It is signed by keys of the present root and of itself, so that clients can follow. After a change of targets keys
    the list has to be signed anew (``prepare_release`` with ``renew``); bundles keep their signatures.

    Args:
        repository: The repository.
        signers: Private root keys at hand, old and new ones.
        now: When the two years begin.
        online_key: The server's new key, or None to keep the present one.
        root_keys: All root keys from now on; empty to keep the present ones.
        targets_keys: All targets keys from now on; empty to keep the present ones.

    Raises:
        InputError: A key plays two parts, or there are fewer keys than signatures needed.
        StorageError: The folder cannot be written.
    """
    # Not from_dict(to_dict()): python-tuf shares lists between the two, and the old root must stay as it is.
    root = copy.deepcopy(repository.root)
    root.version += 1
    root.expires = _whole_seconds(now + ROOT_LIFETIME)
    online = [] if online_key is None else [online_key]
    for role, keys in (("root", root_keys), ("targets", targets_keys), ("snapshot", online), ("timestamp", online)):
        if keys:
            for key_id in list(root.roles[role].keyids):
                root.revoke_key(key_id, role)
            for key in keys:
                root.add_key(key.tuf, role)
    _check_parts([root.roles[role].keyids for role in ("root", "targets", "timestamp")])
    set_thresholds(root, root.roles["root"].threshold, root.roles["targets"].threshold)
    metadata = Metadata(root)
    sign_metadata(metadata, "root", [repository.root, root], signers)
    write_metadata(repository.folder, metadata)
    return metadata


def set_keys(
    root: Root, root_keys: Sequence[PublicKey], targets_keys: Sequence[PublicKey], online_key: PublicKey
) -> None:
    """Give every role of a root its keys; a key has one role, online and offline never meet.

    Raises:
        InputError: A key is given twice or for two roles.
    """
    parts = [*(("root", key) for key in root_keys), *(("targets", key) for key in targets_keys)]
    _check_parts([[key.tuf.keyid for _, key in parts], [online_key.tuf.keyid]])
    for role, key in [*parts, ("snapshot", online_key), ("timestamp", online_key)]:
        root.add_key(key.tuf, role)


def set_thresholds(root: Root, root_threshold: int, targets_threshold: int) -> None:
    """Say how many keys must sign.

    Raises:
        InputError: More signatures than keys, or none.
    """
    for role, threshold in (("root", root_threshold), ("targets", targets_threshold)):
        keys = len(root.roles[role].keyids)
        if not 1 <= threshold <= keys:
            raise InputError(
                f"{threshold} {role} signatures are asked for, with {keys} {role} keys.",
                advice=f"Give a --{role}-threshold from 1 to the number of --{role}-key options.",
            )
        root.roles[role].threshold = threshold


def load_repository(folder: Path, *, strict: bool = True) -> Repository:
    """Read a repository folder and verify all of it: each root by the one before and itself, targets by the last.

    Args:
        folder: A repository folder or a release folder.
        strict: False also takes targets that an earlier root vouches for: what is listed between a change of targets
            keys and the next release. Never what is published.

    Raises:
        InputError: No repository there, or a version is missing.
        TrustError: Metadata that does not verify; reason ``bad_metadata``.
    """
    newest, files = listing(folder)
    if not newest["root"]:
        raise InputError(
            f"{folder} holds no repository.",
            advice="Make one with 'exporter repository create'.",
            path=str(folder),
        )
    roots: list[Metadata[Root]] = []
    for version in range(1, newest["root"] + 1):
        path = files.get(("root", version))
        if path is None:
            raise InputError(f"{folder} lacks {version}.root.json.", advice="Restore it; roots form a chain.")
        metadata = read_metadata(path, Root)
        verify(metadata, "root", [*(known.signed for known in roots[-1:]), metadata.signed], path)
        roots.append(metadata)
    targets = None
    if newest["targets"]:
        path = files["targets", newest["targets"]]
        targets = read_metadata(path, Targets)
        verify(targets, "targets", [_vouching(targets, roots, strict).signed], path)
    return Repository(folder, tuple(roots), targets)


def _vouching(targets: Metadata[Targets], roots: Sequence[Metadata[Root]], strict: bool) -> Metadata[Root]:
    for root in () if strict else reversed(roots):
        if root.signed.get_verification_result("targets", targets.signed_bytes, targets.signatures):
            return root
    return roots[-1]


def _check_parts(parts: Sequence[Sequence[str]]) -> None:
    ids = [key_id for part in parts for key_id in part]
    if len(set(ids)) != len(ids):
        raise InputError(
            "One key is given for two parts of the repository.",
            advice="Make one key for root, one for targets, and take the server's own key as the online key.",
        )


def _whole_seconds(moment: datetime) -> datetime:
    # TUF dates carry no fractions; python-tuf would drop them silently.
    return moment.astimezone(UTC).replace(microsecond=0)

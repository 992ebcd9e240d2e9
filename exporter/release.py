"""A release folder: new targets metadata and the bundles it adds, on their way from one signer to the next.

``prepare_release`` writes it unsigned, ``sign_release`` adds a signature after checking what is signed, and
``publish`` sends it. The folder has the layout of the repository itself, so what was signed is what is sent::

    FOLDER/metadata/1.root.json ... N.targets.json
    FOLDER/targets/MODEL/VERSION/COHORT.bundle        only bundles that this release adds
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tuf.api.exceptions import LengthOrHashMismatchError
from tuf.api.metadata import Metadata, Root, TargetFile, Targets

from edge_runtime.contract.bundle import Bundle, open_bundle
from edge_runtime.contract.names import target_path
from edge_runtime.contract.release import CUSTOM_FIELD, TargetCustom, floors
from edge_runtime.errors import InputError, TrustError
from exporter.files import read_bytes, write_bytes
from exporter.keys import ReleaseKey
from exporter.release_rules import InUse, check_one_release, custom_for, set_floors, withdraw
from exporter.repository import MAX_TARGETS, TARGETS, TARGETS_LIFETIME, Repository, customs_of, load_repository
from exporter.tuf_files import metadata_files, read_metadata, sign_metadata, write_metadata


@dataclass(frozen=True, slots=True)
class ReleaseSummary:
    """What a release folder does, as signers and reports show it.

    Attributes:
        folder: Where it lies.
        targets_version: N of its ``N.targets.json``.
        releases: ``MODEL RELEASE_NUMBER (VERSION)`` of what it adds.
        added: Target paths it adds.
        withdrawn: Target paths it withdraws.
        floors: The lowest release number that may run, by model.
        signatures: Valid targets signatures, and how many are needed.
    """

    folder: Path
    targets_version: int
    releases: tuple[str, ...]
    added: tuple[str, ...]
    withdrawn: tuple[str, ...]
    floors: Mapping[str, int]
    signatures: tuple[int, int]

    @property
    def complete(self) -> bool:
        """Whether enough keys signed."""
        return self.signatures[0] >= self.signatures[1]

    def to_dict(self) -> dict[str, Any]:
        """Return the summary as one JSON-ready object."""
        return {
            "folder": str(self.folder),
            "targets_version": self.targets_version,
            "releases": list(self.releases),
            "added": list(self.added),
            "withdrawn": list(self.withdrawn),
            "minimum_release": dict(self.floors),
            "signatures": self.signatures[0],
            "signatures_needed": self.signatures[1],
        }


def prepare_release(
    repository: Repository,
    bundles: Sequence[bytes],
    folder: Path,
    *,
    channels: Sequence[str],
    now: datetime,
    keep: int = 2,
    in_use: InUse | None = None,
    minimum_release: Mapping[str, int] | None = None,
    renew: bool = False,
) -> ReleaseSummary:
    """Write a release folder: the bundles, and targets metadata that lists them, unsigned.

    Args:
        repository: What is published so far.
        bundles: Signed bundles of one release: one default, and one per cohort.
        folder: Where to write; holds no other release.
        channels: Channels that may run the release.
        now: When the year of the new targets metadata begins.
        keep: Newest releases of each model that stay listed even when no channel runs them.
        in_use: What channels run or may go back to; None: not known, then nothing is withdrawn.
        minimum_release: New floors by model; a floor is never lowered.
        renew: No bundle is meant: the present list gets another year, or the signatures of new keys.

    Returns:
        What the folder does.

    Raises:
        ContractError: A bundle is damaged or breaks the format.
        InputError: The bundles are not one release, the number or version is taken, or too many targets.
        TrustError: A bundle is not signed by a targets key of the repository.
        StorageError: The folder cannot be written.
    """
    if metadata_files(folder):
        raise InputError(
            f"{folder} holds another release.", advice="Name an empty folder for each release.", path=str(folder)
        )
    opened = [open_bundle(data) for data in bundles]
    if not renew:
        check_one_release(repository, opened)
    signed = _next_targets(repository, now)
    for bundle, data in zip(opened, bundles, strict=True):
        custom = custom_for(repository, bundle, channels)
        path = target_path(custom.model, custom.version, custom.cohort)
        signed.targets[path] = TargetFile.from_data(path, data, ["sha256"])
        signed.targets[path].unrecognized_fields[CUSTOM_FIELD] = custom.to_dict()
    set_floors(signed, repository, minimum_release or {})
    if in_use is not None:
        withdraw(signed, in_use, keep)
    _check_size(signed)
    _write(repository, zip(opened, bundles, strict=True), signed, folder)
    return summarise(folder, repository.customs)


def sign_release(folder: Path, keys: Sequence[ReleaseKey]) -> list[str]:
    """Add signatures to the newest targets metadata and to a root that lacks some; a repository folder works too.

    Args:
        folder: A release folder or repository folder.
        keys: Private keys at hand.

    Returns:
        Names of the metadata files that were signed.

    Raises:
        InputError: Nothing to sign there.
        TrustError: A bundle is not the listed one (reason ``bad_bundle``), or no key may sign (``key_not_listed``).
    """
    files = metadata_files(folder)
    if not files:
        raise InputError(f"{folder} holds no metadata to sign.", advice="Prepare a release first.", path=str(folder))
    roots = [read_metadata(path, Root) for (role, _), path in sorted(files.items()) if role == "root"]
    if not roots:
        raise InputError(f"{folder} lacks root metadata.", advice="Prepare the release again.", path=str(folder))
    names = []
    newest_root = roots[-1]
    if sign_metadata(newest_root, "root", [root.signed for root in roots[-2:]], keys):
        names.append(write_metadata(folder, newest_root).name)
    if targets := _newest_targets(files):
        check_bundles(folder, targets.signed)
        if sign_metadata(targets, "targets", [newest_root.signed], keys):
            names.append(write_metadata(folder, targets).name)
    if not names:
        raise TrustError(
            "None of the given keys is named by root for anything in this folder.",
            reason="key_not_listed",
            advice="Give a key of this repository; 'exporter inspect FOLDER' lists who may sign.",
        )
    return names


def summarise(folder: Path, listed_before: Mapping[str, TargetCustom] | None = None) -> ReleaseSummary:
    """Say what a release folder does.

    Args:
        folder: The release folder.
        listed_before: What the repository listed before; None: withdrawn targets are not known.

    Raises:
        InputError: No release there.
        TrustError: Its metadata is damaged.
    """
    files = metadata_files(folder)
    targets = _newest_targets(files)
    roots = [read_metadata(path, Root) for (role, _), path in sorted(files.items()) if role == "root"]
    if targets is None or not roots:
        raise InputError(f"{folder} holds no release.", advice="Make one with 'exporter release prepare'.")
    customs = customs_of(targets.signed)
    added = tuple(path for path in sorted(customs) if (folder / TARGETS / path).is_file())
    result = roots[-1].signed.get_verification_result("targets", targets.signed_bytes, targets.signatures)
    releases = {(c.model, c.release_number, c.version) for c in (customs[path] for path in added)}
    return ReleaseSummary(
        folder=folder,
        targets_version=targets.signed.version,
        releases=tuple(f"{model} {number} ({version})" for model, number, version in sorted(releases)),
        added=added,
        withdrawn=tuple(sorted(set(listed_before or ()) - set(customs))),
        floors=floors(targets.signed.unrecognized_fields),
        signatures=(len(result.signed), result.threshold),
    )


def check_bundles(folder: Path, targets: Targets) -> None:
    """Check that every bundle in a folder is the one that targets metadata lists.

    Raises:
        TrustError: It is not; reason ``bad_bundle``.
    """
    for path in sorted((folder / TARGETS).rglob("*.bundle")):
        name = path.relative_to(folder / TARGETS).as_posix()
        target = targets.targets.get(name)
        try:
            if target is not None:
                target.verify_length_and_hashes(read_bytes(path))
                continue
        except LengthOrHashMismatchError:
            pass
        # A bundle that an older targets.json listed may stay in a repository folder; in a release it may not.
        if target is not None:
            raise TrustError(
                f"{name} is not the bundle that the metadata lists.",
                reason="bad_bundle",
                advice="Prepare the release again; somebody or something changed the file.",
                path=str(path),
            )


def adopt_release(repository_folder: Path, release: Path) -> None:
    """Copy a published release into the repository folder, which then is what the server holds.

    Raises:
        TrustError: The release does not verify.
        StorageError: The folder cannot be written.
    """
    published = load_repository(release)
    check = load_repository(repository_folder, strict=False)
    if published.roots[0].to_dict() != check.roots[0].to_dict():
        raise InputError(
            f"{release} belongs to another repository than {repository_folder}.", advice="Name the right one."
        )
    for path in sorted((release / TARGETS).rglob("*.bundle")):
        write_bytes(repository_folder / TARGETS / path.relative_to(release / TARGETS), read_bytes(path))
    # Metadata last: until then the folder is what it was.
    for path in metadata_files(release).values():
        write_bytes(repository_folder / path.parent.name / path.name, read_bytes(path))


def _newest_targets(files: Mapping[tuple[str, int], Path]) -> Metadata[Targets] | None:
    versions = [version for role, version in files if role == "targets"]
    return read_metadata(files["targets", max(versions)], Targets) if versions else None


def _check_size(signed: Targets) -> None:
    if len(signed.targets) > MAX_TARGETS:
        raise InputError(
            f"targets.json would list {len(signed.targets)} bundles; at most {MAX_TARGETS} are allowed.",
            advice="Prepare with --server and --token-file, so that releases no channel runs are withdrawn.",
        )


def _write(repository: Repository, bundles: Iterable[tuple[Bundle, bytes]], signed: Targets, folder: Path) -> None:
    for bundle, data in bundles:
        manifest = bundle.manifest
        write_bytes(folder / TARGETS / target_path(manifest.model, manifest.version, manifest.cohort), data)
    for root in repository.roots:
        write_metadata(folder, root)
    write_metadata(folder, Metadata(signed))


def _next_targets(repository: Repository, now: datetime) -> Targets:
    signed = Targets() if repository.targets is None else copy.deepcopy(repository.targets.signed)
    if repository.targets is not None:
        signed.version += 1
    signed.expires = now.astimezone(UTC).replace(microsecond=0) + TARGETS_LIFETIME
    return signed

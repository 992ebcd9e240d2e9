"""The rules that a release keeps: what is bound to a bundle, what goes together, what stays listed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tuf.api.metadata import Root, Targets

from edge_runtime.contract.bundle import Bundle, check_signature
from edge_runtime.contract.names import check_name
from edge_runtime.contract.release import FLOOR_FIELD, TargetCustom
from edge_runtime.contract.signature import public_key_text
from edge_runtime.errors import InputError, TrustError
from exporter.repository import Repository, customs_of

# model and release number of what a channel runs or may go back to
InUse = frozenset[tuple[str, int]]


def custom_for(repository: Repository, bundle: Bundle, channels: Sequence[str]) -> TargetCustom:
    """Return what targets.json binds to a bundle.

    Raises:
        ContractError: A channel is no name.
        TrustError: The bundle is not signed by a targets key of the repository.
    """
    manifest = bundle.manifest
    return TargetCustom(
        model=manifest.model,
        version=manifest.version,
        cohort=manifest.cohort,
        release_number=manifest.release_number,
        channels=tuple(check_name("channel", channel) for channel in channels),
        size_unpacked=sum(len(content) for content in bundle.files.values()),
        signer=signer_of(repository, bundle),
    )


def signer_of(repository: Repository, bundle: Bundle) -> str:
    """Return the targets key of the repository that signed a bundle, as ``custom.signer`` holds it.

    Raises:
        TrustError: None of them did; reason ``key_not_listed``.
    """
    from cryptography.hazmat.primitives.asymmetric import ec

    for key_id in repository.root.roles["targets"].keyids:
        public = _crypto_key(repository.root, key_id)
        if not isinstance(public, ec.EllipticCurvePublicKey):
            continue
        text = public_key_text(public)
        try:
            check_signature(bundle, text)
        except TrustError:
            continue
        return text
    raise TrustError(
        f"The bundle of {bundle.manifest.model} {bundle.manifest.version} is not signed by a targets key of root.",
        reason="key_not_listed",
        advice="Pack it with a targets key of this repository.",
    )


def _crypto_key(root: Root, key_id: str) -> object:
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    return load_pem_public_key(str(root.keys[key_id].keyval["public"]).encode())


def check_one_release(repository: Repository, opened: Sequence[Bundle]) -> None:
    """Check that bundles are one whole release that the repository does not list yet.

    Raises:
        InputError: They are not.
    """
    if not opened:
        raise InputError("No bundle is given.", advice="Name the .bundle files of the release.")
    first = opened[0].manifest
    for bundle in opened:
        manifest = bundle.manifest
        if (manifest.model, manifest.version, manifest.release_number) != (
            first.model, first.version, first.release_number,
        ):  # fmt: skip
            raise InputError(
                f"{manifest.model} {manifest.version} and {first.model} {first.version} are not one release.",
                advice="Prepare bundles of one model, version and release number together.",
            )
    cohorts = [bundle.manifest.cohort for bundle in opened]
    if len(set(cohorts)) != len(cohorts):
        raise InputError("Two bundles are for the same cohort.", advice="Give one bundle for each cohort.")
    if None not in cohorts:
        raise InputError(
            "The release has no default bundle, so devices of other cohorts would have nothing to run.",
            advice="Add the default bundle.",
        )
    customs = [custom for custom in repository.customs.values() if custom.model == first.model]
    taken = {custom.version for custom in customs}
    if first.version in taken:
        raise InputError(
            f"Version {first.version} of {first.model} is listed already.", advice="Pack with another --version."
        )
    if first.release_number < repository.next_release_number(first.model):
        raise InputError(
            f"Release number {first.release_number} of {first.model} is not above all earlier ones.",
            advice=f"Pack with --release-number {repository.next_release_number(first.model)} or higher.",
        )


def set_floors(signed: Targets, repository: Repository, wanted: Mapping[str, int]) -> None:
    """Keep the floors of the repository, and raise those that are asked for.

    Raises:
        InputError: A floor would go down.
    """
    merged = dict(repository.floors)
    for model, floor in wanted.items():
        if floor < merged.get(model, 0):
            raise InputError(
                f"The floor of {model} is {merged[model]} and cannot go down to {floor}.",
                advice="A floor only rises: it keeps releases away that must never run again.",
            )
        merged[check_name("model", model)] = floor
    if merged:
        signed.unrecognized_fields[FLOOR_FIELD] = dict(sorted(merged.items()))


def withdraw(signed: Targets, in_use: InUse, keep: int) -> None:
    """Take releases off the list that no channel runs or may go back to, but for the newest ones of each model.

    Raises:
        InputError: Not even the newest would stay.
    """
    if keep < 1:
        raise InputError("--keep must be at least 1.", advice="Keep the release that is being published.")
    customs = customs_of(signed)
    for model in {custom.model for custom in customs.values()}:
        numbers = sorted({c.release_number for c in customs.values() if c.model == model}, reverse=True)
        kept = set(numbers[:keep]) | {number for name, number in in_use if name == model}
        for path, custom in customs.items():
            if custom.model == model and custom.release_number not in kept:
                del signed.targets[path]

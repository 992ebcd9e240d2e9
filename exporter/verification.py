"""Check a bundle as an auditor would: parts, signature, listing, golden windows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tuf.api.exceptions import LengthOrHashMismatchError

from edge_runtime.contract.bundle import GOLDEN_NAME, MODEL_NAME, Bundle, check_custom, check_signature, open_bundle
from edge_runtime.contract.names import target_path
from edge_runtime.errors import TrustError
from exporter.keys import PublicKey
from exporter.repository import Repository


@dataclass(frozen=True, slots=True)
class Verified:
    """A bundle that passed, and the checks it passed as sentences."""

    bundle: Bundle
    checks: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the outcome as one JSON-ready object."""
        manifest = self.bundle.manifest
        return {
            "digest": self.bundle.digest,
            "model": manifest.model,
            "version": manifest.version,
            "release_number": manifest.release_number,
            "cohort": manifest.cohort,
            "precision": manifest.precision,
            "checks": list(self.checks),
        }


def verify_bundle(data: bytes, *, keys: Sequence[PublicKey] = (), repository: Repository | None = None) -> Verified:
    """Check a bundle against keys or against a repository.

    1. Its parts agree. 2. One of the keys, or the signer that the repository lists for it, signed exactly these
    files. 3. The repository lists these very bytes. 4. Its golden windows score as they should, here.

    Args:
        data: The bundle.
        keys: Public targets keys to accept.
        repository: A verified repository that lists it.

    Returns:
        What was checked.

    Raises:
        ContractError: Step 1 failed.
        TrustError: Step 2 or 3 failed.
        ScoringError: Step 4 failed.
    """
    opened = open_bundle(data)  # 1
    done = [f"whole: {len(opened.files)} files, as the manifest lists them"]
    if repository is not None:
        done.append(_check_listed(opened, data, repository))  # 2, 3
    else:
        _check_keys(opened, keys)  # 2
        done.append("signed by the given key")
    from edge_runtime.scoring import Scorer, check_golden

    check_golden(Scorer(opened.files[MODEL_NAME]), opened.golden, opened.files[GOLDEN_NAME])  # 4
    done.append(f"{opened.golden.windows} golden windows score as they should")
    return Verified(opened, tuple(done))


def _check_keys(opened: Bundle, keys: Sequence[PublicKey]) -> None:
    refusal: TrustError | None = None
    for key in keys:
        try:
            return check_signature(opened, key.text)
        except TrustError as error:
            refusal = error
    if refusal is not None:
        raise refusal
    raise TrustError(
        "No key is given, so nothing says who made the bundle.",
        reason="no_key",
        advice="Give --public-key or --repository.",
    )


def _check_listed(opened: Bundle, data: bytes, repository: Repository) -> str:
    manifest = opened.manifest
    path = target_path(manifest.model, manifest.version, manifest.cohort)
    target = None if repository.targets is None else repository.targets.signed.targets.get(path)
    if target is None:
        raise TrustError(
            f"The repository does not list {path}.",
            reason="release_missing",
            advice="It was never published, or is withdrawn; check with --public-key what it is.",
        )
    try:
        target.verify_length_and_hashes(data)
    except LengthOrHashMismatchError as error:
        raise TrustError(
            f"The repository lists other bytes for {path}.",
            reason="bad_bundle",
            advice="Fetch the bundle again; this one is not what was published.",
        ) from error
    custom = repository.customs[path]
    check_custom(opened, custom)
    check_signature(opened, custom.signer)
    return f"listed as {path} and signed by the listed signer"

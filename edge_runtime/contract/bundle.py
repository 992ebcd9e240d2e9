"""A bundle as a whole: its archive, its manifest, and that both speak of the same files.

Who signed it is another question: ``check_signature`` answers it for a key that somebody trusts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from edge_runtime.contract.archive import DEFAULT_LIMITS, MANIFEST_NAME, Limits, unpack
from edge_runtime.contract.golden import GoldenSpec
from edge_runtime.contract.manifest import Manifest
from edge_runtime.contract.release import TargetCustom
from edge_runtime.errors import ContractError, TrustError

MODEL_NAME = "model.onnx"
GOLDEN_SPEC_NAME = "golden.json"
GOLDEN_NAME = "golden.f32"
PARITY_NAME = "parity.json"
CARD_NAME = "MODEL_CARD.md"
# For people alone, and younger than the format: readers do without it.
CARD_PAGE_NAME = "MODEL_CARD.html"
PROVENANCE_NAME = "provenance.json"
REFERENCES_NAME = "references.f32"
SIGNATURE_NAME = "model.sig"
REQUIRED_FILES = frozenset(
    {
        MANIFEST_NAME, MODEL_NAME, GOLDEN_SPEC_NAME, GOLDEN_NAME, PARITY_NAME, CARD_NAME, PROVENANCE_NAME,
        REFERENCES_NAME, SIGNATURE_NAME,
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle whose parts agree with each other.

    Attributes:
        digest: SHA-256 of the archive, hex: the name that results carry.
        manifest: What it is.
        golden: Shapes and tolerances of its golden windows.
        files: Every file, by name.
    """

    digest: str
    manifest: Manifest
    golden: GoldenSpec
    files: Mapping[str, bytes]

    @property
    def signed_files(self) -> dict[str, bytes]:
        """What ``model.sig`` covers: every other file."""
        return {name: content for name, content in self.files.items() if name != SIGNATURE_NAME}


def open_bundle(data: bytes, limits: Limits = DEFAULT_LIMITS) -> Bundle:
    """Read a bundle and check that its parts agree.

    1. The archive is within limits. 2. Every required file is there. 3. The manifest lists exactly the other files,
    with their true size and digest. 4. Golden windows and references have the sizes that the manifest implies.

    Args:
        data: The archive.
        limits: What the reader is ready to hold.

    Raises:
        ContractError: One of these is not so.
    """
    files = unpack(data, limits)  # 1
    missing = sorted(REQUIRED_FILES - set(files))
    if missing:  # 2
        raise ContractError(f"The bundle lacks {', '.join(missing)}.")
    manifest = Manifest.from_bytes(files[MANIFEST_NAME])
    check_files(manifest, files)  # 3
    golden = GoldenSpec.from_bytes(files[GOLDEN_SPEC_NAME])
    slots, signals = manifest.window.slots, len(manifest.signals)
    if (golden.slots, golden.signals) != (slots, signals) or golden.size != len(files[GOLDEN_NAME]):  # 4
        raise ContractError("The golden windows do not have the shape that the manifest gives.")
    if len(files[REFERENCES_NAME]) != 4 * manifest.references * slots * signals:
        raise ContractError("The reference windows do not have the shape that the manifest gives.")
    return Bundle(hashlib.sha256(data).hexdigest(), manifest, golden, files)


def check_files(manifest: Manifest, files: Mapping[str, bytes]) -> None:
    """Check files against the digests of a manifest.

    Raises:
        ContractError: A file is missing, not listed, or not the one that is listed.
    """
    listed = set(manifest.files)
    present = set(files) - {MANIFEST_NAME, SIGNATURE_NAME}
    if listed != present:
        raise ContractError(f"The manifest and the bundle disagree on: {', '.join(sorted(listed ^ present)[:5])}.")
    for name, entry in manifest.files.items():
        content = files[name]
        if len(content) != entry.size or hashlib.sha256(content).hexdigest() != entry.sha256:
            raise ContractError(f"{name} is not the file that the manifest lists.")


def check_signature(bundle: Bundle, signer: str) -> None:
    """Check ``model.sig`` under a key that the caller trusts.

    Args:
        bundle: The opened bundle.
        signer: Base64 of a DER public key, as ``custom.signer`` has it.

    Raises:
        TrustError: With reason ``bad_signature`` or ``bad_key``.
    """
    # Imported here: reading a bundle must not load the cryptography library.
    from edge_runtime.contract import signature

    signature.verify(bundle.files[SIGNATURE_NAME], bundle.signed_files, signature.load_public_key_text(signer))


def check_custom(bundle: Bundle, custom: TargetCustom) -> None:
    """Check that a bundle is what targets.json says it is.

    Raises:
        TrustError: With reason ``bad_bundle``.
    """
    manifest = bundle.manifest
    said = (custom.model, custom.version, custom.cohort, custom.release_number, custom.size_unpacked)
    found = (
        manifest.model, manifest.version, manifest.cohort, manifest.release_number,
        sum(len(content) for content in bundle.files.values()),
    )  # fmt: skip
    if said != found:
        raise TrustError(
            f"The bundle says it is {found}, the signed metadata says {said}.",
            reason="bad_bundle",
            advice="Pack and publish the release again.",
        )

"""A built model becomes a bundle: manifest, card, provenance, signature, archive.

The same model, settings and key give the same bytes: entries in fixed order, no clock, deterministic signatures. What
was packed is opened again with the contract's own reader before anybody gets it.

Example::

    packed = pack_model(model, provenance, key, name="fleet", version="2026.11", release_number=7)
    Path("fleet.bundle").write_bytes(packed.data)
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from edge_runtime.contract import archive, bundle, signature
from edge_runtime.contract.manifest import FileEntry, Manifest
from edge_runtime.contract.names import target_path
from exporter.built import BuiltModel
from exporter.card import make_card, markdown
from exporter.card_page import page
from exporter.keys import ReleaseKey
from exporter.provenance import Provenance, readable_json

# The oldest onnxruntime that the graph was tried on.
OLDEST_RUNTIME = ">=1.20"


@dataclass(frozen=True, slots=True)
class PackedBundle:
    """A bundle and what it holds.

    Attributes:
        data: The archive.
        manifest: What it is.
        digest: SHA-256 of the archive in hex.
        unpacked_bytes: Size of all its files together.
    """

    data: bytes
    manifest: Manifest
    digest: str
    unpacked_bytes: int

    @property
    def path(self) -> str:
        """Its target path, ``MODEL/VERSION/COHORT.bundle``."""
        return target_path(self.manifest.model, self.manifest.version, self.manifest.cohort)


def pack_model(
    model: BuiltModel, provenance: Provenance, key: ReleaseKey, *, name: str, version: str, release_number: int
) -> PackedBundle:
    """Pack and sign one model.

    Args:
        model: The model.
        provenance: Where it comes from.
        key: A targets key; devices check its signature under the public half that targets.json names.
        name: The model's name.
        version: A label.
        release_number: What orders releases.

    Returns:
        The bundle.

    Raises:
        ContractError: A name breaks its rule, or the parts of the model do not fit each other.
    """
    card = make_card(model, provenance, name=name, version=version, release_number=release_number)
    files = {
        bundle.MODEL_NAME: model.model_onnx,
        bundle.GOLDEN_SPEC_NAME: model.golden_json,
        bundle.GOLDEN_NAME: model.golden_f32,
        bundle.PARITY_NAME: readable_json(model.parity),
        bundle.CARD_NAME: markdown(card),
        bundle.CARD_PAGE_NAME: page(card, model),
        bundle.PROVENANCE_NAME: readable_json(provenance.to_dict()),
        bundle.REFERENCES_NAME: model.references,
    }
    manifest = _manifest(model, files, name=name, version=version, release_number=release_number)
    files[archive.MANIFEST_NAME] = manifest.to_bytes()
    files[bundle.SIGNATURE_NAME] = signature.sign(files, key.private, name=f"{name}-{version}")
    data = archive.pack(files)
    # Whoever packs reads what a device will read: a bundle that cannot be opened must not leave the workshop.
    opened = bundle.open_bundle(data)
    bundle.check_signature(opened, key.public.text)
    return PackedBundle(data, opened.manifest, opened.digest, sum(len(content) for content in files.values()))


def _manifest(model: BuiltModel, files: dict[str, bytes], *, name: str, version: str, release_number: int) -> Manifest:
    return Manifest(
        model=name,
        version=version,
        release_number=release_number,
        cohort=model.cohort,
        precision=model.precision,
        signals=model.signals,
        window=model.window_rule,
        features=model.features,
        threshold=model.threshold,
        incident_gap=model.incident_gap,
        histogram=model.histogram,
        regimes=model.regimes,
        references=model.reference_count,
        files={
            file: FileEntry(hashlib.sha256(content).hexdigest(), len(content))
            for file, content in sorted(files.items())
        },
        runtime=runtime_needs(model.model_onnx),
        below_goals=model.below_goals,
    )


def runtime_needs(model: bytes) -> dict[str, str | int]:
    """Return what a graph needs of whatever runs it: the runtime's version, and its operator sets by domain.

    Args:
        model: An ONNX file.
    """
    import onnx

    imports = onnx.load_model_from_string(model).opset_import
    return {"onnxruntime": OLDEST_RUNTIME, **{one.domain or "opset": int(one.version) for one in imports}}

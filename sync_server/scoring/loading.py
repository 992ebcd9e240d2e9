"""A bundle from the blob store to a loaded model, checked as a device checks it before it becomes active.

The imports of numpy and onnxruntime stand in this module and those beside it that handle windows; routes import them
when the first window comes, or the worker's warm-up does, so that a server that scores nothing never loads them.
"""

from __future__ import annotations

from dataclasses import dataclass

from edge_runtime.contract.bundle import (
    GOLDEN_NAME,
    MODEL_NAME,
    REFERENCES_NAME,
    check_custom,
    check_signature,
    open_bundle,
)
from edge_runtime.contract.manifest import Manifest
from edge_runtime.explanation import Explainer
from edge_runtime.scoring import Scorer, check_golden
from sync_server.blobs import Blobs
from sync_server.scoring.listing import Choice


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model that is ready to score.

    Attributes:
        digest: SHA-256 of its bundle, hex.
        manifest: The bundle's manifest.
        scorer: The graph, on one thread: a worker's requests run beside each other, and workers must not fight
            over the cores.
        explainer: Contributions under it.
        size: Bytes of the files that it holds in memory, before onnxruntime's own share.
    """

    digest: str
    manifest: Manifest
    scorer: Scorer
    explainer: Explainer
    size: int


def load_model(blobs: Blobs, choice: Choice) -> LoadedModel:
    """Load a bundle.

    1. The blob has the digest that targets.json lists. 2. Its parts agree with each other and with targets.json.
    3. The listed signer signed them. 4. The model loads and its golden windows score as they should, here; which also
    warms it.

    Args:
        blobs: The blob store.
        choice: The bundle.

    Raises:
        StorageError: Step 1 failed.
        ContractError: Step 2 failed.
        TrustError: Step 2 or 3 failed.
        ScoringError: Step 4 failed.
    """
    bundle = open_bundle(blobs.read(choice.digest))  # 1, 2
    check_custom(bundle, choice.custom)  # 2
    check_signature(bundle, choice.custom.signer)  # 3
    scorer = Scorer(bundle.files[MODEL_NAME], threads=1)
    check_golden(scorer, bundle.golden, bundle.files[GOLDEN_NAME])  # 4
    explainer = Explainer(scorer, bundle.manifest, bundle.files[REFERENCES_NAME])
    size = len(bundle.files[MODEL_NAME]) + len(bundle.files[REFERENCES_NAME])
    return LoadedModel(bundle.digest, bundle.manifest, scorer, explainer, size)

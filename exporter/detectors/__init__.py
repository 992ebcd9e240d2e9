"""Detectors: what turns features into a raw score. ``protocol`` says what each family offers."""

from __future__ import annotations

from exporter.detectors.protocol import Candidate, Detector, FittedDetector, form_scores, graph_scores, notes_of
from exporter.spec import DetectorSpec

__all__ = ["Candidate", "Detector", "FittedDetector", "form_scores", "graph_scores", "make_detector", "notes_of"]


def make_detector(spec: DetectorSpec, shared: FittedDetector | None = None) -> Detector:
    """Return the detector that ``model.toml`` asks for; config has checked its kind.

    Families load when they are asked for: each brings a library of its own.

    Args:
        spec: Kind, size and seed.
        shared: For a cohort's hybrid, the forest of all devices; a hybrid without one is that forest itself.
    """
    if spec.kind == "autoencoder":
        from exporter.detectors.autoencoder import AutoencoderDetector

        return AutoencoderDetector(spec)
    if spec.kind == "sklearn":
        from exporter.detectors.pipeline import PipelineDetector

        return PipelineDetector(spec)
    if spec.onnx is not None:
        from exporter.detectors.imported import ImportedDetector

        return ImportedDetector(spec.onnx)
    from exporter.detectors.forest import FittedForest, ForestDetector
    from exporter.detectors.hybrid import HybridDetector

    if isinstance(shared, FittedForest):
        return HybridDetector(spec, shared)
    return ForestDetector(spec)

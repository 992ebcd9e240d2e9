"""Detectors: what turns features into a raw score. ``protocol`` says what each family offers."""

from __future__ import annotations

from exporter.detectors.protocol import Candidate, Detector, FittedDetector, graph_scores
from exporter.spec import DetectorSpec

__all__ = ["Candidate", "Detector", "FittedDetector", "graph_scores", "make_detector"]


def make_detector(spec: DetectorSpec) -> Detector:
    """Return the detector that ``model.toml`` asks for; config has checked its kind.

    Families load when they are asked for: each brings a library of its own.
    """
    from exporter.detectors.forest import ForestDetector

    return ForestDetector(spec)

"""The one place where commands reach the training half, which is heavy to import."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from exporter.built import Build
    from exporter.config import ModelSpec
    from exporter.parallel import Workers


def train_models(spec: ModelSpec, progress: Callable[[str, float], None] | None, workers: Workers | None) -> Build:
    """Make all models of the settings.

    Args:
        spec: The settings.
        progress: Called with a step's name and the share of it that is done.
        workers: Who builds the models; None: threads of this machine where that is worth it.

    Raises:
        StellaError: The telemetry cannot be used, or a model cannot be made.
    """
    from exporter.model_build import build_models

    return build_models(spec, progress=progress, workers=workers)

"""Try a few feature sets and windows on the same devices, and show them side by side. Nothing is packed.

More is not better: on real fleets, last and mean over a window beat richer sets (contract, Features). This shows
whether the same holds for a fleet at hand.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from edge_runtime.errors import InputError
from exporter.built import Build, Progress
from exporter.config import FeatureSpec, ModelSpec, ReleaseSpec, WindowSpec


@dataclass(frozen=True, slots=True)
class Trial:
    """One setting and what its default model reached on held-out devices; or why it cannot be trained."""

    slots: int
    statistics: tuple[str, ...]
    features: int
    evaluation: dict[str, Any]
    is_present: bool
    refused: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return the trial as one JSON-ready object."""
        return {
            "slots": self.slots,
            "statistics": list(self.statistics),
            "features": self.features,
            "evaluation": self.evaluation,
            "present_setting": self.is_present,
            "refused": self.refused,
        }


def variants(spec: ModelSpec) -> Iterator[ModelSpec]:
    """Return the settings to try: the present one, single readings, other statistics, shorter and longer windows."""
    slots = spec.window.slots if spec.window.slots > 1 else 12
    tried = {(spec.window.slots, spec.features.statistics)}
    yield spec
    for count, statistics in (
        (1, ("last",)),
        (slots, ("last", "mean")),
        (slots, ("last", "mean", "std")),
        (slots, ("last", "mean", "min", "max")),
        (max(2, slots // 2), ("last", "mean")),
        (slots * 2, ("last", "mean")),
    ):
        if (count, statistics) in tried:
            continue
        tried.add((count, statistics))
        # Gap and minimum are taken anew from each window; an explicit minimum could exceed a shorter one.
        window = WindowSpec(slots=count, interval_seconds=spec.window.interval_seconds)
        yield replace(spec, window=window, features=FeatureSpec(statistics))


def compare_features(
    spec: ModelSpec, *, train: Callable[[ModelSpec, Progress | None], Build], progress: Progress | None = None
) -> list[Trial]:
    """Train the default model with each setting.

    Args:
        spec: The present settings.
        train: Makes the models.
        progress: Called with a trial's name and the share of it that is done.

    Returns:
        The trials, the present setting first.

    Raises:
        StellaError: The data cannot be used, or the present setting cannot be trained.
    """
    trials = []
    for variant in variants(spec):
        name = f"{variant.window.slots} slots, {' '.join(variant.features.statistics)}"
        if progress is not None:
            progress(name, 0.0)
        alone = replace(variant, release=ReleaseSpec(variant.release.channels, "fp32", cohorts=False))
        trials.append(_try(alone, is_present=variant is spec, train=train))
        if progress is not None:
            progress(name, 1.0)
    return trials


def _try(spec: ModelSpec, *, is_present: bool, train: Callable[[ModelSpec, Progress | None], Build]) -> Trial:
    setting = (spec.window.slots, spec.features.statistics)
    try:
        model = train(spec, None).models[0]
    except InputError as error:
        if is_present:
            raise
        return Trial(*setting, features=0, evaluation={}, is_present=False, refused=error.message)
    return Trial(*setting, features=len(model.features), evaluation=dict(model.evaluation), is_present=is_present)

"""Which specifications to try: those of a grid around one ``model.toml``, or several files as they are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, replace

from exporter.config import DataSpec, DetectorSpec, FeatureSpec, ModelSpec, WindowSpec
from exporter.spec import StepSpec

SINGLE_READING = ("last",)
# The best of scikit-learn's detectors on the servers of smd and asd, and the smallest (`benchmarks/quality.py`).
MIXTURE = DetectorSpec(
    "sklearn",
    steps=(
        StepSpec("sklearn.preprocessing.StandardScaler"),
        StepSpec("sklearn.mixture.GaussianMixture", {"n_components": 8, "covariance_type": "diag", "reg_covar": 0.01}),
    ),
)
# One of each family that may be tried without knowing the data.
FAMILIES = (DetectorSpec(), DetectorSpec("autoencoder"), MIXTURE)


def grid(spec: ModelSpec) -> Iterator[ModelSpec]:
    """Yield the model's own settings, then every other point of its ``[compare]`` table once.

    Args:
        spec: The model.
    """
    tried = [_point(spec)]
    yield spec
    for detector in _detectors(spec):
        for data in _contexts(spec):
            for window, features in _views(spec):
                variant = replace(spec, data=data, window=window, features=features, detector=detector)
                if _point(variant) not in tried:
                    tried.append(_point(variant))
                    yield variant


def describe(spec: ModelSpec) -> str:
    """Return what tells a specification from the others, in a few words."""
    slots = "1 slot" if spec.window.slots == 1 else f"{spec.window.slots} slots"
    statistics = SINGLE_READING if spec.window.slots == 1 else spec.features.statistics
    parts = [_detector_name(spec.detector), slots, " ".join(statistics)]
    return ", ".join([*parts, "context"] if spec.data.context else parts)


def _detector_name(detector: DetectorSpec) -> str:
    """Return its kind and the parameters that are not the defaults."""
    plain = {field.name: (getattr(detector, field.name), field.default) for field in fields(detector)}
    changed = [
        f"{name} {value}"
        for name, (value, default) in plain.items()
        if name not in ("kind", "seed") and value != default and isinstance(value, int | float | str)
    ]
    # Of a pipeline the last step says the most.
    kind = detector.steps[-1].use.rpartition(".")[2] if detector.steps else detector.kind
    return f"{kind} ({', '.join(changed)})" if changed else kind


def _point(spec: ModelSpec) -> tuple[object, ...]:
    statistics = SINGLE_READING if spec.window.slots == 1 else spec.features.statistics
    return spec.detector, spec.window.slots, statistics, spec.data.context


def _detectors(spec: ModelSpec) -> Iterator[DetectorSpec]:
    """Yield the model's own detector, then those of its table; a family that it is of needs no other example."""
    yield spec.detector
    others = spec.compare.detectors or tuple(one for one in FAMILIES if one.kind != spec.detector.kind)
    yield from (replace(one, seed=spec.detector.seed) for one in others)


def _contexts(spec: ModelSpec) -> Iterator[DataSpec]:
    if not spec.data.context:
        yield spec.data
        return
    for with_context in dict.fromkeys(spec.compare.context):
        yield spec.data if with_context else replace(spec.data, signals=spec.data.columns, context=())


def _views(spec: ModelSpec) -> Iterator[tuple[WindowSpec, FeatureSpec]]:
    for slots in dict.fromkeys(spec.compare.windows):
        # Gap and minimum are taken anew from each window; an explicit minimum could exceed a shorter one.
        own = slots == spec.window.slots
        window = spec.window if own else WindowSpec(slots=slots, interval_seconds=spec.window.interval_seconds)
        if slots == 1:
            yield window, FeatureSpec(SINGLE_READING)
            continue
        for statistics in spec.compare.statistics:
            if all(_looks_back(statistic) < slots for statistic in statistics):
                yield window, FeatureSpec(statistics)


def _looks_back(statistic: str) -> int:
    """Return over how many slots a statistic is taken, 0 for all; a misspelt one is refused when it is trained."""
    count = statistic.partition(":")[2]
    return int(count) if count.isdecimal() else 0

"""A release as a side of a replay: its bundles, opened, checked as an auditor would, and loaded."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_runtime.contract.bundle import GOLDEN_NAME, MODEL_NAME, PROVENANCE_NAME, Bundle
from edge_runtime.contract.manifest import Manifest
from edge_runtime.errors import InputError
from edge_runtime.scoring import Scorer, check_golden

SUFFIX = ".bundle"


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """One bundle, loaded.

    Attributes:
        digest: SHA-256 of the bundle, hex.
        manifest: Its manifest.
        scorer: Its graph.
    """

    digest: str
    manifest: Manifest
    scorer: Scorer

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of a window's columns, in order."""
        return tuple(signal.name for signal in self.manifest.signals)


@dataclass(frozen=True, slots=True, eq=False)
class Side:
    """A release.

    Attributes:
        name: What people call it: model, version and number.
        models: By cohort, the default bundle under None.
        data: The ``data`` table of the settings that it was built with, from its provenance; empty when it has none.
    """

    name: str
    models: Mapping[str | None, Model]
    data: Mapping[str, Any]

    def model_for(self, cohort: str | None) -> Model | None:
        """Return the bundle that a device of a cohort would run: its own, else the default one, None without it."""
        return self.models.get(cohort) or self.models.get(None)

    def to_dict(self) -> dict[str, Any]:
        """Return what was replayed as JSON-ready fields."""
        return {
            "name": self.name,
            "bundles": [{"cohort": cohort, "digest": model.digest} for cohort, model in self.models.items()],
        }


def load_side(path: Path, open_bundle: Callable[[Path], Bundle]) -> Side:
    """Open a release.

    Args:
        path: A bundle, or a folder with the bundles of one release at any depth.
        open_bundle: Opens one, and checks it against keys where there are any.

    Raises:
        InputError: There is no bundle, or they are of several releases, or two are for one cohort.
        ContractError: A bundle is broken.
        TrustError: A bundle is not signed as it should be.
        ScoringError: A model does not load, or fails its golden windows here.
    """
    files = sorted(path.rglob(f"*{SUFFIX}")) if path.is_dir() else [path]
    if not files:
        raise InputError(f"The folder {path} holds no {SUFFIX} file.", advice="Name a bundle, or a release's folder.")
    bundles = [open_bundle(file) for file in files]
    manifests = [bundle.manifest for bundle in bundles]
    releases = {(one.model, one.version, one.release_number) for one in manifests}
    if len(releases) > 1 or len({one.cohort for one in manifests}) < len(manifests):
        raise InputError(
            f"The bundles in {path} are not one release with one bundle a cohort.",
            advice="Name the folder of one version.", found=sorted(map(str, releases)),
        )  # fmt: skip
    first = manifests[0]
    name = f"{first.model} {first.version} (release {first.release_number})"
    return Side(name, {one.manifest.cohort: _loaded(one) for one in bundles}, _data_settings(bundles[0]))


def _loaded(bundle: Bundle) -> Model:
    scorer = Scorer(bundle.files[MODEL_NAME])
    check_golden(scorer, bundle.golden, bundle.files[GOLDEN_NAME])
    return Model(bundle.digest, bundle.manifest, scorer)


def _data_settings(bundle: Bundle) -> Mapping[str, Any]:
    """Return the ``data`` table of the provenance; it is for people, so that whatever it holds is no reason to stop."""
    try:
        value = json.loads(bundle.files[PROVENANCE_NAME])["settings"]["data"]
    except (ValueError, KeyError, TypeError):
        return {}
    return value if isinstance(value, dict) else {}


def check_same_model(candidate: Side, current: Side) -> None:
    """Refuse two releases of different models: every flag would differ, and none of it would mean anything.

    Raises:
        InputError: They are of different models.
    """
    names = {next(iter(side.models.values())).manifest.model for side in (candidate, current)}
    if len(names) > 1:
        raise InputError(
            f"{candidate.name} and {current.name} are of different models.", advice="Name two releases of one model."
        )


Scores = npt.NDArray[np.float32]
Flags = npt.NDArray[np.bool_]


def score_blocks(model: Model, blocks: Any, count: int) -> tuple[Scores, Flags]:
    """Score windows block by block.

    Args:
        model: The bundle.
        blocks: Yields (n, W, S) float32, ``count`` windows in all.
        count: m, the number of windows.

    Returns:
        (m,) raw scores and (m,) verdicts.

    Raises:
        ScoringError: The model failed.
    """
    raw, flags, done = np.empty(count, np.float32), np.empty(count, np.bool_), 0
    for windows in blocks:
        verdicts = model.scorer.score(windows)
        raw[done : done + len(windows)], flags[done : done + len(windows)] = verdicts.raw_score, verdicts.is_anomaly
        done += len(windows)
    return raw, flags

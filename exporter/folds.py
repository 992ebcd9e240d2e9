"""Folds of whole devices: what calibrates a model has seen nothing of the device that it scores."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_runtime.contract.manifest import Regimes
from exporter.detectors import FittedDetector
from exporter.window_sets import WindowSet

FOLDS = 5
LEAVE_ONE_OUT_BELOW = 10


@dataclass(frozen=True, slots=True, eq=False)
class Fold:
    """What was learnt without the devices of one fold: residuals and detector."""

    regimes: Regimes | None
    detector: FittedDetector


@dataclass(frozen=True, slots=True, eq=False)
class Folds:
    """The folds of a fleet.

    Attributes:
        of_device: (devices,) the fold of each device's number, -1 for one that is not there.
        learnt: By fold.
    """

    of_device: npt.NDArray[np.int64]
    learnt: tuple[Fold, ...]


def fold_of_devices(windows: WindowSet, seed: int) -> npt.NDArray[np.int64] | None:
    """Return the fold of each device's number: 5 folds, or one device each below 10 devices; None for one device."""
    present = np.unique(windows.device)
    if present.size == 1:
        return None
    number = present.size if present.size < LEAVE_ONE_OUT_BELOW else FOLDS
    of_device = np.full(len(windows.devices), -1, np.int64)
    of_device[np.random.default_rng(seed).permutation(present)] = np.arange(present.size) % number
    return of_device


def stretches(windows: int) -> Iterator[npt.NDArray[np.bool_]]:
    """Yield masks of five stretches of time: a single device has no other to be scored by."""
    fold = np.arange(windows) * FOLDS // max(1, windows)
    for number in range(FOLDS):
        held = fold == number
        if held.any() and not held.all():
            yield held

"""Reference windows: healthy ones that a device takes a signal from, to ask what its score would be with it.

R = 8 windows spread over regimes, devices and scores; with one slot, R = 1, the healthy mean (contract, Contributions).
A flat line at the median is no healthy window, so real ones are taken.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from exporter.training import Trained
from exporter.window_sets import WindowSet

REFERENCES = 8
# Enough to choose from, whatever the size of the fleet.
MOST_WINDOWS = 20_000
# Candidates per wanted score: enough to find another device and regime, few enough to stay near the score.
CANDIDATES = 200


def choose_references(trained: Trained, count: int = REFERENCES) -> npt.NDArray[np.float32]:
    """Choose the reference windows of a model.

    Args:
        trained: The model, with its healthy windows and their out-of-fold scores.
        count: R.

    Returns:
        (R, W, S) float32 raw values: the fullest windows near the middle of each R-th of the healthy scores, each
        from another device and regime where there are enough. For W = 1 the mean of the commonest regime, (1, 1, S).
    """
    sample = np.arange(0, len(trained.healthy), -(-len(trained.healthy) // MOST_WINDOWS))
    healthy, scores = trained.healthy.take(sample), trained.out_of_fold[sample]
    if healthy.rule.slots == 1:
        return _mean_window(trained, healthy)
    missing = np.concatenate([np.isnan(block).mean(axis=(1, 2)) for block in healthy.blocks()])
    fullest = np.flatnonzero(missing <= np.quantile(missing, 0.5))
    order = fullest[np.argsort(scores[fullest], kind="stable")]
    regimes = _regime_of_newest(trained, healthy)
    chosen: list[int] = []
    for part in range(min(count, order.size)):
        middle = int((part + 0.5) * order.size / min(count, order.size))
        near = order[max(0, middle - CANDIDATES // 2) : middle + CANDIDATES // 2]
        used_devices = np.isin(healthy.device[near], healthy.device[chosen]) if chosen else np.zeros(near.size, bool)
        uses = np.array([np.count_nonzero(regimes[chosen] == regimes[one]) for one in near])
        penalty = 4.0 * np.isin(near, chosen) + used_devices + uses + 0.01 * missing[near]
        chosen.append(int(near[np.argmin(penalty)]))
    return healthy.take(np.array(chosen)).windows()


def _mean_window(trained: Trained, healthy: WindowSet) -> npt.NDArray[np.float32]:
    readings = healthy.newest.astype(np.float64)
    if trained.regimes is not None:
        regimes = _regime_of_newest(trained, healthy)
        common = np.bincount(regimes).argmax()
        readings = readings[regimes == common]
    there = ~np.isnan(readings)
    count = there.sum(axis=0)
    total = np.where(there, readings, 0.0).sum(axis=0)
    mean = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    return mean.astype(np.float32).reshape(1, 1, -1)


def _regime_of_newest(trained: Trained, healthy: WindowSet) -> npt.NDArray[np.int64]:
    if trained.regimes is None:
        return np.zeros(len(healthy), np.int64)
    regimes = healthy.run(trained.feature_graph(), ["regime"])[0]
    return np.asarray(regimes[:, -1], np.int64)

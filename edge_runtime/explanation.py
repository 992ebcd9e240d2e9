"""Contributions: how much of a window's raw score goes away when one signal is taken from healthy windows.

The bundle carries R healthy reference windows. For each signal its column is replaced by that of each reference, all
versions are scored in one batch, and the contribution is the raw score minus their mean: signed, in raw score units.

With context the replaced column is in the residuals of the window's own regimes: a reference that was charging says
what this signal does when charging, not what it would be here. The context signals are replaced together and reported
as ``context``, while every other signal keeps its residuals. A flat line at the median would be no healthy window
(contract, Contributions).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edge_runtime.contract.manifest import Manifest, Regimes
from edge_runtime.contract.result import MAX_CONTRIBUTIONS
from edge_runtime.errors import ScoringError
from edge_runtime.scoring import Float32s, Int64s, Scorer

CONTEXT = "context"
# Six digits say more than any reader needs, and half of an anomaly record is contributions.
_DIGITS = 6

Float64s = npt.NDArray[np.float64]


class Explainer:
    """Contributions under one bundle.

    Args:
        scorer: The bundle's model, loaded.
        manifest: The bundle's manifest.
        references: ``references.f32``: R * W * S little-endian float32, raw values.

    Attributes:
        names: What contributes: the signals, and ``context`` after them where there is one.

    Raises:
        ScoringError: The references have another size than the manifest says (``references_size``).
    """

    def __init__(self, scorer: Scorer, manifest: Manifest, references: bytes) -> None:
        shape = (manifest.references, manifest.window.slots, len(manifest.signals))
        if len(references) != 4 * int(np.prod(shape)):
            raise ScoringError(
                f"references.f32 has {len(references)} bytes instead of {4 * int(np.prod(shape))}.",
                reason="references_size",
                advice="Sync again; if it stays, publish the bundle again.",
            )
        self._scorer = scorer
        self._references = np.frombuffer(references, dtype="<f4").reshape(shape).astype(np.float32)
        self._context = np.array(manifest.context_columns, dtype=np.int64)
        self._signals = np.array(manifest.signal_columns, dtype=np.int64)
        self._healthy = None if manifest.regimes is None else _Healthy(manifest.regimes)
        signals = [manifest.signals[column].name for column in manifest.signal_columns]
        self.names = signals if self._healthy is None else [*signals, CONTEXT]
        self._reference_regimes = None if self._healthy is None else scorer.regimes(self._references)

    def contributions(self, window: Float32s, raw_score: float) -> tuple[tuple[str, float], ...]:
        """Explain one window.

        Args:
            window: (W, S) float32, NaN = missing.
            raw_score: The window's raw score.

        Returns:
            (signal, contribution), largest first by size, at most 8; signals without any are left out.

        Raises:
            ScoringError: The model fails.
        """
        lost = self.every_contribution(window, raw_score)
        order = np.argsort(-np.abs(lost), kind="stable")[:MAX_CONTRIBUTIONS]
        rounded = [(self.names[index], float(f"{lost[index]:.{_DIGITS}g}")) for index in order]
        return tuple((name, value) for name, value in rounded if value != 0.0)

    def every_contribution(self, window: Float32s, raw_score: float) -> Float64s:
        """Return the contribution of every name in ``names``, unrounded: (len(names),) float64.

        Args:
            window: (W, S) float32, NaN = missing.
            raw_score: The window's raw score.

        Raises:
            ScoringError: The model fails.
        """
        versions = self._versions(window)
        groups, references = versions.shape[:2]
        scores = self._scorer.raw_scores(versions.reshape(groups * references, *window.shape))
        lost: Float64s = raw_score - scores.astype(np.float64).reshape(groups, references).mean(axis=1)
        return lost

    def _versions(self, window: Float32s) -> Float32s:
        """Return (groups, R, W, S): the window with each signal, then the context, taken from each reference."""
        there = ~np.isnan(window).all(axis=1)
        regimes = None if self._healthy is None else self._scorer.regimes(window[None])[0]
        columns, context = self._replacements(window, regimes)
        groups = len(self._signals) + (context is not None)
        shape = (groups, len(self._references), *window.shape)
        versions = np.broadcast_to(window, shape).copy()
        for group, column in enumerate(self._signals):
            # A slot without a reading stays without one: its absence is no signal's doing.
            versions[group, :, there, column] = columns[:, there, group].T
        if context is not None:
            versions[-1][:, there] = context[:, there]
        return versions

    def _replacements(self, window: Float32s, regimes: Int64s | None) -> tuple[Float32s, Float32s | None]:
        """Return each signal's column (R, W, S') and, with context, whole windows in the references' context."""
        if self._healthy is None or regimes is None or self._reference_regimes is None:
            return self._references[:, :, self._signals], None
        references, context = self._references, self._context
        known = ~np.isnan(window[:, context]).any(axis=1)
        known_there = ~np.isnan(references[:, :, context]).any(axis=2)
        residuals = self._healthy.residuals(references[:, :, self._signals], self._reference_regimes)
        columns = self._healthy.values(residuals, np.broadcast_to(regimes, references.shape[:2]))
        columns[~known_there] = np.nan
        # Without its context a reading has no residuals, and nothing to replace them by.
        columns[:, ~known] = window[~known][:, self._signals]
        own = self._healthy.residuals(window[:, self._signals][None], regimes[None])
        moved = np.broadcast_to(window, references.shape).copy()
        both = known_there & known
        signals = self._healthy.values(np.broadcast_to(own, columns.shape), self._reference_regimes)
        moved[..., self._signals] = signals
        moved[..., context] = references[:, :, context]
        moved[~both] = np.broadcast_to(window, references.shape)[~both]
        return columns, moved


class _Healthy:
    """What is normal in each regime, as arrays."""

    def __init__(self, regimes: Regimes) -> None:
        self._means: Float64s = np.array(regimes.means, dtype=np.float64)
        spreads: Float64s = np.array(regimes.spreads, dtype=np.float64)
        self._spreads = np.where(spreads == 0, 1.0, spreads)

    def residuals(self, values: Float32s, regimes: Int64s) -> Float64s:
        """Return (..., S') residuals of values (..., S') in regimes (...)."""
        which = self._bounded(regimes)
        result: Float64s = (values - self._means[which]) / self._spreads[which]
        return result

    def values(self, residuals: Float64s, regimes: Int64s) -> Float32s:
        """Return the raw values that have these residuals in these regimes."""
        which = self._bounded(regimes)
        return (self._means[which] + self._spreads[which] * residuals).astype(np.float32)

    def _bounded(self, regimes: Int64s) -> Int64s:
        # Undefined where context is missing; callers mask those slots, here they only must not index outside.
        return np.clip(regimes, 0, len(self._means) - 1)

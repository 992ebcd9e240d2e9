"""Autoencoder: a network with a bottleneck learns to repeat healthy windows, and is worse at repeating others.

scikit-learn's MLPRegressor is trained from the scaled features to themselves. Scaling and error are robust: medians,
the middle 98 % as spread, bounded inputs, and each feature's error measured in its healthy error. Measured against mean
and deviation, AUC on backblaze2019, whose counters are heavy-tailed, is .90 instead of .84; median and quartiles lose
on smd, .86 instead of .89. The weights take asd from .79 to .82 and cmapss from .84 to .87.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import numpy.typing as npt
import onnx
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPRegressor
from threadpoolctl import threadpool_limits

from exporter.detectors.protocol import Candidate, FeatureMatrix, Scores
from exporter.graph.network import Network, network_model, network_of
from exporter.graph.nodes import GraphBuilder
from exporter.graph.reconstruction import Reconstruction, add_reconstruction
from exporter.graph.squash import Squash, add_squash
from exporter.quantization.network import calibration_rows, quantize_model
from exporter.spec import DetectorSpec

# Rows that are trained on, a seeded sample of them where there are more: it bounds the time, and on smd 15,000 of
# 28,000 rows gave the AUC that all gave.
TRAINING_ROWS = 100_000
# Inputs of the network lie within so many spreads. 10 gave the same AUC, and twice the step in 8 bits.
BOUND = 5.0
# The middle 98 % of a normal distribution is 4.653 deviations wide: a spread is a deviation where all is normal.
NORMAL_WIDTH = 4.653
# Least healthy error of a feature, in spreads. Below it the rounding of 8 bits would be most of the score.
LEAST_ERROR = 0.1
# The bottleneck that is chosen by itself: so many features to a unit, and at most so many units. A quarter, half and
# three quarters of the features gave AUC .962 .976 .986 on cmapss, .832 .840 .856 on asd and .899 .891 .894 on smd; on
# backblaze2019 any size gave .86 to .91.
FEATURES_PER_UNIT = 2
WIDEST = 64
# A batch is at most this part of the windows, so that few of them still are many training steps.
BATCHES = 50
SMALLEST_BATCH, LARGEST_BATCH = 16, 256
# Every window is shown a second time with so many of its values missing, for the network not to lean on any one of
# them. With a tenth of the values gone AUC falls to .73 instead of .67 on asd (from .82 and .84) and to .85 instead of
# .81 on cmapss (from .98 both). With 15 % it falls less, from .80 and .95.
HIDDEN_SHARE = 0.05
# Rows held out to stop training early; with fewer, training stops when its own loss no longer falls.
LEAST_HELD_OUT = 10
BLOCK_ROWS = 65_536


@dataclass(frozen=True, slots=True, eq=False)
class FittedAutoencoder:
    """A trained autoencoder.

    Attributes:
        mlp: scikit-learn's network, from scaled features to themselves.
        network: The same as arrays.
        around: Scaling before it and error after it.
        squash: From its score to [0, 1].
    """

    mlp: MLPRegressor
    network: Network
    around: Reconstruction
    squash: Squash

    def raw_scores(self, features: FeatureMatrix) -> Scores:
        """Return the squashed scores of (n, F) float32 features, with the network run by scikit-learn."""
        return self.squash(_scores(self.mlp, self.around, features))

    def add_to(self, graph: GraphBuilder, features: str, name: str) -> str:
        """Add scaling, the network in float32, error and squash."""
        return self._add(network_model(self.network), True, graph, features, name)

    def candidates(self, features: FeatureMatrix) -> Iterator[Candidate]:
        """Yield it with the network in 8-bit integers; scaling and error stay float."""
        rows = self.around.bounded(self.around.scaled(features))
        chosen = calibration_rows(rows, self.network.largest_activations(rows))
        for name, about, model, float_nodes in quantize_model(network_model(self.network), chosen):
            yield Candidate(
                name, "int8", partial(self._add, model, False), f"{about} Scaling and error stay float.", float_nodes
            )

    def _add(self, network: onnx.ModelProto, exact: bool, graph: GraphBuilder, features: str, name: str) -> str:
        score = add_reconstruction(graph, self.around, network, features, exact=exact)
        return add_squash(graph, self.squash, score, name=name)


@dataclass(frozen=True, slots=True)
class AutoencoderDetector:
    """An autoencoder before training."""

    spec: DetectorSpec

    def fit(self, features: FeatureMatrix) -> FittedAutoencoder:
        """Train on (n, F) float32 features, n >= 1, NaN = missing; the same seed gives the same network."""
        rows = _sample(features, self.spec.seed)
        around = _scaling(rows)
        z = around.scaled(rows)
        with threadpool_limits(limits=1, user_api="blas"):  # sums over more threads have other last bits
            mlp = _trained(around.bounded(z), self.spec)
            around = _with_output_bias(around, mlp)
            z = around.scaled(rows)
            made = mlp.predict(around.bounded(z)).reshape(z.shape)
            around = replace(around, weights=_error_weights(z, made))
        own = _scores(mlp, around, rows)
        # Windows without any value say nothing, here too.
        seen = own[~np.isnan(rows).all(axis=1)]
        squash = Squash.fit(seen if seen.size else [1.0])
        return FittedAutoencoder(mlp, network_of(mlp), replace(around, typical=squash.middle), squash)


def _sample(features: FeatureMatrix, seed: int) -> FeatureMatrix:
    if len(features) <= TRAINING_ROWS:
        return features
    chosen = np.random.default_rng(seed).choice(len(features), TRAINING_ROWS, replace=False)
    return features[np.sort(chosen)]


def _scaling(rows: FeatureMatrix) -> Reconstruction:
    """Return centres and spreads of (n, F) features; weights are 1 and the typical score 0 until they are known."""
    places = [_place(column[~np.isnan(column)].astype(np.float64)) for column in rows.T]
    centre, spread = np.array(places).T
    ones = np.ones(len(places), np.float32)
    return Reconstruction(centre.astype(np.float32), (1 / spread).astype(np.float32), BOUND, ones, 0.0)


def _place(values: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Return the centre and the spread of the values of one feature; 0 and 1 when there are none."""
    if not values.size:
        return 0.0, 1.0
    low, middle, high = np.quantile(values, (0.01, 0.5, 0.99))
    spread = (high - low) / NORMAL_WIDTH or values.std()
    # A spread below float32's own step at this height is rounding, no variation. Zero counts as 1 (contract).
    return float(middle), float(spread) if spread > 1e-6 * abs(middle) else 1.0


def _error_weights(z: npt.NDArray[np.float32], made: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return one divided by the healthy error of each feature: from (n, F) and (n, F) to (F,) float32."""
    errors = np.clip(np.nan_to_num(z - made), -BOUND, BOUND)  # a few extremes do not decide what is healthy
    there = np.maximum(np.count_nonzero(~np.isnan(z), axis=0), 1)
    healthy = np.sqrt(np.square(errors, dtype=np.float64).sum(axis=0) / there)
    return np.asarray(1 / np.maximum(healthy, LEAST_ERROR), np.float32)


def _trained(known: npt.NDArray[np.float32], spec: DetectorSpec) -> MLPRegressor:
    n, width = known.shape
    hidden = np.random.default_rng(spec.seed).random(known.shape) < HIDDEN_SHARE
    shown = np.concatenate([known, np.where(hidden, np.float32(0), known)])
    wanted = np.concatenate([known, known])
    mlp = MLPRegressor(
        hidden_layer_sizes=spec.hidden or (min(WIDEST, -(-width // FEATURES_PER_UNIT)),),
        batch_size=min(n, max(SMALLEST_BATCH, min(LARGEST_BATCH, n // BATCHES))),
        max_iter=spec.epochs,
        early_stopping=n >= 10 * LEAST_HELD_OUT,
        n_iter_no_change=5,
        random_state=spec.seed,
    )
    with warnings.catch_warnings():
        # Training is bounded by epochs on purpose; that it could go on is nothing that anyone has to act on.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return mlp.fit(shown, wanted if width > 1 else wanted[:, 0])


def _with_output_bias(around: Reconstruction, mlp: MLPRegressor) -> Reconstruction:
    """Move the bias of a network's last layer into the centres, for the first layer to make good.

    The same function, but for where inputs are bounded and what a missing value stands for, which becomes what the
    network gives at rest: .1 spreads beside the median, 1.2 at most, on the fleets that were tried. Without that bias
    the integer form of 512-64-512 is 1.2 times as fast, as its kernel writes each value once instead of twice.
    """
    bias = mlp.intercepts_[-1]
    mlp.intercepts_[0] = mlp.intercepts_[0] + bias @ mlp.coefs_[0]
    mlp.intercepts_[-1] = np.zeros_like(bias)
    return replace(around, centre=(around.centre + bias / around.factor).astype(np.float32))


def _scores(mlp: MLPRegressor, around: Reconstruction, features: FeatureMatrix) -> Scores:
    """Return the scores before the squash, block by block: (n,) float64."""
    blocks = [np.empty(0)]
    for start in range(0, len(features), BLOCK_ROWS):
        z = around.scaled(features[start : start + BLOCK_ROWS])
        made = mlp.predict(around.bounded(z))  # in float32, as it was trained
        blocks.append(around.scores(z, made.reshape(z.shape)))
    return np.concatenate(blocks)

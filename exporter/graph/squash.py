"""From any real score to [0, 1], keeping the order: the softsign (Bergstra et al. 2009), halved and lifted.

With t = (score - middle) / spread the raw score is (1 + t / (1 + |t|)) / 2. Its tails fall off as 1 / t, not as an
exponential, so that float32 still tells apart scores of a million healthy spreads.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx

from exporter.graph.nodes import GraphBuilder


@dataclass(frozen=True, slots=True)
class Squash:
    """The map for one detector.

    Attributes:
        middle: Score that becomes .5.
        spread: Scores this far above it become .75; above 0.
    """

    middle: float
    spread: float

    @classmethod
    def fit(cls, scores: npt.ArrayLike) -> Squash:
        """Return the map of a detector's scores of healthy windows: their median, and their interquartile range.

        Args:
            scores: (n,) finite, higher is more anomalous, n >= 1.
        """
        low, middle, high = np.quantile(np.asarray(scores, np.float64), (0.25, 0.5, 0.75))
        # Half of the scores are equal: any positive spread keeps the order, and this one the scale.
        return cls(float(middle), float(high - low) or float(abs(middle)) or 1.0)

    def __call__(self, scores: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Return the raw scores of a detector's own scores: any shape."""
        t = (np.asarray(scores, np.float64) - self.middle) / self.spread
        return np.asarray((1.0 + t / (1.0 + np.abs(t))) / 2.0, np.float64)


def add_squash(graph: GraphBuilder, squash: Squash, score: str, *, name: str = "") -> str:
    """Add the map, in float64.

    Args:
        graph: Where to add.
        squash: The map.
        score: Name of a [batch, 1] tensor, float32 or float64.
        name: Name of the result; made up when empty.

    Returns:
        Name of the raw score: [batch, 1] float32 in [0, 1].
    """
    add, constant = graph.add, graph.constant
    one = constant(np.float64(1))
    wide = add("Cast", score, to=onnx.TensorProto.DOUBLE)
    t = add("Div", add("Sub", wide, constant(np.float64(squash.middle))), constant(np.float64(squash.spread)))
    sign = add("Div", t, add("Add", one, add("Abs", t)))
    half = add("Mul", add("Add", one, sign), constant(np.float64(0.5)))
    return add("Cast", half, to=onnx.TensorProto.FLOAT, name=name)

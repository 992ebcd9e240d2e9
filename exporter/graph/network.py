"""Dense networks: their layers as arrays, and the same as ONNX nodes.

skl2onnx 1.20 ends every MLPRegressor with a Reshape to (-1, 1), so that n rows of m outputs come out as n * m rows of
one. So networks are written here, and one Gemm a layer also is the form that quantizes best
(``exporter.quantization.dense``)::

    network = network_of(MLPRegressor().fit(X, X))
    model = network_model(network)                       # X [batch, n] float32 to Y [batch, m] float32
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import onnx
from scipy.special import expit

from exporter.errors import ConversionError
from exporter.graph.nodes import GraphBuilder, tensor_info

if TYPE_CHECKING:
    from sklearn.neural_network import MLPRegressor

# The ONNX operator of each activation, by scikit-learn's name; None: no operator.
OPERATORS = {"identity": None, "relu": "Relu", "tanh": "Tanh", "logistic": "Sigmoid"}

_ACTIVATIONS: dict[str, Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]]] = {
    "identity": lambda x: x,
    "relu": lambda x: np.maximum(x, 0),
    "tanh": np.tanh,
    "logistic": expit,
}


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """One dense layer: activation(x @ weights + bias).

    Attributes:
        weights: (inputs, outputs) float32.
        bias: (outputs,) float32.
        activation: ``identity``, ``relu``, ``tanh`` or ``logistic``.
    """

    weights: npt.NDArray[np.float32]
    bias: npt.NDArray[np.float32]
    activation: str


@dataclass(frozen=True, slots=True, eq=False)
class Network:
    """Dense layers, one after the other.

    Attributes:
        layers: At least one; each takes as many values as the one before it gives.
    """

    layers: tuple[Layer, ...]

    def __post_init__(self) -> None:
        """Check that the layers fit.

        Raises:
            ConversionError: They do not, or an activation is unknown.
        """
        if not self.layers:
            raise ConversionError("The network has no layer.", advice="Give it at least one.")
        for layer in self.layers:
            if layer.activation not in OPERATORS:
                raise ConversionError(
                    f"The network has the activation {layer.activation!r}, which is not converted.",
                    advice=f"Train it with one of {', '.join(OPERATORS)}.",
                )
            if layer.bias.shape != layer.weights.shape[1:]:
                raise ConversionError(
                    f"A layer has weights of shape {layer.weights.shape} and a bias of shape {layer.bias.shape}.",
                    advice="Give it one bias per output.",
                )
        for before, after in pairwise(self.layers):
            if before.weights.shape[1] != after.weights.shape[0]:
                raise ConversionError(
                    f"A layer gives {before.weights.shape[1]} values, the next takes {after.weights.shape[0]}.",
                    advice="Put the layers in the order in which they were trained.",
                )

    @property
    def inputs(self) -> int:
        """Values of a row."""
        return int(self.layers[0].weights.shape[0])

    @property
    def outputs(self) -> int:
        """Values that come out."""
        return int(self.layers[-1].weights.shape[1])

    def largest_activations(self, rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Say how far each row drives the layers.

        Args:
            rows: (n, inputs) float32.

        Returns:
            (n,) float32 in [0, 1]: the largest value that a layer gets, in the largest that it gets from any row.
        """
        reached = np.zeros(len(rows), np.float32)
        values = rows
        for layer in self.layers:
            sizes = np.abs(values).max(axis=1)
            reached = np.maximum(reached, sizes / max(float(sizes.max(initial=0.0)), 1e-30))
            values = _ACTIVATIONS[layer.activation](values @ layer.weights + layer.bias)
        return reached


def network_of(mlp: MLPRegressor) -> Network:
    """Return the layers of a fitted ``MLPRegressor``, rounded to float32.

    Raises:
        ConversionError: Its output activation has no ONNX form here (that of ``loss="poisson"``).
    """
    activations = [mlp.activation] * (len(mlp.coefs_) - 1) + [mlp.out_activation_]
    parts = zip(mlp.coefs_, mlp.intercepts_, activations, strict=True)
    return Network(tuple(Layer(w.astype(np.float32), b.astype(np.float32), name) for w, b, name in parts))


def network_model(network: Network) -> onnx.ModelProto:
    """Return the network as a model of its own: ``X`` [batch, inputs] float32 to ``Y`` [batch, outputs] float32."""
    graph = GraphBuilder()
    value = "X"
    for place, layer in enumerate(network.layers):
        last = place == len(network.layers) - 1
        operator = OPERATORS[layer.activation]
        name = "Y" if last else f"layer{place}"
        # A bias costs the integer kernels a pass over their output, so one that is all zero is left out.
        constants = (layer.weights, layer.bias) if layer.bias.any() else (layer.weights,)
        dense = graph.add(
            "Gemm",
            value,
            *(graph.constant(array, np.float32) for array in constants),
            name=name if operator is None else f"{name}_dense",
        )
        value = dense if operator is None else graph.add(operator, dense, name=name)
    return graph.model(
        "network",
        [tensor_info("X", np.float32, ("batch", network.inputs))],
        [tensor_info("Y", np.float32, ("batch", network.outputs))],
    )

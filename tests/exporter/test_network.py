"""A network's ONNX form gives what scikit-learn's gives, for every activation and any number of outputs."""

from __future__ import annotations

import warnings
from itertools import pairwise

import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPRegressor

from exporter.errors import ConversionError
from exporter.graph.grafting import graft
from exporter.graph.network import OPERATORS, Layer, Network, network_model, network_of
from exporter.graph.nodes import GraphBuilder, tensor_info
from exporter.graph.running import Graph


def trained(activation: str, hidden: tuple[int, ...], outputs: int = 5, **settings: object) -> tuple:
    rows = np.random.default_rng(0).normal(size=(200, 6)).astype(np.float32)
    wanted = np.tile(rows, (1, 3))[:, :outputs]
    mlp = MLPRegressor(hidden_layer_sizes=hidden, activation=activation, max_iter=3, random_state=0, **settings)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        mlp.fit(rows, wanted if outputs > 1 else np.abs(wanted[:, 0]))
    return mlp, rows


def layer(inputs: int, outputs: int, activation: str = "identity", bias: int | None = None) -> Layer:
    width = outputs if bias is None else bias
    return Layer(np.ones((inputs, outputs), np.float32), np.ones(width, np.float32), activation)


@pytest.mark.parametrize("activation", sorted(OPERATORS))
@pytest.mark.parametrize(("hidden", "outputs"), [((4,), 5), ((8, 3, 8), 6), ((4,), 1)])
def test_graph_and_scikit_learn_agree(activation: str, hidden: tuple[int, ...], outputs: int) -> None:
    mlp, rows = trained(activation, hidden, outputs)
    made = Graph(network_model(network_of(mlp))).run(rows, ["Y"])[0]
    assert made.dtype == np.float32
    np.testing.assert_allclose(made, mlp.predict(rows).reshape(len(rows), outputs), atol=2e-6)


def test_skl2onnx_flattens_several_outputs() -> None:
    """Why networks are not converted by skl2onnx; when this fails, ask again whether ours is needed."""
    from skl2onnx import to_onnx

    mlp, rows = trained("relu", (4,), outputs=5)
    theirs = to_onnx(mlp, rows[:1], target_opset={"": 18, "ai.onnx.ml": 3})
    session = ort.InferenceSession(theirs.SerializeToString(), providers=["CPUExecutionProvider"])
    assert session.run(None, {"X": rows})[0].shape == (len(rows) * 5, 1)
    assert Graph(network_model(network_of(mlp))).run(rows, ["Y"])[0].shape == (len(rows), 5)


@settings(max_examples=30, deadline=None)
@given(
    widths=st.lists(st.integers(1, 9), min_size=2, max_size=5),
    activation=st.sampled_from(sorted(OPERATORS)),
    seed=st.integers(0, 99),
    biased=st.booleans(),
)
def test_any_network_is_what_its_layers_say(widths: list[int], activation: str, seed: int, biased: bool) -> None:
    rng = np.random.default_rng(seed)
    layers = tuple(
        Layer(
            rng.normal(size=shape).astype(np.float32),
            (biased * rng.normal(size=shape[1])).astype(np.float32),
            activation,
        )
        for shape in pairwise(widths)
    )
    rows = rng.normal(size=(7, widths[0])).astype(np.float32)
    expected = rows.astype(np.float64)
    functions = {"identity": lambda x: x, "relu": lambda x: x * (x > 0), "tanh": np.tanh}
    functions["logistic"] = lambda x: 1 / (1 + np.exp(-x))
    for one in layers:
        expected = functions[activation](expected @ one.weights + one.bias)
    made = Graph(network_model(Network(layers))).run(rows, ["Y"])[0]
    np.testing.assert_allclose(made, expected, rtol=1e-4, atol=1e-4)


def test_a_bias_of_zeros_is_left_out() -> None:
    zero = Layer(np.ones((3, 2), np.float32), np.zeros(2, np.float32), "identity")
    (node,) = network_model(Network((zero,))).graph.node
    assert len(node.input) == 2


def test_two_networks_in_one_graph_keep_apart() -> None:
    rows = np.random.default_rng(1).normal(size=(4, 3)).astype(np.float32)
    first, second = Network((layer(3, 2, "relu"), layer(2, 2))), Network((layer(3, 2, "tanh"), layer(2, 2)))
    graph = GraphBuilder()
    graft(graph, network_model(first), {"X": "x"}, {"Y": "a"})
    graft(graph, network_model(second), {"X": "x"}, {"Y": "b"})
    infos = [tensor_info(name, np.float32, ("n", 2)) for name in "ab"]
    both = Graph(graph.model("two", [tensor_info("x", np.float32, ("n", 3))], infos)).run(rows, ["a", "b"])
    for network, made in zip((first, second), both, strict=True):
        np.testing.assert_array_equal(made, Graph(network_model(network)).run(rows, ["Y"])[0])


def test_the_row_that_drives_a_layer_furthest_is_found() -> None:
    weights = np.array([[1.0], [-1.0]], np.float32)
    network = Network((Layer(weights, np.zeros(1, np.float32), "relu"), layer(1, 1)))
    rows = np.array([[4, 4], [3, -3], [0, 0]], np.float32)  # the first has the largest input, the second drives layer 2
    assert network.largest_activations(rows).tolist() == [1.0, 1.0, 0.0]


@pytest.mark.parametrize(
    ("layers", "words"),
    [
        ((), "no layer"),
        ((layer(3, 2, "softmax"),), "'softmax'"),
        ((layer(3, 2, bias=3),), "bias of shape"),
        ((layer(3, 2), layer(3, 1)), "gives 2 values, the next takes 3"),
    ],
)
def test_layers_that_do_not_fit_are_refused(layers: tuple[Layer, ...], words: str) -> None:
    with pytest.raises(ConversionError, match=words) as error:
        Network(layers)
    assert error.value.advice


def test_an_output_activation_without_a_form_is_refused() -> None:
    mlp, _ = trained("relu", (4,), outputs=1, loss="poisson")
    with pytest.raises(ConversionError, match="'exp'"):
        network_of(mlp)

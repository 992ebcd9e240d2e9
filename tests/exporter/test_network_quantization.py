"""Integer forms of networks and linear models: what onnxruntime's quantizers cannot do, and what is asked of the result."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import numpy_helper
from sklearn.decomposition import PCA
from sklearn.linear_model import LinearRegression

from exporter.graph.network import Layer, Network, network_model
from exporter.graph.nodes import GraphBuilder, tensor_info
from exporter.graph.running import Graph
from exporter.quantization import network as quantization
from exporter.quantization.dense import dense_nodes, with_plain_dense_layers
from exporter.quantization.network import (
    CALIBRATION_ROWS,
    FEWEST_ROWS,
    QuantizedModel,
    calibration_rows,
    quantize_model,
)

F, H = 20, 6
RNG = np.random.default_rng(0)
W1, W2 = (RNG.normal(size=shape).astype(np.float32) / 3 for shape in ((F, H), (H, F)))
ROWS = RNG.normal(size=(600, F)).astype(np.float32)
STATIC = [f"int8 static per {g} {r}" for r in ("minmax", "entropy", "percentile") for g in ("tensor", "channel")]


def sample_network(activation: str = "relu") -> onnx.ModelProto:
    one, two = np.linspace(-1, 1, H).astype(np.float32), np.linspace(1, -1, F).astype(np.float32)
    return network_model(Network((Layer(W1, one, activation), Layer(W2, two, "identity"))))


def graph_of(*, bias_shape: tuple[int, ...] | None = (1, H), operator: str = "Gemm", trans: int = 0) -> onnx.ModelProto:
    """One dense layer in another of its spellings."""
    graph = GraphBuilder()
    weights = graph.constant(np.ascontiguousarray(W1.T) if trans and operator == "Gemm" else W1)
    bias = graph.constant(np.linspace(-2, 2, H, dtype=np.float32).reshape(bias_shape or (H,)))
    if operator == "Gemm":
        graph.add("Gemm", "X", weights, bias, name="Y", transB=trans)
    else:
        graph.add("Add", *((graph.add("MatMul", "X", weights), bias)[:: -1 if trans else 1]), name="Y")
    model = graph.model("dense", [tensor_info("X", "f4", ("n", F))], [tensor_info("Y", "f4", ("n", H))])
    for place, node in enumerate(model.graph.node):
        node.name = f"node{place}"
    return model


def run(model: onnx.ModelProto, rows: np.ndarray = ROWS) -> np.ndarray:
    return np.asarray(Graph(model).run(rows, [model.graph.output[0].name])[0])


def kernels(model: onnx.ModelProto, folder: Path) -> list[str]:
    """The operators that the runtime makes of a model."""
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    options.log_severity_level = 3  # it warns that such a file is for this machine only
    ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return [node.op_type for node in onnx.load(folder / "optimized.onnx").graph.node]


def forms(model: onnx.ModelProto, rows: np.ndarray = ROWS) -> dict[str, QuantizedModel]:
    return {form.name: form for form in quantize_model(model, rows)}


@pytest.fixture(scope="module")
def network_forms() -> dict[str, QuantizedModel]:
    return forms(sample_network())


def test_every_form_is_made_and_near(network_forms: dict[str, QuantizedModel]) -> None:
    assert list(network_forms) == [*STATIC, "int8 dynamic"]
    exact = run(sample_network())
    for form in network_forms.values():
        assert np.abs(run(form.model) - exact).mean() < 0.03 * exact.std()
        assert {opset.domain for opset in form.model.opset_import} <= {"", "ai.onnx.ml"}
        assert {node.domain for node in form.model.graph.node} == {""}
        onnx.checker.check_model(form.model, full_check=True)


def test_weights_have_seven_bits(network_forms: dict[str, QuantizedModel]) -> None:
    """Two products of 255 and 64 fit into 16 bits, so that a CPU without VNNI does not saturate."""
    for form in network_forms.values():
        weights = [numpy_helper.to_array(t) for t in form.model.graph.initializer if len(t.dims) == 2]
        assert [array.dtype for array in weights] == [np.int8, np.int8]
        assert max(int(np.abs(array.astype(int)).max()) for array in weights) <= 64
        assert 2 * 255 * 64 < 2**15


def test_the_runtime_finds_integer_kernels(network_forms: dict[str, QuantizedModel], tmp_path: Path) -> None:
    for name in STATIC:
        assert kernels(network_forms[name].model, tmp_path) == ["QuantizeLinear", "QGemm", "QGemm"]
    dynamic = kernels(network_forms["int8 dynamic"].model, tmp_path)
    assert dynamic == ["DynamicQuantizeMatMul", "Relu", "DynamicQuantizeMatMul"]


def test_only_dynamic_depends_on_the_other_rows(network_forms: dict[str, QuantizedModel]) -> None:
    for name, form in network_forms.items():
        alone = np.concatenate([run(form.model, ROWS[k : k + 1]) for k in range(20)])
        assert (np.abs(alone - run(form.model)[:20]).max() > 1e-3) == (name == "int8 dynamic")
    assert "depends on the others" in network_forms["int8 dynamic"].about


def test_what_stayed_float_is_named() -> None:
    for activation, stayed in (("tanh", ("Tanh layer0",)), ("identity", ())):
        for form in forms(sample_network(activation)).values():
            assert form.float_nodes == stayed


def test_narrow_ranges_keep_more_of_what_is_common() -> None:
    rows = ROWS.copy()
    rows[0, :3] = 40.0
    made = forms(sample_network(), rows)
    exact = run(sample_network())[1:]
    error = {name: np.abs(run(made[name].model)[1:] - exact).mean() for name in STATIC}
    for grain in ("tensor", "channel"):
        assert error[f"int8 static per {grain} percentile"] < 0.6 * error[f"int8 static per {grain} minmax"]


def test_entropy_has_a_choice() -> None:
    """With onnxruntime's own bins it has none, and is the same as minmax (microsoft/onnxruntime #9597)."""
    rows = ROWS.copy()
    rows[0, :3] = 40.0
    reach = {
        ranges.name: np.ravel(quantization._calibrated(sample_network(), rows, ranges)["X"].range_value[1])[0]
        for ranges in (*quantization._RANGES, quantization._Ranges("theirs", "Entropy", {}))
    }
    assert reach["theirs"] == pytest.approx(reach["minmax"])
    assert reach["entropy"] < 0.5 * reach["minmax"]


def test_the_same_input_gives_the_same_bytes(network_forms: dict[str, QuantizedModel]) -> None:
    for name, form in forms(sample_network()).items():
        assert form.model.SerializeToString() == network_forms[name].model.SerializeToString()


def test_a_bias_of_two_axes_fails_without_us_and_works_with_us() -> None:
    """microsoft/onnxruntime #24815; when the first half fails, ask again whether the second is needed."""
    from onnxruntime.quantization import QDQQuantizer, QuantType

    model, rows = graph_of(), ROWS
    ranges = quantization._calibrated(model, rows, quantization._RANGES[0])
    settings = ([node.name for node in model.graph.node], [], ["Gemm"], {})
    theirs = QDQQuantizer(
        onnx.shape_inference.infer_shapes(model), True, True, QuantType.QInt8, QuantType.QUInt8, ranges, *settings
    )
    with pytest.raises((IndexError, ValueError)):
        theirs.quantize_model()
    exact = run(model)
    for form in forms(model).values():
        assert np.abs(run(form.model) - exact).mean() < 0.03 * exact.std()


@pytest.mark.parametrize("operator", ["Gemm", "MatMul"])
@pytest.mark.parametrize("trans", [0, 1])
@pytest.mark.parametrize("bias_shape", [(1, H), (H,)])
def test_every_spelling_of_a_dense_layer_becomes_one(
    operator: str, trans: int, bias_shape: tuple[int, ...], tmp_path: Path
) -> None:
    model = graph_of(bias_shape=bias_shape, operator=operator, trans=trans)
    plain = with_plain_dense_layers(model)
    (node,) = plain.graph.node
    shapes = {tensor.name: tuple(tensor.dims) for tensor in plain.graph.initializer}
    assert (node.op_type, [shapes[name] for name in node.input[1:]]) == ("Gemm", [(F, H), (H,)])
    np.testing.assert_allclose(run(plain), run(model), atol=1e-6)
    for form in forms(model).values():
        assert not {"Gemm", "MatMul", "FusedGemm"} & set(kernels(form.model, tmp_path))


def test_a_product_that_is_used_twice_keeps_its_addition() -> None:
    graph = GraphBuilder()
    product = graph.add("MatMul", "X", graph.constant(W1))
    graph.add("Mul", graph.add("Add", product, graph.constant(np.ones(H, np.float32))), product, name="Y")
    model = graph.model("twice", [tensor_info("X", "f4", ("n", F))], [tensor_info("Y", "f4", ("n", H))])
    plain = with_plain_dense_layers(model)
    assert [node.op_type for node in plain.graph.node] == ["MatMul", "Add", "Mul"]
    np.testing.assert_array_equal(run(plain), run(model))


@pytest.mark.parametrize("targets", [1, 3])
def test_linear_models_of_skl2onnx(targets: int) -> None:
    from skl2onnx import to_onnx

    fitted = LinearRegression().fit(ROWS, ROWS[:, :targets] + 1)
    model = to_onnx(fitted, ROWS[:1], target_opset={"": 18, "ai.onnx.ml": 3})
    made = forms(model)
    assert list(made) == [*STATIC, "int8 dynamic"]
    expected = fitted.predict(ROWS).reshape(len(ROWS), targets)
    for form in made.values():
        assert np.abs(run(form.model) - expected).mean() < 0.05


def test_a_projection_of_skl2onnx() -> None:
    from skl2onnx import to_onnx

    fitted = PCA(4).fit(ROWS)
    made = forms(to_onnx(fitted, ROWS[:1], target_opset={"": 18, "ai.onnx.ml": 3}))
    for form in made.values():
        assert np.abs(run(form.model) - fitted.transform(ROWS)).mean() < 0.05
        assert [text.split()[0] for text in form.float_nodes] == ["Sub"]


def test_nothing_comes_of_a_model_without_constant_matrices() -> None:
    graph = GraphBuilder()
    graph.add("MatMul", graph.add("Relu", "X"), graph.constant(np.ones(F, np.float32)), name="Y")
    model = graph.model("vector", [tensor_info("X", "f4", ("n", F))], [tensor_info("Y", "f4", ("n",))])
    assert dense_nodes(with_plain_dense_layers(model)) == []
    assert list(quantize_model(model, ROWS)) == []


def test_the_quantizer_is_not_heard_and_leaves_nothing(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    messages: list[logging.LogRecord] = []
    listener = logging.Handler()
    listener.emit = messages.append  # type: ignore[method-assign]
    logging.getLogger().addHandler(listener)
    handlers = list(logging.getLogger().handlers)
    try:
        forms(sample_network())
        assert logging.getLogger().handlers == handlers
        assert logging.root.manager.disable == logging.NOTSET
    finally:
        logging.getLogger().removeHandler(listener)
    assert capfd.readouterr() == ("", "")
    assert messages == []
    assert list(tmp_path.iterdir()) == []


def test_calibration_rows_hold_the_largest() -> None:
    rows = np.arange(3 * CALIBRATION_ROWS, dtype=np.float32)[:, None]
    extremes = np.roll(rows[:, 0], 7)
    chosen = calibration_rows(rows, extremes)
    assert chosen.shape == (CALIBRATION_ROWS, 1)
    assert np.unique(chosen).size == CALIBRATION_ROWS
    largest = rows[np.argsort(extremes)[-CALIBRATION_ROWS // 20 :]]
    assert np.isin(largest, chosen).all()
    np.testing.assert_array_equal(chosen, calibration_rows(rows, extremes))
    np.testing.assert_array_equal(calibration_rows(rows[:9], extremes[:9]), rows[:9])


def test_too_few_rows_make_no_integer_form() -> None:
    assert forms(sample_network(), ROWS[: FEWEST_ROWS - 1]) == {}
    assert forms(sample_network(), ROWS[:FEWEST_ROWS])

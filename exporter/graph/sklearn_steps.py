"""A fitted scikit-learn step as ONNX nodes: by skl2onnx, in float64 where it can, and checked at once.

Features reach hundreds of healthy spreads where a signal hardly varies, and float32 loses there what scikit-learn
keeps: a StandardScaler over smd is off by 22 spreads in float32 and by nothing in float64. skl2onnx 1.20 offers
float64 for most steps, and onnxruntime runs most of these; where both do not, float32 serves. Whichever is nearer to
scikit-learn on training rows is taken::

    step = convert_step(StandardScaler().fit(X), X)
    add_step(graph, step, "features")            # [batch, F] of any float type to [batch, F'] float64
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
from onnx import TensorProto
from skl2onnx import to_onnx
from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType
from sklearn.base import BaseEstimator
from sklearn.preprocessing import PowerTransformer

from edge_runtime.scoring import ORT_ERRORS
from exporter.errors import ConversionError
from exporter.graph.grafting import graft
from exporter.graph.nodes import ML_DOMAIN, OLD_TREES, OPSET, GraphBuilder, every_node, tensor_info

Matrix = npt.NDArray[np.float64]
# A step whose graph is further off than this, in spreads of its output, is another step: skl2onnx maps constant
# columns of a QuantileTransformer to 1 and scikit-learn to 0. Float32 alone stays below 1e-5 on scaled data.
MOST_DIFFERENCE = 1e-3
# Training rows, at least, on which graph and scikit-learn are compared; fewer where there are not so many.
CHECKED_ROWS = 512
# Nothing that float32 could be nearer than; some conversions take seconds.
GOOD_ENOUGH = 1e-6
# What skl2onnx raises besides its own RuntimeErrors when an estimator or a type is not covered (1.20).
_REFUSALS: tuple[type[Exception], ...] = (
    RuntimeError,
    TypeError,
    ValueError,
    AttributeError,
    IndexError,
    KeyError,
    *ORT_ERRORS,
)


@dataclass(frozen=True, slots=True, eq=False)
class ConvertedStep:
    """One step as a model of its own.

    Attributes:
        model: From input ``X`` [n, F] to ``output``.
        double: Whether it computes in float64.
        output: Name of the output wanted.
        columns: F', the columns of the output.
        difference: How far it was from scikit-learn on training rows, in spreads of the output.
    """

    model: onnx.ModelProto
    double: bool
    output: str
    columns: int
    difference: float


def convert_step(
    estimator: Any, values: Matrix, says: Callable[[Matrix], Any] | None = None, *, output: str = ""
) -> ConvertedStep:
    """Convert one fitted step.

    Args:
        estimator: Fitted.
        values: (n, F) float64, the training rows as they reach it; some of them are compared.
        says: Its method that the output wanted stands for; ``transform`` when None.
        output: Name of the output wanted; the first one when empty. ``score_samples`` is asked for as an option.

    Returns:
        The step, in whichever precision is nearer to scikit-learn.

    Raises:
        ConversionError: skl2onnx does not convert it, onnxruntime does not run it, or its numbers are others.
    """
    sample = values[:: max(1, len(values) // CHECKED_ROWS)]
    expected = dense((says or estimator.transform)(sample))
    expected = expected.reshape(len(sample), -1)
    name = type(estimator).__name__
    if isinstance(estimator, PowerTransformer) and estimator.method == "yeo-johnson":
        return _measured(_yeo_johnson(estimator), True, sample, expected, "variable")
    tried: list[ConvertedStep] = []
    refusals: list[str] = []
    for double in (True, False):
        try:
            model = _convert(estimator, sample.shape[1], double, output)
            tried.append(_measured(model, double, sample, expected, output))
            if tried[-1].difference <= GOOD_ENOUGH:
                break
        except _REFUSALS as error:
            refusals.append(str(error).partition("\n")[0][:200])
    if not tried:
        raise ConversionError(
            f"{name} cannot become a graph: {refusals[-1]}",
            advice="Use a step that skl2onnx converts, such as StandardScaler, RobustScaler, MinMaxScaler, "
            "SimpleImputer, PowerTransformer or PCA before the detector.",
            step=name,
        )
    best = min(tried, key=lambda step: step.difference)
    if best.difference > MOST_DIFFERENCE:
        raise ConversionError(
            f"{name} converts to a graph that gives other numbers, by up to {best.difference:.3g} spreads.",
            advice="Constant columns are a known cause: put sklearn.feature_selection.VarianceThreshold before it, or "
            "use another step.",
            step=name,
        )
    return best


def dense(values: Any) -> Matrix:
    """Return what a step made as float64; some steps make sparse matrices."""
    return np.asarray(values.toarray() if hasattr(values, "toarray") else values, np.float64)


def add_step(graph: GraphBuilder, step: ConvertedStep, values: str) -> str:
    """Add a step.

    Args:
        graph: Where to add.
        step: The step.
        values: Name of a [batch, F] tensor, float32 or float64.

    Returns:
        Name of its output: [batch, F'] float64.
    """
    typed = graph.add("Cast", values, to=TensorProto.DOUBLE if step.double else TensorProto.FLOAT)
    result = f"{graph.prefix()}{step.output}"
    graft(graph, step.model, {step.model.graph.input[0].name: typed}, {step.output: result})
    wide = graph.add("Cast", result, to=TensorProto.DOUBLE)
    # skl2onnx gives some scores as [n], some as [n, 1].
    return graph.add("Reshape", wide, graph.constant(np.array([-1, step.columns], np.int64)))


def _convert(estimator: BaseEstimator, columns: int, double: bool, output: str) -> onnx.ModelProto:
    kind = DoubleTensorType if double else FloatTensorType
    options = {id(estimator): {"score_samples": True}} if output == "score_samples" else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about its own future; what matters is measured below
        # A plain number for the opset: the converter of GaussianMixture compares it with one (skl2onnx 1.20).
        model: onnx.ModelProto = to_onnx(
            estimator, initial_types=[("X", kind([None, columns]))], target_opset=OPSET, options=options
        )
    for node in every_node(model.graph.node):
        if node.domain not in ("", ML_DOMAIN):  # KNNImputer comes as functions, not all of which can be inlined
            raise NotImplementedError(f"It needs {node.op_type} of the domain {node.domain}.")
        if node.domain == ML_DOMAIN and node.op_type in OLD_TREES:
            raise NotImplementedError(f"{node.op_type} is not part of ai.onnx.ml 5.")
    return model


def _measured(model: onnx.ModelProto, double: bool, sample: Matrix, expected: Matrix, output: str) -> ConvertedStep:
    """Run a converted step over training rows and measure how far it is from scikit-learn."""
    session = ort.InferenceSession(model.SerializeToString(), _quiet(), providers=["CPUExecutionProvider"])
    name = output or session.get_outputs()[0].name
    found = session.run([name], {"X": sample.astype(np.float64 if double else np.float32)})[0]
    if found.size != expected.size:
        raise ValueError(f"its graph gives {found.shape} where scikit-learn gives {expected.shape}.")
    found = found.reshape(expected.shape).astype(np.float64)
    spread = expected.std(axis=0)
    apart = np.abs(found - expected) / np.where(spread > 0, spread, 1.0)
    difference = float(np.nan_to_num(apart, nan=np.inf).max(initial=0.0))
    return ConvertedStep(model, double, name, expected.shape[1], difference)


def _quiet() -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return options


def _yeo_johnson(estimator: PowerTransformer) -> onnx.ModelProto:
    """Return a PowerTransformer in float64, where skl2onnx 1.20 mixes types (Yeo and Johnson 2000, equation 2).

    For x >= 0 it is ((x + 1) ** l - 1) / l, or log(x + 1) when l = 0; for x < 0 the same of -x with 2 - l, negated.
    """
    graph = GraphBuilder()
    add, constant = graph.add, graph.constant
    lambdas = np.asarray(estimator.lambdas_, np.float64)
    negative = add("Less", "X", constant(np.float64(0)))
    grown = add("Log", add("Add", add("Abs", "X"), constant(np.float64(1))))
    power = add("Where", negative, constant(2.0 - lambdas), constant(lambdas))
    none = add("Equal", power, constant(np.float64(0)))
    divisor = add("Where", none, constant(np.float64(1)), power)
    curved = add("Div", add("Sub", add("Exp", add("Mul", grown, divisor)), constant(np.float64(1))), divisor)
    signless = add("Where", none, grown, curved)
    result = add("Where", negative, add("Neg", signless), signless)
    if estimator.standardize:
        scaler = estimator._scaler
        result = add("Div", add("Sub", result, constant(scaler.mean_)), constant(scaler.scale_))
    add("Identity", result, name="variable")
    columns = lambdas.size
    info = [tensor_info(name, np.float64, ("n", columns)) for name in ("X", "variable")]
    return graph.model("yeo_johnson", info[:1], info[1:])

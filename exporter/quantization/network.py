"""8-bit integer forms of networks and linear models, by ``onnxruntime.quantization``.

All have weights of 7 bits (``reduce_range``) beside activations of 8: two products of 255 and 64 still fit 16 bits, so
that CPUs without VNNI, whose instruction for them saturates, give the verdicts of those with it. S8S8 does not: on
x86 the runtime turns its activations into U8 and keeps weights of 8 bits (microsoft/onnxruntime #12088)::

    for name, about, small, float_nodes in quantize_model(model, rows): ...
"""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import onnx

from exporter.quantization.dense import dense_nodes, with_plain_dense_layers

# Rows that ranges are found on. Histograms of 2,000 rows of 512 values hold a million numbers a layer.
CALIBRATION_ROWS = 2_000
# Of fewer rows the extremes say nothing of the next window's, and what lies beyond a range is cut off.
FEWEST_ROWS = 100
# Ranges that leave out one value in a thousand, both ends together: the scarce bits go to what is common.
PERCENTILE = 99.9
_DENSE = ("Gemm", "MatMul")


class QuantizedModel(NamedTuple):
    """One integer form of a model.

    Attributes:
        name: Such as ``int8 static per channel entropy``.
        about: What was done, in one sentence.
        model: The same inputs and outputs; standard ONNX operators.
        float_nodes: Operators that stayed float, such as ``Tanh Y``: the operator and what it gives.
    """

    name: str
    about: str
    model: onnx.ModelProto
    float_nodes: tuple[str, ...]


def quantize_model(model: onnx.ModelProto, rows: npt.NDArray[np.float32]) -> Iterator[QuantizedModel]:
    """Yield all integer forms of a model; none when it multiplies by no constant matrix, or of too few rows.

    Args:
        model: One input, [batch, n] float32, and values that are matrices; opset 13 or later.
        rows: (m, n) float32, finite, m >= ``FEWEST_ROWS`` to get any form: what the model meets, with the extremes that
            it must tell apart. At most ``CALIBRATION_ROWS`` of them are used, see ``calibration_rows``.
    """
    ready = with_plain_dense_layers(model)
    if not dense_nodes(ready) or len(rows) < FEWEST_ROWS:
        return
    used = rows[:CALIBRATION_ROWS]
    for ranges in _RANGES:
        found = _calibrated(ready, used, ranges)
        for grain in ("tensor", "channel"):
            yield _finished(
                ready,
                _static(ready, found, per_channel=grain == "channel"),
                f"int8 static per {grain} {ranges.name}",
                f"7-bit weights, one scale per {grain}; ranges of activations by {ranges.name} of {len(used)} windows.",
            )
    yield _finished(
        ready,
        _dynamic(ready),
        "int8 dynamic",
        "7-bit weights; ranges of activations from each block: a window's score depends on the others in it.",
    )


def calibration_rows(
    rows: npt.NDArray[np.float32], extremes: npt.NDArray[np.float32], *, seed: int = 0
) -> npt.NDArray[np.float32]:
    """Choose the rows to calibrate on: those with the largest activations, and a seeded sample of the others.

    Args:
        rows: (m, n) float32.
        extremes: (m,) how large the activations of each row get.
        seed: Of the sample.

    Returns:
        (at most ``CALIBRATION_ROWS``, n) float32; a twentieth of it are the largest.
    """
    if len(rows) <= CALIBRATION_ROWS:
        return rows
    order = np.argsort(extremes, kind="stable")
    largest, others = order[-CALIBRATION_ROWS // 20 :], order[: -CALIBRATION_ROWS // 20]
    sample = np.random.default_rng(seed).choice(others, CALIBRATION_ROWS - len(largest), replace=False)
    return np.asarray(rows[np.sort(np.concatenate([largest, sample]))], np.float32)


class _Ranges(NamedTuple):
    """A way to find the range of an activation.

    Attributes:
        name: For people.
        method: A member of onnxruntime's ``CalibrationMethod``.
        options: Of its calibrator.
    """

    name: str
    method: str
    options: dict[str, Any]


# Entropy needs more bins than it merges them into: with the default of 128 each it can only choose the whole range, as
# minmax does (microsoft/onnxruntime #9597). Percentile is symmetric by default, which wastes half of a Relu's range.
_RANGES = (
    _Ranges("minmax", "MinMax", {}),
    _Ranges("entropy", "Entropy", {"num_bins": 512, "num_quantized_bins": 128}),
    _Ranges("percentile", "Percentile", {"percentile": PERCENTILE, "symmetric": False}),
)


def _calibrated(model: onnx.ModelProto, rows: npt.NDArray[np.float32], ranges: _Ranges) -> Any:
    """Return the range of every dense layer's input and output, as onnxruntime keeps them."""
    from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod
    from onnxruntime.quantization.calibrate import create_calibrator

    class Reader(CalibrationDataReader):  # type: ignore[misc] # onnxruntime has no types
        """Hands out all rows at once: histograms fail on blocks of unequal size."""

        def __init__(self) -> None:
            self._blocks = iter([{model.graph.input[0].name: rows}])

        def get_next(self) -> dict[str, npt.NDArray[np.float32]] | None:
            return next(self._blocks, None)

    with tempfile.TemporaryDirectory(prefix="stella-quantize-") as folder, _silence():
        source = Path(folder) / "float.onnx"
        onnx.save(model, source)
        calibrator = create_calibrator(
            str(source),
            list(_DENSE),
            augmented_model_path=str(Path(folder) / "augmented.onnx"),
            calibrate_method=CalibrationMethod[ranges.method],
            extra_options=ranges.options,
        )
        calibrator.collect_data(Reader())
        return calibrator.compute_data()


def _static(model: onnx.ModelProto, ranges: Any, *, per_channel: bool) -> onnx.ModelProto:
    from onnxruntime.quantization import QDQQuantizer, QuantType

    typed = onnx.shape_inference.infer_shapes(model)  # the quantizer asks which values are floats
    with _silence():
        quantizer = QDQQuantizer(
            typed,
            per_channel,
            True,  # reduce_range
            QuantType.QInt8,
            QuantType.QUInt8,
            ranges,
            dense_nodes(model),
            [],
            list(_DENSE),
            # What a layer gives stays float: the next one quantizes it anew after its activation, and the last one's
            # error would be the step of 8 bits; the integer kernels write floats as fast.
            {"OpTypesToExcludeOutputQuantization": list(_DENSE)},
        )
        quantizer.quantize_model()
        quantizer.model.topological_sort()
    small: onnx.ModelProto = quantizer.model.model
    _drop_bias_zero_points(small)
    return small


def _drop_bias_zero_points(model: onnx.ModelProto) -> None:
    """Leave out the zero points of int32 biases, which are 0 by the standard: 4 bytes for each bias.

    Those of int8 weights would be 0 as well, but without them the runtime finds no integer kernel (1.32).
    """
    wide = {tensor.name for tensor in model.graph.initializer if tensor.data_type == onnx.TensorProto.INT32}
    for node in model.graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in wide:
            del node.input[2:]


def _dynamic(model: onnx.ModelProto) -> onnx.ModelProto:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    # It renames a Gemm to MatMul and Add before it looks which nodes are wanted, so those that are not are named.
    unwanted = {node.name for node in model.graph.node if node.op_type in _DENSE} - set(dense_nodes(model))
    with tempfile.TemporaryDirectory(prefix="stella-quantize-") as folder, _silence():
        source, target = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        onnx.save(model, source)
        quantize_dynamic(
            str(source),
            str(target),
            weight_type=QuantType.QInt8,
            reduce_range=True,
            nodes_to_exclude=sorted(unwanted),
            op_types_to_quantize=list(_DENSE),
        )
        return onnx.load(target)


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Keep the quantizer's prints and log messages away: they advise steps that are done already.

    Its ``logging.warning`` also installs a handler on a root logger that has none, so it gets one meanwhile.
    """
    root, before, handler = logging.getLogger(), logging.root.manager.disable, logging.NullHandler()
    root.addHandler(handler)
    logging.disable(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(before)
        root.removeHandler(handler)


def _finished(before: onnx.ModelProto, small: onnx.ModelProto, name: str, about: str) -> QuantizedModel:
    """Return a form with constants in the order of their names, whatever sets the quantizer went through."""
    used = {name for node in small.graph.node for name in node.input}
    constants = sorted((t for t in small.graph.initializer if t.name in used), key=lambda tensor: tensor.name)
    del small.graph.initializer[:], small.graph.value_info[:], small.metadata_props[:]
    small.graph.initializer.extend(constants)
    return QuantizedModel(name, about, small, _float_nodes(before, small))


def _float_nodes(before: onnx.ModelProto, small: onnx.ModelProto) -> tuple[str, ...]:
    """Return the original operators that do not read quantized values."""
    original = {node.op_type for node in before.graph.node}
    dequantized = {node.output[0] for node in small.graph.node if node.op_type == "DequantizeLinear"}
    return tuple(
        f"{node.op_type} {node.output[0]}"
        for node in small.graph.node
        if node.op_type in original and not dequantized.issuperset(node.input[:2])
    )

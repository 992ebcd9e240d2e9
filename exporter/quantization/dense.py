"""Bring the dense layers of any graph into the one form that quantizes well: Gemm with a bias of one axis.

onnxruntime 1.32 needs that done beforehand, for three reasons:

- Its per-channel quantizer fails on a Gemm bias of shape (1, N), which skl2onnx writes and MatMul-Add fusion makes
  (microsoft/onnxruntime #24815; the fix, #29747, is open).
- ``quantize_dynamic`` infers wrong shapes for a Gemm with ``transB`` (#25890).
- A MatMul and an Add stay float when only the MatMul is quantized: the runtime fuses both into a Gemm first, whose
  bias is float, and no integer kernel takes that (seen in its optimized graph; it was slower than float).
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import numpy.typing as npt
import onnx
from onnx import NodeProto, helper, numpy_helper

_Constants = dict[str, npt.NDArray[np.generic]]


def with_plain_dense_layers(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the same function with each dense layer as a Gemm of constant (in, out) weights and (out,) bias.

    Rewritten are LinearRegressor, a MatMul by constant weights with the Add that follows it, and a Gemm whose weights
    are transposed or whose bias is not of one axis. Whatever else there is stays as it is.

    Args:
        model: Values are matrices [batch, n], as in all graphs of tabular models.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    _name_opsets_once(result)
    graph = result.graph
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    uses = Counter(name for node in graph.node for name in node.input)
    uses.update(value.name for value in graph.output)
    nodes: list[NodeProto] = []
    for node in graph.node:
        before = nodes[-1] if nodes else None
        if before is not None and _adds_bias(node, before, constants) and uses[before.output[0]] == 1:
            nodes[-1] = _fused(before, node, constants)
        else:
            nodes.append(_plain(node, constants))
    del graph.node[:], graph.initializer[:]
    for place, node in enumerate(nodes):  # the quantizer finds nodes by name
        node.name = f"{node.op_type}_{place}"
    graph.node.extend(nodes)
    used = {name for node in nodes for name in node.input}
    graph.initializer.extend(numpy_helper.from_array(v, name) for name, v in sorted(constants.items()) if name in used)
    return result


def dense_nodes(model: onnx.ModelProto) -> list[str]:
    """Return the names of the Gemm and MatMul nodes by constant float32 matrices: those that can be quantized."""
    matrices = {t.name for t in model.graph.initializer if len(t.dims) == 2 and t.data_type == onnx.TensorProto.FLOAT}
    return [
        node.name for node in model.graph.node if node.op_type in ("Gemm", "MatMul") and set(node.input[1:2]) & matrices
    ]


def _name_opsets_once(model: onnx.ModelProto) -> None:
    """Keep one version per operator domain: skl2onnx names one twice for linear models, which the quantizer refuses."""
    versions: dict[str, int] = {}
    for opset in model.opset_import:
        versions[opset.domain] = max(opset.version, versions.get(opset.domain, 0))
    del model.opset_import[:]
    model.opset_import.extend(helper.make_opsetid(domain, version) for domain, version in versions.items())


def _adds_bias(node: NodeProto, before: NodeProto, constants: _Constants) -> bool:
    """Say whether a node adds a constant row to the product of the node before it and constant weights."""
    if node.op_type != "Add" or before.op_type != "MatMul" or before.output[0] not in node.input:
        return False
    weights = constants.get(before.input[1])
    biases = [constants[name] for name in node.input if name in constants]
    return weights is not None and weights.ndim == 2 and len(biases) == 1 and _is_row(biases[0], weights.shape[1])


def _is_row(bias: npt.NDArray[np.generic], width: int) -> bool:
    return bias.ndim <= 2 and bias.size in (1, width) and (bias.ndim < 2 or bias.shape[0] == 1)


def _fused(product: NodeProto, addition: NodeProto, constants: _Constants) -> NodeProto:
    (bias,) = (name for name in addition.input if name in constants)
    width = constants[product.input[1]].shape[1]
    row = _constant(constants, addition.output[0], "bias", _row(constants[bias], width))
    return helper.make_node("Gemm", [*product.input, row], [addition.output[0]])


def _plain(node: NodeProto, constants: _Constants) -> NodeProto:
    if node.op_type == "LinearRegressor":
        return _gemm_of_regressor(node, constants)
    if node.op_type != "Gemm" or node.input[1] not in constants:
        return node
    values = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    weights, inputs = constants[node.input[1]], list(node.input)
    if values.pop("transB", 0):
        weights = np.ascontiguousarray(weights.T)
        inputs[1] = _constant(constants, node.output[0], "weights", weights)
    if len(inputs) == 3 and inputs[2] in constants and _is_row(constants[inputs[2]], weights.shape[1]):
        inputs[2] = _constant(constants, node.output[0], "bias", _row(constants[inputs[2]], weights.shape[1]))
    return helper.make_node("Gemm", inputs, list(node.output), **values)


def _gemm_of_regressor(node: NodeProto, constants: _Constants) -> NodeProto:
    """Return a LinearRegressor (ai.onnx.ml 1) as Gemm: its coefficients are (targets, features), row by row."""
    values = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    targets = int(values.get("targets", 1))
    if values.get("post_transform", b"NONE") != b"NONE":
        return node
    weights = np.asarray(values["coefficients"], np.float32).reshape(targets, -1).T
    bias = np.asarray(values.get("intercepts", [0.0] * targets), np.float32)
    made = [
        _constant(constants, node.output[0], "weights", np.ascontiguousarray(weights)),
        _constant(constants, node.output[0], "bias", bias),
    ]
    return helper.make_node("Gemm", [node.input[0], *made], list(node.output))


def _row(bias: npt.NDArray[np.generic], width: int) -> npt.NDArray[np.generic]:
    return np.ascontiguousarray(np.broadcast_to(bias.reshape(-1), (width,)))


def _constant(constants: _Constants, output: str, role: str, value: npt.NDArray[np.generic]) -> str:
    name = f"{output}/{role}"
    constants[name] = value
    return name

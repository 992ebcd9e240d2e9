"""A small builder for ONNX graphs: nodes named by purpose, constants stored once, attributes set without inspection.

``onnx.helper.make_node`` looks at the type of every number of a list attribute; for the 300,000 numbers of a forest
that is most of the conversion's time, so lists go into the protobuf fields directly::

    graph = GraphBuilder()
    total = graph.add("ReduceSum", "x", graph.constant(np.array([1], np.int64)), keepdims=0)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import AttributeProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

OPSET = 18
ML_DOMAIN = "ai.onnx.ml"
# Deprecated in ai.onnx.ml 5, which our graphs declare: TreeEnsemble took their place.
OLD_TREES = ("TreeEnsembleRegressor", "TreeEnsembleClassifier")
# The oldest IR that carries each version of ai.onnx.ml, so that older runtimes load what they can run; 8 is that of
# opset 18 alone.
IR_BY_ML_OPSET = {3: 8, 5: 10}
IR_WITHOUT_ML = 8

Attribute = int | float | str | bytes | Sequence[int] | npt.NDArray[Any] | TensorProto


class GraphBuilder:
    """Collects nodes and constants; every method that adds something returns the name of its output."""

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self.initializers: list[TensorProto] = []
        self._constants: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self._names = 0

    def add(self, operator: str, *inputs: str, domain: str = "", name: str = "", **attributes: Attribute) -> str:
        """Add a node with one output.

        Args:
            operator: ONNX operator.
            *inputs: Names of its inputs.
            domain: Operator domain; empty for standard ONNX.
            name: Name of its output; made up when empty.
            **attributes: Its attributes; arrays become lists, a TensorProto stays a tensor.

        Returns:
            The name of its output.
        """
        output = name or self._fresh(operator)
        node = NodeProto(op_type=operator, domain=domain, input=inputs, output=[output])
        node.attribute.extend(_attribute(key, value) for key, value in attributes.items())
        self.nodes.append(node)
        return output

    def split(self, value: str, sizes: Sequence[int], axis: int) -> list[str]:
        """Split a tensor into parts of these sizes along an axis; returns their names."""
        outputs = [self._fresh("Split") for _ in sizes]
        sizes_name = self.constant(np.array(sizes, np.int64))
        node = NodeProto(op_type="Split", input=[value, sizes_name], output=outputs)
        node.attribute.append(_attribute("axis", axis))
        self.nodes.append(node)
        return outputs

    def top(self, value: str, count: int) -> tuple[str, str]:
        """Find the smallest of the last axis; returns the names of the values, in order, and of their places."""
        outputs = [self._fresh("TopK"), self._fresh("TopK")]
        node = NodeProto(op_type="TopK", input=[value, self.constant(np.array([count], np.int64))], output=outputs)
        node.attribute.append(_attribute("largest", 0))
        self.nodes.append(node)
        return outputs[0], outputs[1]

    def constant(self, value: npt.ArrayLike, dtype: npt.DTypeLike | None = None) -> str:
        """Add a constant, or find the equal one that is there already.

        Args:
            value: Any shape.
            dtype: Its type; that of ``value`` when None.

        Returns:
            Its name.
        """
        array = np.ascontiguousarray(value, dtype=dtype).reshape(np.shape(value))
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._constants:
            name = f"c{len(self._constants)}"
            self.initializers.append(numpy_helper.from_array(array, name))
            self._constants[key] = name
        return self._constants[key]

    def model(
        self, name: str, inputs: Iterable[ValueInfoProto], outputs: Iterable[ValueInfoProto], *, ml_opset: int = 5
    ) -> onnx.ModelProto:
        """Return the graph as a model.

        Args:
            name: Name of the graph.
            inputs: Its inputs.
            outputs: Its outputs.
            ml_opset: Version of ``ai.onnx.ml``; a graph without its operators does not ask for it, since there are
                runtimes that lack it.
        """
        nodes = list(every_node(self.nodes))
        used = {value for node in nodes for value in node.input}
        constants = [tensor for tensor in self.initializers if tensor.name in used]
        graph = helper.make_graph(self.nodes, name, list(inputs), list(outputs), constants)
        trees = any(node.domain == ML_DOMAIN for node in nodes)
        imports = [helper.make_opsetid("", OPSET), *([helper.make_opsetid(ML_DOMAIN, ml_opset)] if trees else [])]
        return helper.make_model(
            graph,
            opset_imports=imports,
            ir_version=IR_BY_ML_OPSET[ml_opset] if trees else IR_WITHOUT_ML,
            producer_name="stella-edge",
        )

    def prefix(self) -> str:
        """Return a prefix that no name has yet, for the names of a model that is grafted in."""
        self._names += 1
        return f"g{self._names}/"

    def _fresh(self, operator: str) -> str:
        self._names += 1
        return f"{operator.lower()}{self._names}"


def every_node(nodes: Iterable[NodeProto]) -> Iterator[NodeProto]:
    """Yield nodes and all that are inside them, in the bodies of If, Loop and Scan."""
    for node in nodes:
        yield node
        for attribute in node.attribute:
            for body in [attribute.g] if attribute.HasField("g") else attribute.graphs:
                yield from every_node(body.node)


def tensor_info(name: str, dtype: npt.DTypeLike, shape: Sequence[int | str]) -> ValueInfoProto:
    """Return the description of an input or output; a text in the shape is a free dimension of that name."""
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), list(shape))


def _attribute(key: str, value: Attribute) -> AttributeProto:
    attribute = AttributeProto(name=key)
    if isinstance(value, TensorProto):
        attribute.type = AttributeProto.TENSOR
        attribute.t.CopyFrom(value)
    elif isinstance(value, np.ndarray) and value.dtype.kind in "iub":
        attribute.type = AttributeProto.INTS
        attribute.ints.extend(value.astype(np.int64).tolist())  # protobuf takes no bool for an int
    elif isinstance(value, np.ndarray) and value.dtype.kind == "S":
        attribute.type = AttributeProto.STRINGS
        attribute.strings.extend(value.tolist())
    elif isinstance(value, np.ndarray):
        attribute.type = AttributeProto.FLOATS
        attribute.floats.extend(value.tolist())
    else:
        return helper.make_attribute(key, value)
    return attribute

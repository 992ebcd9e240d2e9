"""Put the nodes of a whole ONNX model into a graph under construction, under names that collide with nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import onnx
from onnx import NodeProto

from exporter.graph.nodes import GraphBuilder

_Rename = Callable[[str], str]


def graft(graph: GraphBuilder, model: onnx.ModelProto, inputs: Mapping[str, str], outputs: Mapping[str, str]) -> None:
    """Add all nodes and constants of a model.

    Its opsets must be those that ``GraphBuilder.model`` declares; the caller sees to that.

    Args:
        graph: Where to add.
        model: Its nodes; subgraphs of If, Loop and Scan are renamed as well.
        inputs: For each input of the model, the tensor of ``graph`` that feeds it.
        outputs: For each output wanted, the name that it must get in ``graph``.
    """
    prefix = graph.prefix()
    names = {"": "", **inputs, **outputs}

    def renamed(name: str) -> str:
        return names.setdefault(name, f"{prefix}{name}")

    for tensor in model.graph.initializer:
        if tensor.name in inputs:  # an initializer is the default of an input of the same name
            continue
        copy = onnx.TensorProto()
        copy.CopyFrom(tensor)
        copy.name = renamed(tensor.name)
        graph.initializers.append(copy)
    graph.nodes.extend(_renamed_node(node, renamed) for node in model.graph.node)


def _renamed_node(node: NodeProto, renamed: _Rename) -> NodeProto:
    copy = NodeProto()
    copy.CopyFrom(node)
    del copy.input[:], copy.output[:]
    copy.name = renamed(node.name) if node.name else ""
    copy.input.extend(renamed(name) for name in node.input)
    copy.output.extend(renamed(name) for name in node.output)
    for attribute in copy.attribute:
        for body in [attribute.g] if attribute.HasField("g") else attribute.graphs:
            _rename_body(body, renamed)
    return copy


def _rename_body(body: onnx.GraphProto, renamed: _Rename) -> None:
    for value in (*body.input, *body.output, *body.initializer, *body.value_info):
        value.name = renamed(value.name)
    nodes = [_renamed_node(node, renamed) for node in body.node]
    del body.node[:]
    body.node.extend(nodes)

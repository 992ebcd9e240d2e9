"""Make a foreign model fit to be grafted: the opsets of our graphs, one input, one output, nothing else.

Standard operators are converted to opset 18 by ``onnx.version_converter``. Those of ai.onnx.ml are what they were up to
version 5, but for trees, which become ``TreeEnsemble``.
"""

from __future__ import annotations

from collections.abc import Iterable

import onnx
from onnx.version_converter import ConvertError, convert_version

from exporter.errors import ConversionError
from exporter.graph.grafting import graft
from exporter.graph.nodes import ML_DOMAIN, OLD_TREES, OPSET, GraphBuilder, every_node, tensor_info
from exporter.graph.tree_upgrade import add_upgraded


def opset_of(model: onnx.ModelProto) -> int:
    """Return the version of the standard operators; ours where a model has none of them, as XGBoost's."""
    return max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=OPSET)


def adapt(model: onnx.ModelProto, *, entry: str, output: str, shape: tuple[int, ...]) -> onnx.ModelProto:
    """Return a model from ``X`` to ``score`` that computes what an output of another says.

    Args:
        model: Valid, of standard operators only.
        entry: Its input.
        output: The output that is kept, with what it depends on.
        shape: Of the input, without the batch, which becomes free.

    Returns:
        The model, for opset 18 and ai.onnx.ml 5.

    Raises:
        ConversionError: An operator that the version converter does not know, or trees that cannot be rewritten.
    """
    model = _converted(model)
    graph = GraphBuilder()
    graft(graph, model, {entry: "X"}, {output: "score"})
    nodes, graph.nodes = _needed(graph.nodes, "score"), []
    for node in nodes:
        node.domain = "" if node.domain == "ai.onnx" else node.domain
        if node.domain == ML_DOMAIN and node.op_type in OLD_TREES:
            add_upgraded(graph, node)
        else:
            graph.nodes.append(node)
    kinds = {info.name: info.type.tensor_type.elem_type for info in (*model.graph.input, *model.graph.output)}
    numpy_kind = onnx.helper.tensor_dtype_to_np_dtype(kinds[entry])
    score = onnx.helper.make_tensor_value_info("score", kinds[output], None)
    return graph.model("foreign", [tensor_info("X", numpy_kind, ("batch", *shape))], [score])


def _converted(model: onnx.ModelProto) -> onnx.ModelProto:
    version = opset_of(model)
    if version == OPSET:
        return model
    try:
        return convert_version(model, OPSET)
    except (ConvertError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise ConversionError(
            f"A model of opset {version} does not convert to {OPSET}: {reason}", advice=f"Export it with opset {OPSET}."
        ) from error


def _needed(nodes: Iterable[onnx.NodeProto], output: str) -> list[onnx.NodeProto]:
    """Return the nodes that an output depends on, in order."""
    wanted, kept = {output}, []
    for node in reversed(list(nodes)):
        if wanted.intersection(node.output):
            kept.append(node)
            wanted.update(node.input)
            for attribute in node.attribute:
                for body in [attribute.g] if attribute.HasField("g") else attribute.graphs:
                    wanted.update(name for inner in every_node(body.node) for name in inner.input)
                    wanted.update(info.name for info in body.output)
    return kept[::-1]

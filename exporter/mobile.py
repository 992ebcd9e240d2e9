"""What phone accelerators would take of a graph, by ONNX Runtime's own lists, in plain words.

``onnxruntime.tools.check_onnx_model_mobile_usability`` says YES, MAYBE or NO by counting nodes. One node holds a whole
forest, so a graph whose trees are all its work may be a MAYBE; here the lines say what is left behind.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import onnx
from onnxruntime.tools.mobile_helpers.usability_checker import check_coreml_partitions, check_nnapi_partitions

_TREES = frozenset({"TreeEnsemble", "TreeEnsembleRegressor", "TreeEnsembleClassifier"})
_CORE_ML = "coreml_supported_mlprogram_ops.md"
# Beyond this many pieces, copying between processors costs more than it saves: onnxruntime's checker says so as well.
_MOST_PIECES = 2


@dataclass(frozen=True, slots=True)
class Accelerator:
    """What one accelerator would take, were the batch fixed.

    Attributes:
        name: ``NNAPI`` or ``Core ML``.
        nodes: Nodes of the graph.
        supported: Nodes that its operator list has.
        pieces: Runs of such nodes; between two of them data goes back to the CPU.
        unsupported: Operators that it has not.
    """

    name: str
    nodes: int
    supported: int
    pieces: int
    unsupported: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class MobileReport:
    """What a phone's accelerators would take of a graph.

    Attributes:
        accelerators: One entry each.
        trees: Whether the graph holds trees.
    """

    accelerators: tuple[Accelerator, ...]
    trees: bool

    def to_dict(self) -> dict[str, Any]:
        """Return it as one JSON-ready object."""
        return asdict(self)

    def lines(self) -> list[str]:
        """Return it as sentences."""
        found = [
            f"{one.name:<8} has operators for {one.supported} of {one.nodes} nodes, in {one.pieces} pieces; not for "
            f"{', '.join(one.unsupported) or 'none'}"
            for one in self.accelerators
        ]
        if self.trees:
            return [
                *found,
                "Its trees run on the CPU: no accelerator has an operator for them. onnxruntime's mobile checker counts"
                " nodes, so its MAYBE says nothing of a graph whose one tree node is most of the work.",
            ]
        if all(one.pieces > _MOST_PIECES for one in self.accelerators):
            return [*found, "In so many pieces the copies cost more than an accelerator saves: use the CPU."]
        return [*found, "Whether an accelerator is faster shows only on the phone; golden windows must pass there too."]


def mobile_report(model: bytes) -> MobileReport:
    """Look a graph's operators up in the lists of NNAPI and Core ML (ML Program) that come with onnxruntime.

    Args:
        model: The ONNX graph. Dynamic shapes are taken for fixed, as an app could fix the batch at 1.
    """
    graph = onnx.load_model_from_string(model)
    found = {
        "NNAPI": check_nnapi_partitions(graph, require_fixed_input_sizes=False),
        "Core ML": check_coreml_partitions(graph, require_fixed_input_sizes=False, config_filename=_CORE_ML),
    }
    accelerators = tuple(
        Accelerator(
            name, one.num_nodes, one.num_supported_nodes, one.num_partitions,
            tuple(sorted(operator.rpartition(":")[2] for operator in one.unsupported_ops)),
        )
        for name, one in found.items()
    )  # fmt: skip
    return MobileReport(accelerators, any(node.op_type in _TREES for node in graph.graph.node))

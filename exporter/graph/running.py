"""Run a graph over many windows in blocks, as training and evaluation do."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort

# 4,096 windows of 24 x 25 double values are 20 MB a tensor: small enough for the cache of temporaries, large enough
# that the cost of starting a run does not show.
BLOCK_VALUES = 2_500_000


class Graph:
    """An onnxruntime session over a model of ours.

    Args:
        model: The graph, or its bytes.
        threads: Threads of one operator.
    """

    def __init__(self, model: onnx.ModelProto | bytes, *, threads: int = 1) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        content = model if isinstance(model, bytes) else model.SerializeToString()
        self._session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0].name

    def run(self, values: npt.NDArray[np.float32], outputs: Sequence[str]) -> list[npt.NDArray[np.generic]]:
        """Run all rows in blocks.

        Args:
            values: (n, ...) float32, the graph's one input.
            outputs: Names of the outputs wanted.

        Returns:
            Each output for all n rows, in this order.
        """
        size = max(1, BLOCK_VALUES // max(1, int(np.prod(values.shape[1:]))))
        blocks = [
            self._session.run(list(outputs), {self._input: values[start : start + size]})
            for start in range(0, max(1, len(values)), size)
        ]
        return [np.concatenate(parts) for parts in zip(*blocks, strict=True)]

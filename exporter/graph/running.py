"""Run a graph over many windows in blocks, several at a time, as training and evaluation do.

A block is small enough that its temporaries stay in a core's cache; blocks run beside each other, each on one thread,
because onnxruntime lets go of the interpreter while it computes. Every block writes its own rows, so the bytes do not
depend on how many ran at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import joblib
import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort

# Of 24 x 25 values a block holds 250 windows, 1.2 MB a double tensor. Measured on the feature graph: 4 us a window,
# 7.5 us in blocks of 2.5 million values, which no cache holds, and no less in smaller ones.
BLOCK_VALUES = 150_000
Block = npt.NDArray[np.float32]
Output = npt.NDArray[Any]


class Graph:
    """An onnxruntime session over a model of ours.

    Args:
        model: The graph, or its bytes.
        threads: Blocks that run at the same time; all cores when None.
    """

    def __init__(self, model: onnx.ModelProto | bytes, *, threads: int | None = None) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        content = model if isinstance(model, bytes) else model.SerializeToString()
        self._session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0].name
        self._threads = joblib.cpu_count() if threads is None else threads

    def run(self, values: Block, outputs: Sequence[str]) -> list[Output]:
        """Run all rows in blocks.

        Args:
            values: (n, ...) float32, the graph's one input.
            outputs: Names of the outputs wanted.

        Returns:
            Each output for all n rows, in this order.
        """
        return self.run_blocks(
            lambda rows: values[rows], len(values), outputs, values_a_row=int(np.prod(values.shape[1:]))
        )

    def run_blocks(
        self, make: Callable[[slice], Block], count: int, outputs: Sequence[str], *, values_a_row: int
    ) -> list[Output]:
        """Run rows that are made when their turn comes; at no time are there more of them than one block a thread.

        Args:
            make: Makes the input of some rows; called from several threads.
            count: n, how many rows there are.
            outputs: Names of the outputs wanted.
            values_a_row: Input values of a row, which decide how many rows are a block.

        Returns:
            Each output for all n rows, in this order.
        """
        first, *others = block_slices(count, values_a_row) or [slice(0, 0)]
        found = self._session.run(list(outputs), {self._input: make(first)})
        results = [np.empty((count, *part.shape[1:]), part.dtype) for part in found]
        _place(results, first, found)

        left = iter(others)  # each thread takes the next one from it

        def work() -> None:
            for rows in left:
                _place(results, rows, self._session.run(list(outputs), {self._input: make(rows)}))

        _on_threads(work, min(self._threads, len(others)))
        return results


def block_slices(count: int, values_a_row: int) -> list[slice]:
    """Return which of ``count`` rows of so many values form a block, block by block."""
    size = max(1, BLOCK_VALUES // max(1, values_a_row))
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


def _place(results: list[Output], rows: slice, found: Sequence[Output]) -> None:
    for result, part in zip(results, found, strict=True):
        result[rows] = part


def _on_threads(work: Callable[[], None], threads: int) -> None:
    """Do the work on some threads at once; what one of them raises is raised when all have ended."""
    if threads <= 1:
        work()
        return
    with ThreadPoolExecutor(threads) as pool:
        for done in [pool.submit(work) for _ in range(threads)]:
            done.result()

"""The sides of the scoring benchmark: how each makes its file from a forest, and loads it as its users would.

A side is known by its kind, so that another process can make, load and measure it. Signs are left as the libraries
have them; all scores lie in (0, 1) by their size. Libraries load when their side is made or loaded.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.float32]
Score = Callable[[Rows], Any]
LARGEST_SAMPLE = 256  # rows a tree, what scikit-learn's "auto" comes to; depth 8 is its logarithm


@dataclass(frozen=True, slots=True)
class Kind:
    """How one library is used.

    Attributes:
        load: Returns what scores rows, from the file and a number of threads.
        make: Writes the file from scikit-learn's forest and the rows that it was trained on; None for ours, which the
            exporter makes.
        file: Name of the file that ``make`` writes.
        about: What a reader must know of it.
        largest_batch: Rows that one call may have.
        most_threads: Threads that it can use.
    """

    load: Callable[[Path, int], Score]
    make: Callable[[Any, Rows, Path], None] | None = None
    file: str = ""
    about: str = ""
    largest_batch: int = 10_000
    most_threads: int = 2

    def takes(self, batch: int, threads: int) -> bool:
        """Whether it can score such a batch on so many threads."""
        return batch <= self.largest_batch and threads <= self.most_threads


def _load_onnx(path: Path, threads: int, output: str | None = None) -> Score:
    from benchmarks.forest import scorer

    score: Score = scorer(path.read_bytes(), output, threads)
    return score


def _make_skl2onnx(forest: Any, rows: Rows, path: Path) -> None:  # noqa: ARG001 - all makers take the same
    from benchmarks.forest import skl2onnx_model

    path.write_bytes(skl2onnx_model(forest))


def _make_sklearn(forest: Any, rows: Rows, path: Path) -> None:  # noqa: ARG001
    import joblib

    joblib.dump(forest, path)


def _load_sklearn(path: Path, threads: int) -> Score:
    import joblib

    forest = joblib.load(path)
    if threads == 1:
        score: Score = forest.score_samples
        return score

    def score_on_threads(rows: Rows) -> Any:
        # n_jobs of the forest is for training; scoring takes joblib's context (scikit-learn, IsolationForest).
        with joblib.parallel_config(backend="threading", n_jobs=threads):
            return forest.score_samples(rows)

    return score_on_threads


def _make_hummingbird(forest: Any, rows: Rows, path: Path) -> None:
    from hummingbird.ml import convert

    convert(forest, "torch.jit", rows[:1000]).save(str(path.with_suffix("")))


def _load_hummingbird(path: Path, threads: int) -> Score:
    import hummingbird.ml
    import torch

    torch.set_num_threads(threads)
    score: Score = hummingbird.ml.load(str(path), override_flag=True).score_samples  # our own file of a moment ago
    return score


def _make_tl2cgen(forest: Any, rows: Rows, path: Path) -> None:  # noqa: ARG001
    import tl2cgen
    import treelite

    cores = os.cpu_count() or 1
    tl2cgen.export_lib(
        treelite.sklearn.import_model(forest),
        toolchain="gcc",
        libpath=str(path),
        # Thresholds as ranks: its fastest form, 1.4 to 1.7 times as fast as the default.
        params={"quantize": 1, "parallel_comp": 4 * cores},
        nthread=cores,
    )


def _load_tl2cgen(path: Path, threads: int) -> Score:
    import tl2cgen

    predictor = tl2cgen.Predictor(str(path), nthread=threads)
    # New rows are a new DMatrix: there is no other way in.
    return lambda rows: predictor.predict(tl2cgen.DMatrix(rows, dtype="float32"))


def _load_tl2cgen_c(path: Path, threads: int) -> Score:  # noqa: ARG001 - a C function has the thread that calls it
    predict = ctypes.CDLL(str(path)).predict
    predict.argtypes, predict.restype = [ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p], None

    def score(rows: Rows) -> Any:
        entries = rows.astype(
            np.float64
        )  # treelite holds scikit-learn's thresholds as double; ranks replace the values
        scores = np.zeros(len(rows))
        source, target, stride = entries.ctypes.data, scores.ctypes.data, entries.strides[0]
        for row in range(len(rows)):
            predict(source + row * stride, 0, target + row * 8)
        return scores

    return score


def _make_isotree(forest: Any, rows: Rows, path: Path) -> None:
    from isotree import IsolationForest

    own = IsolationForest(
        ntrees=len(forest.estimators_), sample_size=LARGEST_SAMPLE, max_depth=8, ndim=1, missing_action="fail",
        nthreads=1, random_seed=0,
    )  # fmt: skip
    own.fit(rows).export_model(str(path))


def _load_isotree(path: Path, threads: int) -> Score:
    from isotree import IsolationForest

    forest = IsolationForest.import_model(str(path))
    forest.set_params(nthreads=threads)
    score: Score = forest.predict
    return score


OURS = "onnx"
RIVALS = ("scikit-learn", "skl2onnx", "Hummingbird", "tl2cgen", "tl2cgen as C", "isotree")
KINDS = {
    OURS: Kind(_load_onnx),
    "scikit-learn": Kind(_load_sklearn, _make_sklearn, "sklearn.joblib", "score_samples; two threads by joblib."),
    "skl2onnx": Kind(
        lambda path, threads: _load_onnx(path, threads, "score_samples"),
        _make_skl2onnx,
        "skl2onnx.onnx",
        "its graph as shipped, in onnxruntime.",
    ),
    "Hummingbird": Kind(
        _load_hummingbird, _make_hummingbird, "hummingbird.zip", "torch.jit backend, PyTorch on the CPU."
    ),
    "tl2cgen": Kind(
        _load_tl2cgen,
        _make_tl2cgen,
        "tl2cgen.so",
        "treelite's model as C with quantize=1, compiled by gcc, called by its Predictor with a new DMatrix each call.",
    ),
    "tl2cgen as C": Kind(
        _load_tl2cgen_c,
        None,
        "tl2cgen.so",
        "the same library without its Python package, one C call a row: machine code for one kind of processor, which"
        " no bundle can carry; one thread, up to 100 rows.",
        largest_batch=100,
        most_threads=1,
    ),
    "isotree": Kind(
        _load_isotree,
        _make_isotree,
        "isotree.bin",
        "a forest of its own with as many trees, rows a tree and depth, since it cannot take another's; its"
        " convert time is its training.",
    ),
}

"""Scores the windows of ``benchmarks.aarch64`` with whatever Python runs this; needs numpy and onnxruntime alone.

``python -m benchmarks.elsewhere FOLDER TAG`` writes ``MODEL.TAG.npz`` beside every model, and one line of JSON.
"""

from __future__ import annotations

import json
import platform
import sys
from pathlib import Path

import numpy as np
import onnxruntime

from edge_runtime.scoring import Scorer


def score_all(folder: Path, tag: str) -> None:
    """Score each ``SET/windows.npy`` with each ``SET/MODEL.onnx``.

    Args:
        folder: Holds a folder for each set.
        tag: Part of the names of the files that hold the outputs.
    """
    for path in sorted(folder.glob("*/windows.npy")):
        windows = np.load(path, allow_pickle=False)
        for model in sorted(path.parent.glob("*.onnx")):
            scorer = Scorer(model)
            verdicts = scorer.score(windows)
            np.savez(
                model.with_name(f"{model.stem}.{tag}.npz"),
                raw_score=verdicts.raw_score,
                is_anomaly=verdicts.is_anomaly,
                features=scorer.features(windows),
            )


def main() -> None:
    """Score, and say by what."""
    score_all(Path(sys.argv[1]), sys.argv[2])
    versions = {"onnxruntime": onnxruntime.__version__, "numpy": np.__version__, "python": platform.python_version()}
    sys.stdout.write(json.dumps({"machine": platform.machine(), **versions}) + "\n")


if __name__ == "__main__":
    main()

"""What a team would write first: a process with pandas features and a pickled scikit-learn forest.

It reads CSV lines on standard input, keeps the last readings in a DataFrame, computes last and mean of every signal
and scores the newest window; one JSON line a reading. ``benchmarks/device.py`` times it beside ``edge-runtime``::

    python -m benchmarks.rival_service forest.joblib < readings.csv
"""

from __future__ import annotations

import json
import sys

import joblib
import numpy as np
import pandas as pd


def main(path: str, slots: int) -> None:
    """Score lines until the input ends."""
    forest = joblib.load(path)
    columns = sys.stdin.readline().strip().split(",")
    signals = columns[1:]
    window = pd.DataFrame(columns=signals, dtype="float32")
    for line in sys.stdin:
        cells = line.rstrip("\n").split(",")
        row = pd.DataFrame([[float(cell) if cell else np.nan for cell in cells[1:]]], columns=signals, dtype="float32")
        window = pd.concat([window, row], ignore_index=True).tail(slots)
        features = np.concatenate([window.iloc[-1].to_numpy(), window.mean().to_numpy()])
        score = -forest.score_samples(features[None, :].astype(np.float32))[0]
        is_anomaly = bool(score > -forest.offset_)
        print(
            json.dumps({"timestamp": cells[0], "outcome": "scored", "raw_score": score, "is_anomaly": is_anomaly}),
            flush=True,
        )


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))

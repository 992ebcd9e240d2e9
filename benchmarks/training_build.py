"""``python -m benchmarks.training_build FLEET``: build all models of a simulated fleet, and say what phases took."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from benchmarks.models import settings
from exporter.model_build import build_models


def main(fleet: Path) -> None:
    """Build with the settings that ``exporter init`` proposes, and print one JSON object."""
    spec = settings(fleet / "readings.parquet", fleet / "labels.parquet", fleet, name="fleet")
    build = build_models(spec)
    answer = {"models": len(build.models), "readings": build.readings, "timings": dict(build.timings)}
    print(json.dumps(answer))


if __name__ == "__main__":
    main(Path(sys.argv[1]))

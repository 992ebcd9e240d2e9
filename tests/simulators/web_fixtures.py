"""Everything that Vitest reads from Python: ``python -m simulators.web_fixtures FOLDER``."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from simulators.web_parity import write_small_cases
from simulators.web_repositories import scenes


def main(folder: Path) -> None:
    """Write repositories and parity cases."""
    (folder / "scenes.json").write_text(json.dumps(scenes()))
    write_small_cases(folder / "parity")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

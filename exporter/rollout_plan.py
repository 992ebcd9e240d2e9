"""A rollout's plan as people write it: TOML, shares in percent, times in hours. What it means, the server checks.

::

    on_trip = "roll_back"

    [[stages]]
    share = "1%"
    hours = 24
    devices = 10
"""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

from edge_runtime.errors import InputError

MAX_BYTES = 64 * 1024


def read_plan(path: Path) -> dict[str, Any]:
    """Return a plan as the server takes it: shares in ten-thousandths, times in minutes.

    Args:
        path: A TOML file with the fields of the server's plan; a stage may have ``hours`` instead of ``minutes``.

    Raises:
        InputError: The file cannot be read, is no TOML, or a stage's share or time is none.
    """
    try:
        data = path.read_bytes()
        plan = tomllib.loads(data.decode("utf-8"))
        json.dumps(plan, allow_nan=False)  # TOML has dates and infinities, JSON has not
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise InputError(f"The plan {path} cannot be read: {error}.", advice="See docs/rollouts.md.") from error
    if len(data) > MAX_BYTES:
        raise InputError(f"The plan {path} has {len(data)} bytes.", advice=f"A plan has at most {MAX_BYTES}.")
    if "stages" in plan:
        stages = plan["stages"]
        if not isinstance(stages, list) or not all(isinstance(stage, dict) for stage in stages):
            raise InputError(f"The stages of {path} are no list of tables.", advice="Begin each with [[stages]].")
        plan["stages"] = [_stage(stage, f"Stage {n} of {path}") for n, stage in enumerate(stages, start=1)]
    return plan


def _stage(stage: dict[str, Any], what: str) -> dict[str, Any]:
    result = dict(stage)
    if isinstance(stage.get("share"), str):
        match = re.fullmatch(r"([0-9]{1,3}(?:\.[0-9]{1,2})?) ?%", stage["share"])
        if match is None:
            raise InputError(
                f"{what} has the share {stage['share']!r}.", advice='Give one such as "2.5%", or ten-thousandths.'
            )
        result["share"] = round(float(match.group(1)) * 100)
    if "hours" in stage:
        hours = result.pop("hours")
        if "minutes" in stage or isinstance(hours, bool) or not isinstance(hours, int | float) or not 0 <= hours < 1e5:
            raise InputError(f"{what} has no time that can be used.", advice="Give hours or minutes, 0 or more.")
        result["minutes"] = round(hours * 60)
    return result
